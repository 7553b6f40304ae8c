//! Which ports of a container are to be published, and where.

use std::{collections::HashMap, net::IpAddr};

use indexmap::IndexMap;

use crate::model::{
    Error, Result,
    container::{ContainerRecord, HostConfig, PortBinding},
    network::{Port, PortRequest},
};

/// What create checks of port bindings.
pub fn check(config: &HostConfig) -> Result<()> {
    for binding in config.port_bindings.iter().flat_map(IndexMap::values).flatten().flatten() {
        host_ip(binding)?;
        range(&binding.host_port)?;
    }
    Ok(())
}

/// The wishes of a container. As with dockerd only exposed ports are published: every client that binds a
/// port exposes it too.
pub fn requests(record: &ContainerRecord) -> Result<Vec<PortRequest>> {
    let mut exposed: Vec<Port> =
        record.config.exposed_ports.iter().flatten().map(|(port, _)| port.parse()).collect::<Result<_>>()?;
    exposed.sort_unstable();
    exposed.dedup();
    let (mut bound, mut requests) = (bindings(record), Vec::new());
    for port in exposed {
        let bindings = bound.remove(&port).unwrap_or_default();
        if bindings.is_empty() && record.host_config.publish_all_ports {
            requests.push(PortRequest { port, host_ip: None, host_ports: None, machine: None });
        }
        for binding in bindings {
            requests.push(request(port, binding)?);
        }
    }
    Ok(requests)
}

/// What is bound to each port. A key that is no port binds nothing, as with dockerd.
fn bindings(record: &ContainerRecord) -> HashMap<Port, Vec<&PortBinding>> {
    let mut bound: HashMap<Port, Vec<&PortBinding>> = HashMap::new();
    for (key, bindings) in record.host_config.port_bindings.iter().flatten() {
        if let Ok(port) = key.parse() {
            bound.entry(port).or_default().extend(bindings.iter().flatten());
        }
    }
    bound
}

fn request(port: Port, binding: &PortBinding) -> Result<PortRequest> {
    Ok(PortRequest { port, host_ip: host_ip(binding)?, host_ports: range(&binding.host_port)?, machine: None })
}

fn host_ip(binding: &PortBinding) -> Result<Option<IpAddr>> {
    match binding.host_ip.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Error::invalid(format!("invalid IP address: {text}"))),
    }
}

/// Nothing, a number or `first-last`; 0 is any.
pub(super) fn range(text: &str) -> Result<Option<(u16, u16)>> {
    let invalid = || Error::invalid(format!("invalid port specification: {text:?}"));
    let number = |part: &str| part.parse::<u16>().map_err(|_| invalid());
    if text.is_empty() {
        return Ok(None);
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    match (first, last) {
        (0, 0) => Ok(None),
        (first, last) if first == 0 || first > last => Err(invalid()),
        range => Ok(Some(range)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_are_read() {
        assert_eq!(range("").unwrap(), None);
        assert_eq!(range("0").unwrap(), None);
        assert_eq!(range("80").unwrap(), Some((80, 80)));
        assert_eq!(range("9000-9010").unwrap(), Some((9000, 9010)));
        assert_eq!(range("abc").unwrap_err().message(), "invalid port specification: \"abc\"");
        assert!(range("10-9").is_err());
    }
}
