//! Values of flags and keys, spelled as `docker run` has them.

use std::str::FromStr;

use ringer::model::{Error, reference::Reference, time::parse_go_duration};
use serde::Deserialize;

/// Reads values of keys in a file as those of flags are read.
macro_rules! read_as_flags {
    ($($value:ty),+) => {$(
        impl TryFrom<String> for $value {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse().map_err(|error: Error| error.message().to_owned())
            }
        }
    )+};
}

pub(crate) use read_as_flags;

read_as_flags!(Seconds, Bytes, Image);

impl TryFrom<f64> for Cpus {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        number.to_string().parse().map_err(|error: Error| error.message().to_owned())
    }
}

/// A time in whole seconds: `90s`, `30m`, `1h30m`, or a plain number.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Seconds(pub u64);

impl FromStr for Seconds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::invalid(format!("invalid time {text:?}: expected something like 90s, 30m or 2h"));
        if let Ok(seconds) = text.parse() {
            return Ok(Self(seconds));
        }
        let seconds = parse_go_duration(text).ok_or_else(invalid)?.num_seconds();
        u64::try_from(seconds).map(Self).map_err(|_| invalid())
    }
}

/// A path of the machine that is there, without links on its way, perhaps with `:ro` after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind(pub String);

impl FromStr for Bind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (path, suffix) = text.strip_suffix(":ro").map_or((text, ""), |path| (path, ":ro"));
        let path = std::fs::canonicalize(path).map_err(|error| Error::invalid(error.to_string()))?;
        match path.to_str() {
            Some(path) if !path.ends_with(":ro") => Ok(Self(format!("{path}{suffix}"))),
            _ => Err(Error::invalid(format!("{}: such a name cannot be said here", path.display()))),
        }
    }
}

/// Name of an image, `latest` where it has no tag.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Image(pub Reference);

impl FromStr for Image {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(Self(Reference::parse(text)?.or_latest()))
    }
}

/// A number of bytes: `512m`, `4g`, `4GiB`, or a plain number.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::invalid(format!("invalid size {text:?}: expected something like 512m or 4g"));
        let lower = text.to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(invalid()),
        };
        let number: f64 = digits.trim().parse().map_err(|_| invalid())?;
        let bytes = number * (1u64 << shift) as f64;
        let fits = bytes.is_finite() && (0.0..=i64::MAX as f64).contains(&bytes);
        if fits { Ok(Self(bytes as u64)) } else { Err(invalid()) }
    }
}

/// Processors, in billionths: `1.5`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "f64")]
pub struct Cpus(pub u64);

impl FromStr for Cpus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.parse::<f64>().ok().filter(|number| (0.01..=100_000.0).contains(number));
        let number = number.ok_or_else(|| Error::invalid(format!("invalid number of processors {text:?}")))?;
        Ok(Self((number * 1e9) as u64))
    }
}

/// `4.2 MB`, in units of a thousand, as Docker's CLI prints them.
pub fn in_units(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spelled_as_for_docker_run() {
        for (text, bytes) in [("1024", 1024), ("1k", 1024), ("512m", 512 << 20), ("4GiB", 4 << 30), ("1.5gb", 3 << 29)]
        {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes, "{text}");
        }
        for (text, seconds) in [("90", 90), ("90s", 90), ("30m", 1800), ("1h30m", 5400)] {
            assert_eq!(text.parse::<Seconds>().unwrap().0, seconds, "{text}");
        }
        assert_eq!("1.5".parse::<Cpus>().unwrap().0, 1_500_000_000);
        assert!("x".parse::<Bytes>().is_err() && "-1".parse::<Bytes>().is_err() && "1x".parse::<Bytes>().is_err());
        assert!("-5s".parse::<Seconds>().is_err() && "".parse::<Seconds>().is_err());
        assert!("0".parse::<Cpus>().is_err() && "inf".parse::<Cpus>().is_err());
        assert_eq!([in_units(0), in_units(999), in_units(1_500_000)], ["0 B", "999 B", "1.5 MB"]);
    }
}
