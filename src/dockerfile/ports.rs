//! Ports of `EXPOSE`: `80`, `80/udp`, `8000-8010/tcp`; a host's port before a colon is read and dropped.

use serde_json::{Value, json};

use crate::model::{Error, Result};

/// Each port with the empty object that a configuration has for it.
pub fn exposed(text: &str) -> Result<Vec<(String, Value)>> {
    let container = text.rsplit(':').next().unwrap_or_default();
    let (range, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    if range.is_empty() {
        return Err(Error::invalid(format!("No port specified: {text}<empty>")));
    }
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("Invalid proto: {protocol}")));
    }
    let invalid = || Error::invalid(format!("Invalid containerPort: {range}"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| (format!("{port}/{protocol}"), json!({}))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_checked_in_dockerds_words() {
        let names = |text| exposed(text).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("80-81/UDP"), ["80/udp", "81/udp"]);
        assert_eq!(names("8080:80"), ["80/tcp"]);
        assert_eq!(exposed("foo").unwrap_err().message(), "Invalid containerPort: foo");
        assert_eq!(exposed("80/xyz").unwrap_err().message(), "Invalid proto: xyz");
    }
}
