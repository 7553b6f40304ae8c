//! `NetworkSettings` of inspect and list.

use serde_json::{Map, Value, json};

use crate::{
    api::compat::ApiVersion,
    model::{
        container::{Attachment, ContainerRecord, ContainerState},
        network::{Endpoint, Port},
    },
};

/// `NetworkSettings` of inspect.
pub(super) fn network_settings(record: &ContainerRecord, version: ApiVersion) -> Value {
    let mut settings = Map::new();
    let legacy = version.has_legacy_network_settings();
    if legacy {
        settings.insert("Bridge".into(), json!(""));
    }
    let sandbox = record.networking.sandbox.as_deref().unwrap_or_default();
    let sandbox_id = if sandbox.is_empty() { "" } else { record.id.as_str() };
    settings.insert("SandboxID".into(), json!(sandbox_id));
    settings.insert("SandboxKey".into(), json!(sandbox));
    settings.insert("Ports".into(), ports(record));
    if legacy {
        add_legacy(&mut settings, record);
    }
    settings.insert("Networks".into(), networks(record, version));
    Value::Object(settings)
}

/// What the default bridge's endpoint has, once more at the top; gone since API 1.52.
fn add_legacy(settings: &mut Map<String, Value>, record: &ContainerRecord) {
    let bridge = record.networking.attachments.iter().find(|attachment| attachment.name == "bridge");
    let endpoint = bridge.and_then(|attachment| attachment.endpoint.as_ref());
    settings.insert("HairpinMode".into(), json!(false));
    settings.insert("LinkLocalIPv6Address".into(), json!(""));
    settings.insert("LinkLocalIPv6PrefixLen".into(), json!(0));
    settings.insert("SecondaryIPAddresses".into(), Value::Null);
    settings.insert("SecondaryIPv6Addresses".into(), Value::Null);
    let id = endpoint.map_or("", |endpoint| endpoint.id.as_str());
    settings.insert("EndpointID".into(), json!(id));
    let addresses = Addresses::of(endpoint);
    settings.insert("Gateway".into(), json!(addresses.gateway));
    settings.insert("GlobalIPv6Address".into(), json!(addresses.ipv6));
    settings.insert("GlobalIPv6PrefixLen".into(), json!(addresses.ipv6_prefix));
    settings.insert("IPAddress".into(), json!(addresses.ipv4));
    settings.insert("IPPrefixLen".into(), json!(addresses.ipv4_prefix));
    settings.insert("IPv6Gateway".into(), json!(addresses.gateway6));
    let wished = bridge.map_or("", |attachment| attachment.settings.mac_address.as_str());
    settings.insert("MacAddress".into(), json!(if endpoint.is_some() { addresses.mac.as_str() } else { wished }));
}

/// An endpoint's addresses as texts; empty where there is none.
#[derive(Default)]
struct Addresses {
    ipv4: String,
    ipv4_prefix: u8,
    gateway: String,
    ipv6: String,
    ipv6_prefix: u8,
    gateway6: String,
    mac: String,
}

impl Addresses {
    fn of(endpoint: Option<&Endpoint>) -> Self {
        let Some(endpoint) = endpoint else { return Self::default() };
        let text = |address: Option<String>| address.unwrap_or_default();
        Self {
            ipv4: text(endpoint.ipv4.map(|net| net.addr().to_string())),
            ipv4_prefix: endpoint.ipv4.map_or(0, |net| net.prefix_len()),
            gateway: text(endpoint.gateway4.map(|address| address.to_string())),
            ipv6: text(endpoint.ipv6.map(|net| net.addr().to_string())),
            ipv6_prefix: endpoint.ipv6.map_or(0, |net| net.prefix_len()),
            gateway6: text(endpoint.gateway6.map(|address| address.to_string())),
            mac: endpoint.mac_text(),
        }
    }
}

/// `Ports`: published ones with where, exposed ones with `null`; only while it runs.
fn ports(record: &ContainerRecord) -> Value {
    let mut ports = Map::new();
    if !record.state.is_running() {
        return Value::Object(ports);
    }
    let mut all: Vec<Port> =
        record.config.exposed_ports.iter().flatten().filter_map(|(port, _)| port.parse().ok()).collect();
    all.extend(record.networking.published.iter().map(|published| published.port));
    all.sort_unstable();
    all.dedup();
    if record.networking.attachments.iter().all(|attachment| attachment.endpoint.is_none()) {
        return Value::Object(ports);
    }
    for port in all {
        let bindings: Vec<Value> = record
            .networking
            .published
            .iter()
            .filter(|published| published.port == port)
            .map(|published| json!({"HostIp": published.host_ip, "HostPort": published.host_port.to_string()}))
            .collect();
        let bindings = if bindings.is_empty() { Value::Null } else { Value::Array(bindings) };
        ports.insert(port.to_string(), bindings);
    }
    Value::Object(ports)
}

/// `Networks` of inspect, by name.
fn networks(record: &ContainerRecord, version: ApiVersion) -> Value {
    let mut attachments: Vec<_> = record.networking.attachments.iter().collect();
    attachments.sort_by(|a, b| a.name.cmp(&b.name));
    let networks = attachments
        .into_iter()
        .map(|attachment| (attachment.name.clone(), endpoint_settings(record, attachment, version)));
    Value::Object(networks.collect())
}

/// `Networks` of the list, where dockerd tells nothing of what was wished for but addresses.
pub(super) fn listed_networks(record: &ContainerRecord, version: ApiVersion) -> Value {
    let mut networks = networks(record, version);
    for endpoint in networks.as_object_mut().into_iter().flat_map(Map::values_mut) {
        for wish in ["Links", "Aliases", "DriverOpts", "DNSNames"] {
            if let Some(value) = endpoint.get_mut(wish) {
                *value = Value::Null;
            }
        }
    }
    networks
}

fn endpoint_settings(record: &ContainerRecord, attachment: &Attachment, version: ApiVersion) -> Value {
    let settings = &attachment.settings;
    let endpoint = attachment.endpoint.as_ref();
    let mut addresses = Addresses::of(endpoint);
    if matches!(record.state, ContainerState::Created(_)) {
        // Until the first run the wish stands here; after it nothing, as with dockerd.
        addresses.mac.clone_from(&settings.mac_address);
    }
    let is_predefined = matches!(attachment.name.as_str(), "bridge" | "host" | "none");
    let mut aliases = settings.aliases.clone();
    if version.has_short_id_alias() && !is_predefined {
        aliases.get_or_insert_default().push(record.id.short().to_owned());
    }
    let dns_names = if is_predefined { None } else { Some(&attachment.dns_names) };
    let mut body = json!({
        "IPAMConfig": settings.ipam_config,
        "Links": settings.links,
        "Aliases": aliases,
    });
    let fields = body.as_object_mut().expect("it was just made as an object");
    if version.has_endpoint_mac_first() {
        fields.insert("MacAddress".into(), json!(addresses.mac));
        fields.insert("DriverOpts".into(), json!(settings.driver_opts));
        fields.insert("GwPriority".into(), json!(settings.gw_priority));
    }
    // Until its first start a container only names its networks, as with dockerd.
    let network = if record.state.has_run() { attachment.network.as_str() } else { "" };
    fields.insert("NetworkID".into(), json!(network));
    fields.insert("EndpointID".into(), json!(endpoint.map_or("", |endpoint| endpoint.id.as_str())));
    fields.insert("Gateway".into(), json!(addresses.gateway));
    fields.insert("IPAddress".into(), json!(addresses.ipv4));
    if !version.has_endpoint_mac_first() {
        fields.insert("MacAddress".into(), json!(addresses.mac));
    }
    fields.insert("IPPrefixLen".into(), json!(addresses.ipv4_prefix));
    fields.insert("IPv6Gateway".into(), json!(addresses.gateway6));
    fields.insert("GlobalIPv6Address".into(), json!(addresses.ipv6));
    fields.insert("GlobalIPv6PrefixLen".into(), json!(addresses.ipv6_prefix));
    if version.has_endpoint_mac_first() {
        fields.insert("DNSNames".into(), json!(dns_names));
    } else {
        fields.insert("DriverOpts".into(), json!(settings.driver_opts));
    }
    body
}
