//! Which registries need no proof of who they are (`--insecure-registry`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{Error, Result};

/// Refuses what is neither a host nor a network.
pub fn check(entries: &[String]) -> Result<()> {
    for entry in entries {
        if entry.contains("://") {
            return Err(Error::invalid(format!("insecure registry {entry} should not contain '://'")));
        }
        if entry.is_empty() || (entry.contains('/') && entry.parse::<IpNet>().is_err()) {
            return Err(Error::invalid(format!("insecure registry {entry:?} is neither host[:port] nor a network")));
        }
    }
    Ok(())
}

/// What is known of a registry before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it has to prove who it is.
    Unknown,
    /// The operator has named it, by its host.
    Named,
    /// It is at a loopback address or in a network of the list, whoever listens there.
    Unproven,
}

/// Whether `host[:port]` is on the list: by its name as it stands, or by one of its addresses.
pub async fn standing(host: &str, entries: &[String]) -> Standing {
    if entries.iter().any(|entry| entry == host) {
        return Standing::Named;
    }
    let addresses = addresses(host).await;
    let networks: Vec<IpNet> = entries.iter().filter_map(|entry| entry.parse().ok()).chain(loopback()).collect();
    let is_inside = |address: &IpAddr| networks.iter().any(|network| network.contains(address));
    if addresses.iter().any(is_inside) { Standing::Unproven } else { Standing::Unknown }
}

fn loopback() -> [IpNet; 2] {
    let v4 = IpNet::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8);
    let v6 = IpNet::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
    [v4.expect("8 is a valid prefix length"), v6.expect("128 is a valid prefix length")]
}

/// Addresses of a registry; none if its name means nothing here.
pub async fn addresses(host: &str) -> Vec<IpAddr> {
    let name = strip_port(host);
    if let Ok(address) = name.parse() {
        return vec![address];
    }
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    }
}

fn strip_port(host: &str) -> &str {
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split_once(']').map_or(v6, |(address, _)| address);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_always_insecure() {
        assert_eq!(standing("127.3.2.1:5000", &[]).await, Standing::Unproven);
        assert_eq!(standing("[::1]:5000", &[]).await, Standing::Unproven);
        assert_eq!(standing("10.0.0.1", &[]).await, Standing::Unknown);
    }

    #[tokio::test]
    async fn hosts_and_networks_are_matched() {
        let entries = ["reg.test:5000".to_owned(), "10.0.0.0/8".to_owned(), "127.0.0.1:5000".to_owned()];
        for (host, expected) in [
            ("reg.test:5000", Standing::Named),
            ("10.1.2.3:443", Standing::Unproven),
            ("127.0.0.1:5000", Standing::Named),
            ("127.0.0.1:5001", Standing::Unproven),
            ("11.1.2.3:443", Standing::Unknown),
        ] {
            assert_eq!(standing(host, &entries).await, expected, "{host}");
        }
    }

    #[test]
    fn entries_are_checked() {
        assert!(check(&["http://a".into()]).is_err());
        assert!(check(&["a/b".into()]).is_err());
        assert!(check(&["10.0.0.0/8".into(), "a:5".into()]).is_ok());
    }
}
