//! Endpoints: a veth pair from a bridge into a sandbox. Each call runs on a thread of its own, which ends up
//! in the sandbox's network namespace.

use std::{fs::File, io, net::IpAddr, path::Path};

use ipnet::IpNet;

use super::{
    links::{Links, VethPair},
    netns, sysctl,
};
use crate::model::network::{BridgeNetwork, Endpoint};

/// Makes the veth pair and configures both ends; what is there already is kept.
pub fn attach(namespace: &Path, network: &BridgeNetwork, endpoint: &Endpoint) -> io::Result<()> {
    let mut host = Links::open()?;
    let namespace = File::open(namespace)?;
    let made = make_pair(&mut host, &namespace, network, endpoint)?;
    let configured = netns::enter(&namespace).and_then(|()| configure_inside(endpoint));
    if configured.is_err() && made {
        // Our route socket still speaks to the host's namespace.
        let _ = host.require(&host_name(endpoint)).and_then(|index| host.delete(index));
    }
    configured
}

/// Whether the pair had to be made.
fn make_pair(host: &mut Links, namespace: &File, network: &BridgeNetwork, endpoint: &Endpoint) -> io::Result<bool> {
    let name = host_name(endpoint);
    if host.index(&name)?.is_some() {
        return Ok(false);
    }
    let bridge = host.require(&network.link)?;
    let pair = VethPair {
        name: &name,
        mac: None,
        bridge: Some(bridge),
        inner_name: &endpoint.interface,
        inner_mac: endpoint.mac,
        mtu: network.mtu,
    };
    host.create_veth(&pair, namespace)?;
    let port = host.require(&name)?;
    host.pin_mac(port, endpoint.mac)?;
    if !network.icc {
        host.isolate_port(port)?;
    }
    Ok(true)
}

fn configure_inside(endpoint: &Endpoint) -> io::Result<()> {
    let mut inside = Links::open()?;
    let link = inside.require(&endpoint.interface)?;
    // Without an address the link-local one would only cost: router solicitations, duplicate detection.
    let has_ipv6 = endpoint.ipv6.is_some() || endpoint.link_local.iter().any(|net| net.addr().is_ipv6());
    let disabled = if has_ipv6 { "0" } else { "1" };
    sysctl::write_if_there(&format!("net/ipv6/conf/{}/disable_ipv6", endpoint.interface), disabled)?;
    sysctl::trust_addresses(&endpoint.interface)?;
    inside.set_up(link)?;
    let of_network = [endpoint.ipv4.map(IpNet::V4), endpoint.ipv6.map(IpNet::V6)].into_iter().flatten();
    for address in of_network.chain(endpoint.link_local.iter().copied()) {
        inside.add_address(link, address)?;
    }
    if endpoint.default_route {
        let gateways = [endpoint.gateway4.map(IpAddr::V4), endpoint.gateway6.map(IpAddr::V6)];
        for gateway in gateways.into_iter().flatten() {
            inside.set_default_route(link, gateway)?;
        }
    }
    Ok(())
}

/// What is left to do for a retired link.
pub type Deletion = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Takes the link inside the sandbox down and frees its name. The answer deletes it, slowly.
pub fn retire(namespace: &Path, endpoint: &Endpoint) -> io::Result<Option<Deletion>> {
    let namespace = match File::open(namespace) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut host = Links::open()?;
    let Some(port) = host.index(&host_name(endpoint))? else { return Ok(None) };
    host.retire(port, &format!("rngdel{port}"))?;
    netns::enter(&namespace)?;
    let mut inside = Links::open()?;
    if let Some(index) = inside.index(&endpoint.interface)? {
        inside.retire(index, &format!("gone{index}"))?;
    }
    Ok(Some(Box::new(move || host.delete(port))))
}

/// Our end's name follows from the endpoint's id, so that a later life of the daemon knows it too.
fn host_name(endpoint: &Endpoint) -> String {
    let id = endpoint.id.as_str();
    format!("veth{}", &id[..id.len().min(11)])
}
