//! What a process is started and stopped with: folder, environment, signal, health check.

use super::invalid;
use crate::model::{
    Result,
    container::{Config, HealthConfig},
    signal::Signal,
};

/// Shortest time of a health check, in nanoseconds.
const MILLISECOND: i64 = 1_000_000;

pub(super) fn check(config: &Config) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if let Some(signal) = config.stop_signal.as_deref().filter(|signal| !signal.is_empty()) {
        // A negative number passes here, and is none that could be sent, as with dockerd.
        if !signal.parse::<i64>().is_ok_and(|number| number < 0) {
            Signal::parse(signal)?;
        }
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return invalid(format!("invalid environment variable: {entry}"));
        }
    }
    config.healthcheck.as_ref().map_or(Ok(()), check_health)
}

fn check_health(health: &HealthConfig) -> Result<()> {
    let times = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    for (name, time) in &times[..2] {
        check_time(name, *time)?;
    }
    if health.retries < 0 {
        return invalid("Retries in Healthcheck cannot be negative");
    }
    for (name, time) in &times[2..] {
        check_time(name, *time)?;
    }
    Ok(())
}

fn check_time(name: &str, time: i64) -> Result<()> {
    if time != 0 && time < MILLISECOND {
        return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
    }
    Ok(())
}
