//! What the host's links and routes say about the way out and about subnets in use.

use std::{collections::BTreeSet, io, net::IpAddr};

use ipnet::IpNet;

use super::links::{Links, Route};
use crate::backend::network::Uplink;

const DEFAULT_MTU: u32 = 1500;

/// Reads the way out: the link of the default route, IPv4 before IPv6, lowest metric first.
pub fn read() -> io::Result<Uplink> {
    let mut links = Links::open()?;
    let routes = links.routes()?;
    of(&mut links, &routes)
}

/// The same from routes that were read.
pub fn of(links: &mut Links, routes: &[Route]) -> io::Result<Uplink> {
    let found = default_link(routes);
    let Some(index) = found else { return Ok(Uplink { mtu: DEFAULT_MTU, address: None }) };
    let mtu = links.list()?.into_iter().find(|link| link.index == index).map_or(DEFAULT_MTU, |link| link.mtu);
    Ok(Uplink { mtu, address: first_address(&links.addresses()?, index) })
}

/// The subnets of the host's addresses and routes, except those of links whose alias starts with `own`.
pub fn used_subnets(own: &str) -> io::Result<Vec<IpNet>> {
    let mut links = Links::open()?;
    let ours: BTreeSet<u32> =
        links.list()?.iter().filter(|link| link.alias.starts_with(own)).map(|link| link.index).collect();
    let routes = links.routes()?;
    subnets(&mut links, &routes, &ours)
}

/// The subnets of addresses and routes, but for those of some links.
pub fn subnets(links: &mut Links, routes: &[Route], but: &BTreeSet<u32>) -> io::Result<Vec<IpNet>> {
    let of_others = |link: u32| !but.contains(&link);
    let addresses = links.addresses()?.into_iter().filter(|(link, _)| of_others(*link)).map(|(_, net)| net.trunc());
    let mut subnets: Vec<IpNet> = addresses.collect();
    subnets.extend(routes.iter().filter(|route| of_others(route.link)).filter_map(|route| route.to));
    subnets.sort();
    subnets.dedup();
    Ok(subnets)
}

/// Whether there is a way out by IPv6.
pub fn has_ipv6(routes: &[Route]) -> bool {
    routes.iter().any(|route| route.is_ipv6 && route.to.is_none() && route.link != 0)
}

fn default_link(routes: &[Route]) -> Option<u32> {
    routes
        .iter()
        .filter(|route| route.to.is_none() && route.link != 0)
        .min_by_key(|route| route.metric)
        .map(|route| route.link)
}

fn first_address(addresses: &[(u32, IpNet)], link: u32) -> Option<IpAddr> {
    let global = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    let on_link = addresses.iter().filter(|(index, _)| *index == link).map(|(_, net)| net.addr()).filter(global);
    on_link.min_by_key(IpAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_metric_is_the_way_out() {
        let route = |link, metric| Route { to: None, is_ipv6: false, link, metric };
        assert_eq!(default_link(&[route(3, 600), route(2, 100)]), Some(2));
        assert_eq!(default_link(&[]), None);
    }

    #[test]
    fn ipv4_address_is_preferred() {
        let addresses = [(2, "fd00::2/64".parse().unwrap()), (2, "192.0.2.2/24".parse().unwrap())];
        assert_eq!(first_address(&addresses, 2), Some("192.0.2.2".parse().unwrap()));
    }
}
