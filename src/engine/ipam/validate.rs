//! What dockerd checks of `IPAM.Config` before anything is made, in its words: all complaints at once.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Error, Result, network::IpamPool};

/// Checks the pools of a request; IPv6 ones only where the network has IPv6.
pub fn validate(pools: &[IpamPool], ipv6: bool) -> Result<()> {
    let mut complaints = Vec::new();
    for pool in pools {
        match pool.subnet.parse::<IpNet>() {
            Err(_) => complaints.push(format!("invalid subnet {}: invalid CIDR block notation", pool.subnet)),
            Ok(subnet) if ipv6 || subnet.addr().is_ipv4() => check_pool(pool, &subnet, &mut complaints),
            Ok(_) => {}
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(format!("invalid network config:\n{}", joined(&complaints))))
    }
}

/// Several complaints as a list, as Go programs print joined errors.
pub fn joined(complaints: &[String]) -> String {
    match complaints {
        [one] => one.clone(),
        several => several.iter().map(|complaint| format!("* {complaint}")).collect::<Vec<_>>().join("\n"),
    }
}

fn check_pool(pool: &IpamPool, subnet: &IpNet, complaints: &mut Vec<String>) {
    if *subnet != subnet.trunc() {
        complaints.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    if !pool.ip_range.is_empty() {
        check_range(&pool.ip_range, subnet, complaints);
    }
    if let Some(reason) = misplaced(&pool.gateway, subnet) {
        complaints.push(format!("invalid gateway {}: {reason}", pool.gateway));
    }
    for (name, address) in &pool.auxiliary_addresses {
        if let Some(reason) = misplaced(address, subnet) {
            complaints.push(format!("invalid auxiliary address {name}: {reason}"));
        }
    }
}

fn check_range(range: &str, subnet: &IpNet, complaints: &mut Vec<String>) {
    let Ok(range) = range.parse::<IpNet>() else {
        complaints.push(format!("invalid ip-range {range}: invalid CIDR block notation"));
        return;
    };
    if range.addr().is_ipv4() != subnet.addr().is_ipv4() {
        complaints.push(format!("invalid ip-range {range}: parent subnet is an IPv{} block", family(subnet)));
        return;
    }
    if range.prefix_len() < subnet.prefix_len() {
        complaints.push(format!("invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if range != range.trunc() {
        complaints.push(format!("invalid ip-range {range}: it should be {}", range.trunc()));
    }
    if !subnet.contains(&range) && !range.contains(subnet) {
        complaints.push(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"));
    }
}

/// Why an address cannot be in a subnet; empty is fine.
fn misplaced(address: &str, subnet: &IpNet) -> Option<String> {
    if address.is_empty() {
        return None;
    }
    match address.parse::<IpAddr>() {
        Err(_) => Some("invalid address".to_owned()),
        Ok(address) if address.is_ipv4() != subnet.addr().is_ipv4() => {
            Some(format!("parent subnet is an IPv{} block", family(subnet)))
        }
        Ok(address) if !subnet.contains(&address) => {
            Some(format!("parent subnet {subnet} doesn't contain this address"))
        }
        Ok(_) => None,
    }
}

fn family(subnet: &IpNet) -> u8 {
    if subnet.addr().is_ipv4() { 4 } else { 6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(subnet: &str, ip_range: &str, gateway: &str) -> String {
        let pool = IpamPool {
            subnet: subnet.to_owned(),
            ip_range: ip_range.to_owned(),
            gateway: gateway.to_owned(),
            ..IpamPool::default()
        };
        validate(&[pool], false).unwrap_err().message().to_owned()
    }

    /// Texts of dockerd 28.5.
    #[test]
    fn complaints_are_dockerds() {
        let lines = |text: &str| format!("invalid network config:\n{text}");
        assert_eq!(complaint("10.10.0.1/16", "", ""), lines("invalid subnet 10.10.0.1/16: it should be 10.10.0.0/16"));
        assert_eq!(complaint("foo", "", ""), lines("invalid subnet foo: invalid CIDR block notation"));
        assert_eq!(complaint("", "", "10.11.0.1"), lines("invalid subnet : invalid CIDR block notation"));
        assert_eq!(
            complaint("10.10.0.0/16", "", "10.11.0.1"),
            lines("invalid gateway 10.11.0.1: parent subnet 10.10.0.0/16 doesn't contain this address")
        );
        assert_eq!(
            complaint("10.10.0.0/16", "10.11.0.0/24", ""),
            lines("invalid ip-range 10.11.0.0/24: parent subnet 10.10.0.0/16 doesn't contain ip-range")
        );
    }
}
