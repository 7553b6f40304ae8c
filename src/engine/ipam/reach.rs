//! What a wanted subnet may not take from the machine. dockerd takes nearly any; of what it refuses these are its words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Families, overlap};
use crate::model::{Error, Result, network::IpamPool};

/// Where clouds tell machines who they are, credentials included.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
/// What the kernel gives each link with IPv6.
const LINK_LOCAL_6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);

/// Checks the wanted subnets; `host` is what the machine routes. dockerd lets a client have the metadata service's
/// address and routes of the machine; where link-local addresses are, we do not, since what is there is found by its
/// address alone, and a container's answer would be taken for the machine's.
pub fn check_reach(pools: &[IpamPool], families: Families, host: &[IpNet]) -> Result<()> {
    for pool in pools {
        match pool.subnet.parse::<IpNet>() {
            Ok(IpNet::V4(subnet)) if families.ipv4 => check_ipv4(subnet, host)?,
            Ok(IpNet::V6(subnet)) if families.ipv6 => check_ipv6(subnet, &pool.gateway)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_ipv4(subnet: Ipv4Net, host: &[IpNet]) -> Result<()> {
    if subnet.contains(&METADATA) {
        let reason = "the address of the machine's metadata service";
        return Err(Error::forbidden(format!("invalid pool request: subnet {subnet} holds {METADATA}, {reason}")));
    }
    if !LINK_LOCAL.contains(&subnet) {
        return Ok(());
    }
    let wanted = IpNet::V4(subnet);
    // The route of all link-local addresses names none of them.
    let is_taken = |route: &&IpNet| overlap(route, &wanted) && !route.contains(&IpNet::V4(LINK_LOCAL));
    match host.iter().find(is_taken) {
        Some(route) => {
            Err(Error::forbidden(format!("invalid pool request: subnet {subnet} overlaps the machine's route {route}")))
        }
        None => Ok(()),
    }
}

fn check_ipv6(subnet: Ipv6Net, gateway: &str) -> Result<()> {
    if subnet.prefix_len() == 0 {
        return Err(Error::invalid("ipv6 pool is empty"));
    }
    if subnet.addr().to_ipv4_mapped().is_some() {
        let pool = format!("cannot find address pool for poolID:{subnet}/invalid Prefix");
        return Err(Error::system(format!("failed to allocate gateway ({gateway}): {pool}")));
    }
    // dockerd names the gateway; the first address is what it is unless the client says another.
    let gateway = gateway.parse().unwrap_or_else(|_| IpAddr::V6(first(subnet)));
    let shown = format!("'{gateway}/{}'", subnet.prefix_len());
    if subnet.addr().is_multicast() {
        return Err(Error::invalid(format!("multicast subnet {shown} is not allowed")));
    }
    if subnet != LINK_LOCAL_6 && overlap(&subnet.into(), &LINK_LOCAL_6.into()) {
        return Err(Error::invalid(format!("{shown} clashes with the Link-Local prefix '{LINK_LOCAL_6}'")));
    }
    Ok(())
}

fn first(subnet: Ipv6Net) -> Ipv6Addr {
    (u128::from(subnet.network()).saturating_add(1)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    const BOTH: Families = Families { ipv4: true, ipv6: true };

    fn check(subnet: &str) -> Result<()> {
        let host = ["10.66.0.0/24", "169.254.7.0/24", "169.254.0.0/16"].map(|net| net.parse().unwrap());
        let pool = IpamPool { subnet: subnet.to_owned(), ..IpamPool::default() };
        check_reach(&[pool], BOTH, &host)
    }

    /// As dockerd 28.5 has it, also where that is of little use.
    #[test]
    fn most_subnets_may_be_had() {
        for subnet in [
            "127.0.0.0/8",
            "127.5.0.0/24",
            "224.0.0.0/4",
            "239.1.0.0/24",
            "240.0.0.0/4",
            "255.255.255.0/24",
            "255.255.255.255/32",
            "0.0.0.0/8",
            "8.8.8.0/24",
            "10.66.0.0/24",
            "10.0.0.0/8",
            "169.254.5.0/24",
            "fe80::/64",
            "fe80:5::/64",
            "fec0::/64",
            "fd00::/8",
            "100::/64",
            "64:ff9b::/96",
        ] {
            check(subnet).unwrap_or_else(|error| panic!("{subnet}: {}", error.message()));
        }
    }

    #[test]
    fn dockerds_refusals_are_in_its_words() {
        for (subnet, kind, words) in [
            ("ff02::/64", ErrorKind::InvalidParameter, "multicast subnet 'ff02::1/64' is not allowed"),
            ("fe80::/10", ErrorKind::InvalidParameter, "'fe80::1/10' clashes with the Link-Local prefix 'fe80::/64'"),
            ("::/0", ErrorKind::InvalidParameter, "ipv6 pool is empty"),
            (
                "::ffff:10.0.0.0/120",
                ErrorKind::System,
                "failed to allocate gateway (): cannot find address pool for poolID:::ffff:10.0.0.0/120/invalid Prefix",
            ),
        ] {
            let error = check(subnet).unwrap_err();
            assert_eq!((error.kind(), error.message()), (kind, words), "{subnet}");
        }
    }

    /// dockerd gives all of these.
    #[test]
    fn nobody_gets_the_metadata_service_or_link_local_routes_of_the_machine() {
        for subnet in [
            "169.254.0.0/16",
            "169.254.169.0/24",
            "169.254.169.254/32",
            "169.254.169.254/31",
            "160.0.0.0/4",
            "128.0.0.0/1",
        ] {
            let error = check(subnet).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden);
            assert!(error.message().contains("holds 169.254.169.254"), "{}", error.message());
        }
        for subnet in ["169.254.7.0/24", "169.254.7.128/25", "169.254.6.0/23"] {
            let words = format!("invalid pool request: subnet {subnet} overlaps the machine's route 169.254.7.0/24");
            assert_eq!(check(subnet).unwrap_err().message(), words);
        }
    }
}
