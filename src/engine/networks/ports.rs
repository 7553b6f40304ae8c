//! Which ports of a container are to be published, and where.

use crate::model::{
    Error, Result,
    container::{ContainerRecord, PortBinding},
    network::{Port, PortRequest},
};

/// The wishes of a container. As with dockerd only exposed ports are published: every client that binds a
/// port exposes it too.
pub fn requests(record: &ContainerRecord) -> Result<Vec<PortRequest>> {
    let mut exposed: Vec<Port> =
        record.config.exposed_ports.iter().flatten().map(|(port, _)| port.parse()).collect::<Result<_>>()?;
    exposed.sort_unstable();
    exposed.dedup();
    let mut requests = Vec::new();
    for port in exposed {
        let bindings = bindings(record, port)?;
        if bindings.is_empty() && record.host_config.publish_all_ports {
            requests.push(PortRequest { port, host_ip: None, host_ports: None });
        }
        for binding in bindings {
            requests.push(request(port, binding)?);
        }
    }
    Ok(requests)
}

fn bindings(record: &ContainerRecord, port: Port) -> Result<Vec<&PortBinding>> {
    let mut found = Vec::new();
    for (key, bindings) in &record.host_config.port_bindings {
        if key.parse::<Port>()? == port {
            found.extend(bindings.iter().flatten());
        }
    }
    Ok(found)
}

fn request(port: Port, binding: &PortBinding) -> Result<PortRequest> {
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?),
    };
    Ok(PortRequest { port, host_ip, host_ports: range(&binding.host_port)? })
}

/// Nothing, a number or `first-last`; 0 is any.
fn range(text: &str) -> Result<Option<(u16, u16)>> {
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
