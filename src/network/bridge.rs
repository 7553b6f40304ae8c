//! Bridges: one per network.

use std::{io, net::IpAddr};

use ipnet::IpNet;

use super::{links::Links, sysctl};
use crate::{backend::network::Keep, model::network::BridgeNetwork};

/// Makes the bridge of a network, with its gateway addresses, and lets the kernel forward packets.
pub fn create(network: &BridgeNetwork, alias: &str) -> io::Result<()> {
    let mut links = Links::open()?;
    let was_there = links.index(&network.link)?.is_some();
    let made = links
        .create_bridge(&network.link, mac_of(network), network.mtu, alias)
        .and_then(|index| set_up(&mut links, index, network));
    if let (Err(_), false, Ok(Some(index))) = (&made, was_there, links.index(&network.link)) {
        links.delete(index)?;
    }
    made
}

fn set_up(links: &mut Links, index: u32, network: &BridgeNetwork) -> io::Result<()> {
    sysctl::write_if_there(&format!("net/ipv6/conf/{}/accept_ra", network.link), "0")?;
    sysctl::trust_addresses(&network.link)?;
    for address in [network.ipv4.map(IpNet::V4), network.ipv6.map(IpNet::V6)].into_iter().flatten() {
        links.add_address(index, address)?;
    }
    if !network.internal {
        sysctl::enable_forwarding(network.ipv6.is_some())?;
    }
    Ok(())
}

/// Takes a bridge down and frees its name; the answer is the link that is left to delete.
pub fn retire(name: &str) -> io::Result<Option<u32>> {
    let mut links = Links::open()?;
    let Some(index) = links.index(name)? else { return Ok(None) };
    links.retire(index, &format!("rngdel{index}"))?;
    Ok(Some(index))
}

/// Deletes the bridges that carry our mark and are not to be kept.
pub fn sweep(mark: &str, keep: &Keep) -> io::Result<()> {
    let mut links = Links::open()?;
    let mut result = Ok(());
    for link in links.list()? {
        if link.alias.starts_with(mark) && !keep.links.contains(&link.name) {
            tracing::info!(link = %link.name, "removing left-over link {}", link.name);
            result = result.and(links.delete(link.index));
        }
    }
    result
}

/// A fixed address, since the kernel would otherwise change it with every port that joins. Derived from the
/// gateway, as addresses of containers are.
fn mac_of(network: &BridgeNetwork) -> [u8; 6] {
    let tail = match (network.ipv4, network.ipv6) {
        (Some(net), _) => net.addr().octets(),
        (None, Some(net)) => {
            let IpAddr::V6(address) = IpAddr::V6(net.addr()) else { return [2; 6] };
            address.octets()[12..].try_into().expect("four of sixteen bytes")
        }
        (None, None) => [0, 0, 0, 1],
    };
    [0x02, 0x42, tail[0], tail[1], tail[2], tail[3]]
}
