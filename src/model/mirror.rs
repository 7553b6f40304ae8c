//! Mirrors of Docker Hub, as the daemon's flag and policies name them.

use super::{Error, Result};

/// Refuses what is not the plain URL of a host, perhaps with a port and a slash at its end: credentials, a path, a query.
pub fn check(mirror: &str) -> Result<()> {
    let invalid = |why: &str| Error::invalid(format!("invalid mirror: {mirror:?} {why}"));
    let host = mirror.strip_prefix("https://").or_else(|| mirror.strip_prefix("http://"));
    let host = host.ok_or_else(|| invalid("begins with neither https:// nor http://"))?;
    let host = host.strip_suffix('/').unwrap_or(host);
    if !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c)) {
        return Err(invalid("is more than a host"));
    }
    url::Url::parse(mirror).map(drop).map_err(|error| invalid("is not a URL").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_a_host() {
        for good in ["https://m.test", "http://m.test:5000/", "http://[::1]:5000", "http://127.0.0.1"] {
            check(good).unwrap();
        }
        for bad in [
            "m.test",
            "ftp://m.test",
            "https://",
            "https://m.test/a",
            "https://m.test//",
            "https://m.test/?a=b",
            "https://m.test#a",
            "https://user:word@m.test",
            "https://m.test:65536",
            "https://[m.test]",
            "https://256.1.1.1",
            "https://m test",
            "!https://m.test",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
