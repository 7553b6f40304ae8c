//! `HEALTHCHECK`.

use super::{
    flags::{Flags, Kind},
    words,
};
use crate::model::{Error, Result, container::HealthConfig, time::parse_go_duration};

/// Shorter times are refused.
const SHORTEST: i64 = 1_000_000;

/// `NONE`, or `CMD command` with flags.
pub fn health_check(given: &[String], rest: &str) -> Result<HealthConfig> {
    if rest.is_empty() {
        return Err(Error::invalid("HEALTHCHECK requires at least one argument"));
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (kind, command) = (kind.to_uppercase(), command.trim());
    if kind == "NONE" {
        if !command.is_empty() {
            return Err(Error::invalid("HEALTHCHECK NONE takes no arguments"));
        }
        return Ok(HealthConfig { test: Some(vec![kind]), ..HealthConfig::default() });
    }
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::parse(given, &names.map(|name| (name, Kind::Text)))?;
    if kind != "CMD" {
        return Err(Error::invalid(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")));
    }
    let test = match words::json_list(command)? {
        Some(words) if !words.is_empty() => ["CMD".to_owned()].into_iter().chain(words).collect(),
        None if !command.is_empty() => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        _ => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
    };
    Ok(HealthConfig {
        test: Some(test),
        interval: duration(&flags, "interval")?,
        timeout: duration(&flags, "timeout")?,
        start_period: duration(&flags, "start-period")?,
        start_interval: duration(&flags, "start-interval")?,
        retries: retries(&flags.text("retries"))?,
    })
}

fn duration(flags: &Flags, name: &str) -> Result<i64> {
    let text = flags.text(name);
    if text.is_empty() {
        return Ok(0);
    }
    let parsed = parse_go_duration(&text).and_then(|duration| duration.num_nanoseconds());
    let nanos = parsed.ok_or_else(|| {
        let is_number = text.parse::<f64>().is_ok();
        let what = if is_number { "missing unit in duration" } else { "invalid duration" };
        Error::invalid(format!("time: {what} {text:?}"))
    })?;
    if nanos != 0 && nanos < SHORTEST {
        return Err(Error::invalid(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(nanos)
}

fn retries(text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    let retries: i32 =
        text.parse().map_err(|_| Error::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
    if retries < 0 {
        return Err(Error::invalid(format!("--retries cannot be negative ({retries})")));
    }
    Ok(retries.into())
}
