//! What containers ask of networks, checked in dockerd's words.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    engine::{
        Engine, ipam,
        networks::{hosts::check_extra, ports, store::Wish},
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::{Attachment, ContainerCreateRequest, HostConfig},
        id::{ContainerId, NetworkId, TenantId},
        network::{EndpointSettings, NetworkRecord, is_predefined},
    },
};

impl Engine {
    /// The networks that a container asks for, checked as dockerd checks them at create. A network that is not
    /// there (yet) is an error only at start, as with dockerd.
    pub(crate) async fn resolve_networks(
        &self,
        scope: &Scope,
        request: &ContainerCreateRequest,
    ) -> Result<Vec<Attachment>> {
        ports::check(&request.host_config)?;
        for entry in request.host_config.extra_hosts.as_deref().unwrap_or_default() {
            check_extra(entry)?;
        }
        self.linked_containers(scope, &request.host_config)?;
        let Some(main) = request.host_config.network_mode.network() else { return Ok(Vec::new()) };
        let empty = indexmap::IndexMap::new();
        let asked = request.networking.endpoints_config.as_ref().unwrap_or(&empty);
        let main = self.attachment(scope.tenant(), main, EndpointSettings::default());
        let mut attachments = Vec::new();
        for (name, settings) in asked {
            let name = if name == "default" { "bridge" } else { name };
            let attachment = self.attachment(scope.tenant(), name, settings.clone().unwrap_or_default());
            // The main network comes first: it gets `eth0`.
            attachments.insert(if attachment.name == main.name { 0 } else { attachments.len() }, attachment);
        }
        if attachments.is_empty() {
            attachments.push(main);
        }
        for attachment in &attachments {
            let record = self.networks.get(scope.tenant(), &attachment.name).ok();
            let mac = &attachment.settings.mac_address;
            if !mac.is_empty() && parse_mac(mac).is_none() {
                // Here dockerd says so before it looks at anything else of the endpoint.
                return Err(Error::invalid(format!(
                    "invalid config for network {}: invalid MAC address {mac}",
                    attachment.name
                )));
            }
            check_endpoint(record.as_deref(), &attachment.name, &attachment.settings)
                .map_err(|error| error.context(format!("invalid config for network {}", attachment.name)))?;
        }
        Ok(attachments)
    }

    /// Links name containers that must be there already.
    pub(crate) fn linked_containers(&self, scope: &Scope, config: &HostConfig) -> Result<Vec<ContainerId>> {
        let targets = config.links.iter().flatten().map(|link| parse_link(link).1);
        let find = |target: String| match self.containers.get(scope.tenant(), &target) {
            Ok(container) => Ok(container.id().clone()),
            Err(error) => {
                let text = format!("could not get container for {target}: {}", error.message());
                Err(Error::invalid(text).with_source(error))
            }
        };
        targets.map(find).collect()
    }

    /// An attachment as it is stored: by the network's name, if the network is there.
    pub(super) fn attachment(&self, tenant: &TenantId, reference: &str, settings: EndpointSettings) -> Attachment {
        let record = self.networks.get(tenant, reference).ok();
        Attachment {
            name: record.as_ref().map_or_else(|| reference.to_owned(), |record| record.name.clone()),
            network: record.map_or_else(|| NetworkId::from_stored(""), |record| record.id.clone()),
            settings,
            dns_names: Vec::new(),
            endpoint: None,
        }
    }

    /// The networks of attachments as they are now: one may have been made anew under its name.
    pub(super) fn networks_now(
        &self,
        tenant: &TenantId,
        attachments: &[Attachment],
    ) -> Result<Vec<Arc<NetworkRecord>>> {
        let records: Vec<Arc<NetworkRecord>> =
            attachments.iter().map(|attachment| self.networks.get(tenant, &attachment.name)).collect::<Result<_>>()?;
        if records.len() > 1 {
            if records.iter().any(|record| record.name == "none") {
                return Err(none_is_alone());
            }
            if records.iter().any(|record| record.name == "host") {
                return Err(host_is_at_create());
            }
        }
        Ok(records)
    }
}

/// `none` beside another network.
pub fn none_is_alone() -> Error {
    Error::invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
}

/// `host` beside another network.
pub fn host_is_at_create() -> Error {
    Error::invalid("cannot connect container to host network - container must be created in host network mode")
}

/// Checks what is wanted of an endpoint; all complaints at once.
pub fn check_endpoint(network: Option<&NetworkRecord>, name: &str, settings: &EndpointSettings) -> Result<()> {
    let mut complaints = Vec::new();
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let wants_address = !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty();
    if is_predefined(name) {
        if wants_address {
            complaints.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        if settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            complaints
                .push("network-scoped alias is supported only for containers in user defined networks".to_owned());
        }
    }
    if !ipam.ipv4_address.is_empty() && !ipam.ipv4_address.parse::<Ipv4Addr>().is_ok_and(|ip| !ip.is_unspecified()) {
        complaints.push(format!("invalid IPv4 address: {}", ipam.ipv4_address));
    }
    if !ipam.ipv6_address.is_empty() && !ipam.ipv6_address.parse::<Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified()) {
        complaints.push(format!("invalid IPv6 address: {}", ipam.ipv6_address));
    }
    for address in ipam.link_local_ips.iter().filter(|address| address.parse::<IpAddr>().is_err()) {
        complaints.push(format!("invalid link-local IP address: {address}").trim_end().to_owned());
    }
    if let Some(network) = network.filter(|_| wants_address) {
        check_range(network, &[&ipam.ipv4_address, &ipam.ipv6_address], &mut complaints);
    }
    if !settings.mac_address.is_empty() && parse_mac(&settings.mac_address).is_none() {
        complaints.push(format!("invalid MAC address: {}", settings.mac_address));
    }
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid endpoint settings:\n{}", ipam::joined(&complaints))))
}

fn check_range(network: &NetworkRecord, wanted: &[&String], complaints: &mut Vec<String>) {
    if !network.chosen_subnet {
        complaints.push(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .to_owned(),
        );
        return;
    }
    let subnets: Vec<IpNet> = network.ipam.config.iter().filter_map(|pool| pool.subnet.parse().ok()).collect();
    for address in wanted.iter().filter(|text| !text.is_empty()) {
        let is_inside = address.parse::<IpAddr>().is_ok_and(|ip| subnets.iter().any(|net| net.contains(&ip)));
        if !is_inside {
            complaints.push(format!("no configured subnet or ip-range contain the IP address {address}"));
        }
    }
}

/// What an endpoint should be like, from settings that [`check_endpoint`] has passed.
pub fn wish(settings: &EndpointSettings, interface: String, default_route: bool) -> Result<Wish> {
    let ipam = settings.ipam_config.as_ref();
    let link_local = ipam.into_iter().flat_map(|ipam| &ipam.link_local_ips).map(|text| link_local(text));
    Ok(Wish {
        ipv4: ipam.and_then(|ipam| ipam.ipv4_address.parse().ok()),
        ipv6: ipam.and_then(|ipam| ipam.ipv6_address.parse().ok()),
        link_local: link_local.collect::<Result<_>>()?,
        mac: parse_mac(&settings.mac_address),
        interface,
        default_route,
    })
}

/// A link-local address with the prefix length of its kind; dockerd looks at the kind only when it is used.
fn link_local(text: &str) -> Result<IpNet> {
    let net = match text.parse() {
        Ok(IpAddr::V4(address)) if address.is_link_local() => Ipv4Net::new(address, 16).ok().map(IpNet::V4),
        Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => Ipv6Net::new(address, 64).ok().map(IpNet::V6),
        _ => None,
    };
    net.ok_or_else(|| Error::invalid(format!("invalid link local IP address: {text}")))
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let parts = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<Vec<u8>>>()?;
    parts.try_into().ok()
}

/// Which of several networks gives the default route: the highest priority, then the first by name. Internal
/// ones never do.
pub fn gateway(candidates: &[(&NetworkRecord, &EndpointSettings)]) -> Option<NetworkId> {
    candidates
        .iter()
        .filter(|(record, _)| record.bridge.as_ref().is_some_and(|bridge| !bridge.internal))
        .min_by_key(|(record, settings)| (-settings.gw_priority, record.name.clone()))
        .map(|(record, _)| record.id.clone())
}

/// The entries of `Links`, `name:alias`, as what this container says and whom it means.
pub fn links(settings: &EndpointSettings) -> Vec<(String, String)> {
    let entries = settings.links.iter().flatten();
    entries.map(|entry| parse_link(entry)).collect()
}

/// `/web:/job/db`, `web:db`, `web`.
pub fn parse_link(entry: &str) -> (String, String) {
    let (target, alias) = entry.split_once(':').unwrap_or((entry, entry));
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    (last(alias), last(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::EndpointIpam;

    #[test]
    fn links_are_read_in_all_forms() {
        for entry in ["web:db", "/web:/job/db"] {
            assert_eq!(parse_link(entry), ("db".to_owned(), "web".to_owned()));
        }
        assert_eq!(parse_link("web"), ("web".to_owned(), "web".to_owned()));
    }

    #[test]
    fn link_local_addresses_are_read_when_they_are_used() {
        let with = |addresses: &[&str]| {
            let link_local_ips = addresses.iter().map(|&text| text.to_owned()).collect();
            let ipam = EndpointIpam { link_local_ips, ..EndpointIpam::default() };
            EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() }
        };
        let good = wish(&with(&["169.254.7.7", "fe80::77"]), String::new(), false).unwrap();
        assert_eq!(good.link_local, ["169.254.7.7/16".parse().unwrap(), "fe80::77/64".parse().unwrap()]);
        // Texts of dockerd 28.5.
        check_endpoint(None, "one", &with(&["10.1.2.3"])).unwrap();
        let error = wish(&with(&["10.1.2.3"]), String::new(), false).unwrap_err();
        assert_eq!(error.message(), "invalid link local IP address: 10.1.2.3");
        let error = check_endpoint(None, "one", &with(&[""])).unwrap_err();
        assert_eq!(error.message(), "invalid endpoint settings:\ninvalid link-local IP address:");
    }

    #[test]
    fn several_complaints_are_a_list() {
        let settings = EndpointSettings {
            aliases: Some(vec!["x".to_owned()]),
            mac_address: "zz".to_owned(),
            ..EndpointSettings::default()
        };
        let error = check_endpoint(None, "bridge", &settings).unwrap_err();
        assert_eq!(
            error.message(),
            "invalid endpoint settings:\n\
             * network-scoped alias is supported only for containers in user defined networks\n\
             * invalid MAC address: zz"
        );
    }
}
