//! What create refuses about ports and names, so that no container is made that could never start.

use std::net::{IpAddr, Ipv4Addr};

use super::{hosts::parse_extra, lines, ports};
use crate::model::{
    Error, Result,
    container::{Config, HostConfig, PortBinding},
};

/// Checks `PortBindings`, `ExtraHosts` and `Dns`, in dockerd's words, and that no name ends its line; 400.
pub(crate) fn check(config: &Config, host_config: &HostConfig) -> Result<()> {
    for (port, bindings) in host_config.port_bindings.iter().flatten() {
        check_port(port, bindings.as_deref().unwrap_or_default())?;
    }
    for entry in host_config.extra_hosts.iter().flatten() {
        // The gateway is not known yet; any stands for it.
        parse_extra(entry, Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))?;
    }
    for server in host_config.dns.iter().flatten() {
        server.parse::<IpAddr>().map_err(|_| {
            Error::invalid(format!("bad nameserver address {server}: ParseAddr({server:?}): unable to parse IP"))
        })?;
    }
    lines::check(config, host_config)
}

fn check_port(port: &str, bindings: &[PortBinding]) -> Result<()> {
    let number = port.split('/').next().unwrap_or(port);
    if number.parse::<u16>().is_err() {
        return Err(Error::invalid(format!("invalid port specification: {number:?}")));
    }
    bindings.iter().try_for_each(|binding| ports::range(&binding.host_port).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn error(host_config: Value) -> String {
        let host_config: HostConfig = serde_json::from_value(host_config).unwrap();
        check(&Config::default(), &host_config).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_dockers_words() {
        let blue = "invalid port specification: \"blue\"";
        assert_eq!(error(json!({"PortBindings": {"80/tcp": [{"HostPort": "blue"}]}})), blue);
        assert_eq!(error(json!({"PortBindings": {"blue/tcp": null}})), blue);
        assert_eq!(error(json!({"ExtraHosts": ["blue"]})), "bad format for add-host: \"blue\"");
        assert_eq!(
            error(json!({"Dns": ["blue"]})),
            "bad nameserver address blue: ParseAddr(\"blue\"): unable to parse IP"
        );
    }

    #[test]
    fn ranges_and_the_gateway_pass() {
        let host_config = json!({"PortBindings": {"80/tcp": [{"HostPort": "8000-8010"}, {"HostPort": ""}], "53/udp": null},
            "ExtraHosts": ["a:host-gateway", "b:::1"], "Dns": ["1.1.1.1", "::1"]});
        check(&Config::default(), &serde_json::from_value(host_config).unwrap()).unwrap();
    }
}
