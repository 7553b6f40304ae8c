//! Bridges: one per network.
//!
//! Which bridge is ours is written on it, in its alias, when we make it: the daemon's instance and the network's id. A
//! bridge without that very note was made by somebody else. It is used as it is, gets the network's addresses, and
//! is left at the end without them. Until the note is written, the link's group says whose it is ([`group`]): a daemon that is killed
//! in between leaves a bridge that its next start knows.

use std::{io, net::IpAddr};

use ipnet::IpNet;

use super::{
    links::{Link, Links},
    sysctl,
};
use crate::{backend::network::Keep, model::network::BridgeNetwork};

/// Makes the bridge of a network, or takes one that is there, gives it the gateway's addresses, and lets the kernel
/// forward packets.
pub fn create(network: &BridgeNetwork, mark: &str, note: &str) -> io::Result<()> {
    let mut links = Links::open()?;
    match links.get(&network.link)? {
        None => make(&mut links, network, mark, note),
        Some(link) if !link.is_bridge() => Err(not_a_bridge(&link.name)),
        Some(link) if link.alias == note => set_up(&mut links, link.index, network),
        Some(link) => take(&mut links, &link, network),
    }
}

fn make(links: &mut Links, network: &BridgeNetwork, mark: &str, note: &str) -> io::Result<()> {
    let index = links.create_bridge(&network.link, mac_of(network), network.mtu, group(mark))?;
    let made = links.write_note(index, note).and_then(|()| set_up(links, index, network));
    if made.is_err() {
        links.delete(index)?;
    }
    made
}

fn set_up(links: &mut Links, index: u32, network: &BridgeNetwork) -> io::Result<()> {
    sysctl::write_if_there(&format!("net/ipv6/conf/{}/accept_ra", network.link), "0")?;
    sysctl::trust_addresses(&network.link)?;
    add_addresses(links, index, network)
}

/// Nothing of somebody else's bridge is changed but that it is up and has our addresses.
fn take(links: &mut Links, link: &Link, network: &BridgeNetwork) -> io::Result<()> {
    tracing::info!(link = %link.name, network.id = %network.id, "using bridge {}, which was there already", link.name);
    links.set_up(link.index)?;
    let taken = add_addresses(links, link.index, network);
    if taken.is_err() {
        leave(links, link, network)?;
    }
    taken
}

/// Takes our addresses off somebody else's bridge: those that it did not have when the network was made.
fn leave(links: &mut Links, link: &Link, network: &BridgeNetwork) -> io::Result<()> {
    // Without a record of what was there nothing is known to be ours.
    let Some(there) = &network.found else { return Ok(()) };
    let ours = gateways(network).filter(|address| !there.contains(address));
    ours.map(|address| links.remove_address(link.index, address)).fold(Ok(()), io::Result::and)
}

fn add_addresses(links: &mut Links, index: u32, network: &BridgeNetwork) -> io::Result<()> {
    for address in gateways(network) {
        links.add_address(index, address)?;
    }
    if !network.internal {
        sysctl::enable_forwarding(network.ipv6.is_some())?;
    }
    Ok(())
}

fn gateways(network: &BridgeNetwork) -> impl Iterator<Item = IpNet> {
    [network.ipv4.map(IpNet::V4), network.ipv6.map(IpNet::V6)].into_iter().flatten()
}

/// The addresses of a bridge that is there already; an error in dockerd's words if it is another kind of link.
pub fn find(name: &str) -> io::Result<Option<Vec<IpNet>>> {
    let mut links = Links::open()?;
    let Some(link) = links.get(name)? else { return Ok(None) };
    if !link.is_bridge() {
        return Err(not_a_bridge(name));
    }
    let addresses = links.addresses()?.into_iter().filter(|(index, _)| *index == link.index);
    Ok(Some(addresses.map(|(_, address)| address).collect()))
}

fn not_a_bridge(name: &str) -> io::Error {
    io::Error::other(format!("existing interface {name} is not a bridge"))
}

/// Takes our bridge down and frees its name; the answer is the link that is left to delete. Somebody else's stays.
pub fn retire(network: &BridgeNetwork, note: &str) -> io::Result<Option<u32>> {
    let mut links = Links::open()?;
    match links.get(&network.link)? {
        Some(link) if link.is_bridge() && link.alias == note => {
            links.retire(link.index, &format!("rngdel{}", link.index))?;
            Ok(Some(link.index))
        }
        Some(link) if link.is_bridge() => leave(&mut links, &link, network).map(|()| None),
        _ => Ok(None),
    }
}

/// The group of bridges that this daemon is making.
fn group(mark: &str) -> u32 {
    let hash = mark.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // `ip` shows it as a signed number; 0 is everybody's.
    hash >> 1 | 1
}

/// Deletes the bridges that this daemon made, as the note on them says, and that are not to be kept; and those that it was about to make.
pub fn sweep(mark: &str, keep: &Keep) -> io::Result<()> {
    let mut links = Links::open()?;
    let mut result = Ok(());
    for link in links.list()? {
        let is_made = link.alias.starts_with(mark) && !keep.links.contains(&link.name);
        let is_half_made = link.alias.is_empty() && link.group == group(mark);
        if link.is_bridge() && (is_made || is_half_made) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_that_was_being_made_is_known_without_its_note() {
        let in_a_network_of_its_own = || {
            // SAFETY: only the network of this thread becomes another, which ends with it.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            let mut links = Links::open().unwrap();
            for (name, mark) in [("br-half", "ringer a "), ("br-of-other", "ringer b ")] {
                links.create_bridge(name, [2, 0, 0, 0, 0, 1], 1500, group(mark)).unwrap();
            }
            let noted = links.create_bridge("br-noted", [2, 0, 0, 0, 0, 2], 1500, group("ringer a ")).unwrap();
            links.write_note(noted, "somebody's").unwrap();
            assert_eq!(links.get("br-noted").unwrap().unwrap().group, 0);
            sweep("ringer a ", &Keep::default()).unwrap();
            let left: Vec<String> = links.list().unwrap().into_iter().map(|link| link.name).collect();
            assert_eq!(left, ["lo", "br-of-other", "br-noted"]);
        };
        std::thread::scope(|scope| scope.spawn(in_a_network_of_its_own).join().unwrap());
    }
}
