//! Address management: which subnet a network gets, which address an endpoint gets. Pure; the store keeps the results.

mod leases;
mod reach;
mod validate;

pub use leases::Leases;
pub use reach::check_reach;
pub use validate::{joined, validate};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::config::AddressPool;
use crate::model::{
    Error, Result,
    network::{Ipam, IpamPool},
};

/// What is in use, so that a chosen subnet meets none of it.
#[derive(Clone, Debug, Default)]
pub struct Occupied {
    /// Subnets of our own networks. A wanted subnet may not overlap them.
    pub networks: Vec<IpNet>,
    /// Subnets that the host routes elsewhere. Only a subnet of our own choice avoids them, as with dockerd.
    pub host: Vec<IpNet>,
}

/// Which address families a network has.
#[derive(Clone, Copy, Debug)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

/// A network's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The pools as inspect shows them.
    pub config: Vec<IpamPool>,
    /// The gateway, with the subnet's prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// Whether the client chose a subnet: only then may it choose addresses of endpoints.
    pub chosen_by_client: bool,
}

/// The built-in pools. The first is the default bridge's, as with dockerd; the others are cut small, so that a
/// machine with many jobs does not run out of networks.
pub fn default_pools() -> Vec<AddressPool> {
    let pool = |base: &str, size| AddressPool { base: base.parse().expect("a constant subnet"), size };
    vec![
        pool("172.17.0.0/16", 16),
        pool("172.18.0.0/15", 24),
        pool("172.20.0.0/14", 24),
        pool("172.24.0.0/13", 24),
        pool("192.168.0.0/16", 24),
    ]
}

/// Chooses subnets and gateways for a request that [`validate`] has passed.
pub fn plan(ipam: &Ipam, families: Families, pools: &[AddressPool], occupied: &Occupied) -> Result<Plan> {
    let mut plan = Plan { config: Vec::new(), ipv4: None, ipv6: None, chosen_by_client: false };
    for pool in &ipam.config {
        let Ok(subnet) = pool.subnet.parse::<IpNet>() else { continue };
        match subnet {
            IpNet::V4(_) if families.ipv4 && plan.ipv4.is_some() => return Err(several_subnets()),
            IpNet::V6(_) if families.ipv6 && plan.ipv6.is_some() => return Err(several_subnets()),
            IpNet::V4(_) if !families.ipv4 => continue,
            IpNet::V6(_) if !families.ipv6 => continue,
            IpNet::V4(_) | IpNet::V6(_) => {}
        }
        if occupied.networks.iter().any(|taken| overlap(taken, &subnet)) {
            return Err(Error::forbidden("invalid pool request: Pool overlaps with other one on this address space"));
        }
        plan.chosen_by_client = true;
        plan.take(subnet, pool.clone())?;
    }
    if families.ipv4 && plan.ipv4.is_none() {
        plan.take_own(free_subnet(pools, occupied)?)?;
    }
    if families.ipv6 && plan.ipv6.is_none() {
        plan.take_own(IpNet::V6(random_ula()))?;
    }
    Ok(plan)
}

impl Plan {
    /// Of our own choice; then the gateway is shown too.
    fn take_own(&mut self, subnet: IpNet) -> Result<()> {
        let gateway = first_free(&subnet, &IpamPool::default())?.to_string();
        self.take(subnet, IpamPool { gateway, ..IpamPool::default() })
    }

    fn take(&mut self, subnet: IpNet, mut pool: IpamPool) -> Result<()> {
        let gateway = first_free(&subnet, &pool)?;
        pool.subnet = subnet.to_string();
        match (gateway, subnet) {
            (IpAddr::V4(gateway), IpNet::V4(subnet)) => {
                self.ipv4 = Ipv4Net::new(gateway, subnet.prefix_len()).ok();
            }
            (IpAddr::V6(gateway), IpNet::V6(subnet)) => {
                self.ipv6 = Ipv6Net::new(gateway, subnet.prefix_len()).ok();
            }
            _ => return Err(Error::invalid(format!("gateway {gateway} is not of the family of {subnet}"))),
        }
        self.config.push(pool);
        Ok(())
    }
}

/// The gateway is the wanted address, or the first of the range or of the subnet. It comes before the auxiliary
/// addresses: all of them must be different, in dockerd's words.
fn first_free(subnet: &IpNet, pool: &IpamPool) -> Result<IpAddr> {
    let range = pool.ip_range.parse().unwrap_or(*subnet);
    let mut leases = Leases::new(*subnet, range);
    let gateway = leases.lease(pool.gateway.parse().ok()).map_err(|error| {
        Error::system(format!("failed to allocate gateway ({}): {}", pool.gateway, error.message()))
    })?;
    for (name, address) in &pool.auxiliary_addresses {
        let Ok(wanted) = address.parse() else { continue };
        leases.lease(Some(wanted)).map_err(|error| {
            let reason = error.message();
            Error::system(format!("failed to allocate secondary ip address ({name}:{address}): {reason}"))
        })?;
    }
    Ok(gateway)
}

fn several_subnets() -> Error {
    Error::forbidden("bridge driver doesn't support multiple subnets")
}

/// Whether two subnets have addresses in common.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn free_subnet(pools: &[AddressPool], occupied: &Occupied) -> Result<IpNet> {
    let is_free = |subnet: &IpNet| !occupied.networks.iter().chain(&occupied.host).any(|taken| overlap(taken, subnet));
    let subnets = pools
        .iter()
        .filter(|pool| matches!(pool.base, IpNet::V4(_)))
        .filter_map(|pool| pool.base.subnets(pool.size).ok());
    subnets.flatten().find(is_free).ok_or_else(|| {
        // Clients look for the text; until dockerd 24 it was another.
        Error::invalid("all predefined address pools have been fully subnetted")
    })
}

/// A random subnet of the unique local addresses (RFC 4193).
fn random_ula() -> Ipv6Net {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes[1..8]).expect("the kernel's random source is always there");
    bytes[0] = 0xfd;
    Ipv6Net::new(Ipv6Addr::from(bytes), 64).expect("64 is a length")
}

/// The hardware address that follows from an IPv4 address: the next holder of the address then has it too, and no
/// neighbour's cache is wrong.
pub fn mac_of(ipv4: Option<Ipv4Addr>) -> [u8; 6] {
    match ipv4 {
        Some(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, 0x42, a, b, c, d]
        }
        None => {
            let mut bytes = [0x02, 0x42, 0, 0, 0, 0];
            getrandom::fill(&mut bytes[2..]).expect("the kernel's random source is always there");
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    const BOTH: Families = Families { ipv4: true, ipv6: true };
    const FOUR: Families = Families { ipv4: true, ipv6: false };

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn with_pool(subnet: &str, ip_range: &str, gateway: &str) -> Ipam {
        let pool = IpamPool {
            subnet: subnet.to_owned(),
            ip_range: ip_range.to_owned(),
            gateway: gateway.to_owned(),
            ..IpamPool::default()
        };
        Ipam { config: vec![pool], ..Ipam::default() }
    }

    #[test]
    fn own_networks_and_routes_of_the_host_are_avoided() {
        let occupied = Occupied { networks: nets(&["172.17.0.0/16"]), host: nets(&["172.18.0.0/24"]) };
        let plan = plan(&Ipam::default(), FOUR, &default_pools(), &occupied).unwrap();
        assert_eq!(plan.ipv4.unwrap().to_string(), "172.18.1.1/24");
        assert_eq!((plan.config[0].subnet.as_str(), plan.config[0].gateway.as_str()), ("172.18.1.0/24", "172.18.1.1"));
        assert!(!plan.chosen_by_client);
    }

    #[test]
    fn exhausted_pools_are_told_in_dockerds_words() {
        let pools = [AddressPool { base: "10.0.0.0/24".parse().unwrap(), size: 24 }];
        let occupied = Occupied { networks: nets(&["10.0.0.0/16"]), host: Vec::new() };
        let error = plan(&Ipam::default(), FOUR, &pools, &occupied).unwrap_err();
        assert_eq!(error.message(), "all predefined address pools have been fully subnetted");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }

    #[test]
    fn a_wanted_subnet_may_not_overlap_a_network() {
        let occupied = Occupied { networks: nets(&["10.9.0.0/24"]), host: nets(&["10.8.0.0/16"]) };
        let error = plan(&with_pool("10.9.0.0/16", "", ""), FOUR, &[], &occupied).unwrap_err();
        assert_eq!(error.message(), "invalid pool request: Pool overlaps with other one on this address space");
        assert!(plan(&with_pool("10.8.0.0/16", "", ""), FOUR, &[], &occupied).is_ok(), "the client knows better");
    }

    #[test]
    fn the_gateway_is_the_first_of_the_range() {
        let first = plan(&with_pool("10.9.0.0/24", "10.9.0.128/25", ""), FOUR, &[], &Occupied::default()).unwrap();
        assert_eq!(first.ipv4.unwrap().addr().to_string(), "10.9.0.128");
        assert_eq!(first.config[0].gateway, "", "inspect shows what was asked for");
        let wanted = plan(&with_pool("10.9.0.0/24", "", "10.9.0.254"), FOUR, &[], &Occupied::default()).unwrap();
        assert_eq!(wanted.ipv4.unwrap().to_string(), "10.9.0.254/24");
    }

    /// Answers of dockerd 28.5.
    #[test]
    fn gateway_and_auxiliary_addresses_are_all_different() {
        let refusal = |pool: IpamPool| {
            let ipam = Ipam { config: vec![pool], ..Ipam::default() };
            let error = plan(&ipam, FOUR, &[], &Occupied::default()).unwrap_err();
            (error.kind() == ErrorKind::System).then(|| error.message().to_owned()).unwrap()
        };
        let pool = |gateway: &str, auxiliary: &[(&str, &str)]| IpamPool {
            subnet: "10.70.0.0/24".to_owned(),
            gateway: gateway.to_owned(),
            auxiliary_addresses: auxiliary.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned())).collect(),
            ..IpamPool::default()
        };
        let gateway = |address| format!("failed to allocate gateway ({address}): Address already in use");
        let other = |name, ip| format!("failed to allocate secondary ip address ({name}:{ip}): Address already in use");
        assert_eq!(refusal(pool("10.70.0.0", &[])), gateway("10.70.0.0"));
        assert_eq!(refusal(pool("10.70.0.255", &[])), gateway("10.70.0.255"));
        assert_eq!(refusal(pool("", &[("a", "10.70.0.1")])), other("a", "10.70.0.1"));
        assert_eq!(refusal(pool("10.70.0.1", &[("a", "10.70.0.1")])), other("a", "10.70.0.1"));
        assert_eq!(refusal(pool("", &[("a", "10.70.0.5"), ("b", "10.70.0.5")])), other("b", "10.70.0.5"));
        assert_eq!(refusal(pool("", &[("a", "10.70.0.255")])), other("a", "10.70.0.255"));
        let range = with_pool("10.70.0.0/24", "10.70.0.255/32", "").config.remove(0);
        assert_eq!(refusal(range), "failed to allocate gateway (): no available addresses on this pool");
    }

    #[test]
    fn the_smallest_subnets_have_a_gateway() {
        for (subnet, gateway) in
            [("10.68.0.0/32", "10.68.0.0/32"), ("10.68.0.0/31", "10.68.0.0/31"), ("10.68.0.0/30", "10.68.0.1/30")]
        {
            let plan = plan(&with_pool(subnet, "", ""), FOUR, &[], &Occupied::default()).unwrap();
            assert_eq!(plan.ipv4.unwrap().to_string(), gateway);
        }
    }

    #[test]
    fn ipv6_is_a_random_unique_local_subnet() {
        let plan = plan(&Ipam::default(), BOTH, &default_pools(), &Occupied::default()).unwrap();
        let six = plan.ipv6.unwrap();
        assert_eq!((six.addr().octets()[0], six.prefix_len(), six.addr().octets()[15]), (0xfd, 64, 1));
    }
}
