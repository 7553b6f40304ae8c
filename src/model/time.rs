//! Points in time as Docker writes them.

use std::{fmt, time::SystemTime};

use chrono::{DateTime, FixedOffset, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Error, Result};

/// A point in time with nanoseconds. Written as Go's RFC3339Nano: trailing zeros of the fraction are cut.
/// The zero value is Go's zero time, year 1, which inspect shows for "never".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// Now.
    pub fn now() -> Self {
        Self(Utc::now())
    }

    /// Go's zero time, `0001-01-01T00:00:00Z`.
    pub fn zero() -> Self {
        Self(Utc.with_ymd_and_hms(1, 1, 1, 0, 0, 0).single().expect("a valid constant date"))
    }

    /// Whether this is Go's zero time.
    pub fn is_zero(self) -> bool {
        self == Self::zero()
    }

    /// From seconds and nanoseconds since 1970.
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        DateTime::from_timestamp(seconds, nanos).map_or_else(Self::zero, Self)
    }

    /// Whole seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0.timestamp()
    }

    /// Nanoseconds since 1970; a time after 2262 is the last that can be said so, one before 1677 the first.
    pub fn unix_nanos(self) -> i64 {
        let beyond = if self.0.timestamp() < 0 { i64::MIN } else { i64::MAX };
        self.0.timestamp_nanos_opt().unwrap_or(beyond)
    }

    /// Time from an earlier point until this one, zero if it is a later one.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        (self.0 - earlier.0).to_std().unwrap_or_default()
    }

    /// Time that has passed since, zero if it lies in the future.
    pub fn elapsed(self) -> std::time::Duration {
        (Utc::now() - self.0).to_std().unwrap_or_default()
    }

    /// Time until then, zero if it has passed.
    pub fn time_left(self) -> std::time::Duration {
        (self.0 - Utc::now()).to_std().unwrap_or_default()
    }

    /// The `since` and `until` query values: Unix seconds with an optional fraction, RFC 3339, a date, or a
    /// Go duration back from now (`10m`, `1h30m`).
    pub fn parse_query(value: &str) -> Result<Self> {
        parse_unix(value)
            .or_else(|| DateTime::parse_from_rfc3339(value).ok().map(|time| Self(time.with_timezone(&Utc))))
            .or_else(|| parse_local(value))
            .or_else(|| parse_go_duration(value).map(|back| Self(Utc::now() - back)))
            .ok_or_else(|| Error::invalid(format!("failed to parse value as time or duration: {value:?}")))
    }

    /// With all nine digits of the fraction, as log lines carry it (`2006-01-02T15:04:05.000000000Z`).
    pub fn fixed_nanos(self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Nanos, true)
    }

    /// Parses RFC 3339.
    pub fn parse_rfc3339(value: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(value).ok().map(|time: DateTime<FixedOffset>| Self(time.with_timezone(&Utc)))
    }
}

/// A time for people: `90 s`, `3 min`, `5 h`, `4 d`.
pub fn rough(time: std::time::Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds if seconds < 172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

fn parse_unix(value: &str) -> Option<Timestamp> {
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Timestamp::from_unix(seconds, nanos))
}

fn parse_local(value: &str) -> Option<Timestamp> {
    const FORMATS: [&str; 3] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dZ%H"];
    let time = FORMATS
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(value, format).ok())
        .or_else(|| chrono::NaiveDate::parse_from_str(value, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    Some(Timestamp(time.and_utc()))
}

/// A Go duration: `1h2m3.5s`, `300ms`, `-5m`.
pub fn parse_go_duration(value: &str) -> Option<chrono::Duration> {
    let (negative, mut rest) = match value.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[unit_end..];
    }
    #[allow(clippy::cast_possible_truncation, reason = "durations of more than 292 years do not occur")]
    Some(chrono::Duration::nanoseconds(if negative { -nanos as i64 } else { nanos as i64 }))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.timestamp_subsec_nanos();
        write!(f, "{}", self.0.format("%Y-%m-%dT%H:%M:%S"))?;
        if nanos != 0 {
            write!(f, ".{}", format!("{nanos:09}").trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.into())
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::zero()
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom(format!("not an RFC 3339 time: {text}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_far_off_is_not_1970() {
        assert_eq!(Timestamp::from_unix(9_999_999_999, 0).unix_nanos(), i64::MAX);
    }

    #[test]
    fn fraction_is_cut_as_go_does() {
        assert_eq!(Timestamp::from_unix(1, 500_000_000).to_string(), "1970-01-01T00:00:01.5Z");
        assert_eq!(Timestamp::from_unix(1, 0).to_string(), "1970-01-01T00:00:01Z");
        assert_eq!(Timestamp::zero().to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn query_values_of_all_forms_are_read() {
        assert_eq!(Timestamp::parse_query("12.5").unwrap(), Timestamp::from_unix(12, 500_000_000));
        assert_eq!(Timestamp::parse_query("1970-01-01T00:00:12Z").unwrap(), Timestamp::from_unix(12, 0));
        assert_eq!(Timestamp::parse_query("1970-01-02").unwrap(), Timestamp::from_unix(86400, 0));
        assert!(Timestamp::parse_query("10m").unwrap() < Timestamp::now());
        assert!(Timestamp::parse_query("soon").is_err());
    }
}
