//! Networks and a container's attachments to them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use indexmap::IndexMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    id::{ContainerId, EndpointId, NetworkId, TenantId},
    record::Record,
    time::Timestamp,
};

/// Reads `null` as the default: Go clients send nil maps and slices as `null`.
pub fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A place that jobs reach although it is at an address of the machine, or at one that none may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Opening {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
}

/// One entry of `IPAM.Config` as the client wrote it and inspect echoes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamPool {
    /// The subnet in CIDR notation.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub subnet: String,
    /// Where dynamic addresses come from, in CIDR notation.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub ip_range: String,
    /// The bridge's own address.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub gateway: String,
    /// Addresses never to be given out, by name.
    #[serde(
        rename = "AuxiliaryAddresses",
        alias = "AuxAddress",
        skip_serializing_if = "IndexMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub auxiliary_addresses: IndexMap<String, String>,
}

/// `IPAM` of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// The driver; `default` is the only one we have.
    #[serde(deserialize_with = "null_is_default")]
    pub driver: String,
    /// Options of the driver.
    pub options: Option<IndexMap<String, String>>,
    /// The pools.
    #[serde(deserialize_with = "null_is_default")]
    pub config: Vec<IpamPool>,
}

/// Names a configuration network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    /// Its name; empty is none.
    #[serde(deserialize_with = "null_is_default")]
    pub network: String,
}

/// The body of `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreateRequest {
    /// The name; required.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// `bridge` if empty.
    #[serde(deserialize_with = "null_is_default")]
    pub driver: String,
    /// `local` or empty; `swarm` is refused.
    #[serde(deserialize_with = "null_is_default")]
    pub scope: String,
    /// No way out.
    #[serde(deserialize_with = "null_is_default")]
    pub internal: bool,
    /// Echoed by inspect; means something only in a swarm.
    #[serde(deserialize_with = "null_is_default")]
    pub attachable: bool,
    /// Refused.
    #[serde(deserialize_with = "null_is_default")]
    pub ingress: bool,
    /// Only a configuration, for other networks to be made from.
    #[serde(deserialize_with = "null_is_default")]
    pub config_only: bool,
    /// The configuration to make this network from.
    #[serde(deserialize_with = "null_is_default")]
    pub config_from: ConfigReference,
    /// `true` if absent.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    /// `false` if absent.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    /// Address management.
    #[serde(rename = "IPAM", deserialize_with = "null_is_default")]
    pub ipam: Ipam,
    /// Options of the driver.
    #[serde(deserialize_with = "null_is_default")]
    pub options: IndexMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: IndexMap<String, String>,
    /// Old clients ask for a check of the name; it is always made.
    #[serde(deserialize_with = "null_is_default")]
    pub check_duplicate: bool,
}

/// Which driver carries a network out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkDriver {
    /// A Linux bridge with NAT.
    Bridge,
    /// The host's own network namespace.
    Host,
    /// Nothing but loopback.
    Null,
}

/// A network's record: one JSON file below the data root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Who carries it out.
    pub driver: NetworkDriver,
    /// No way out.
    pub internal: bool,
    /// As the client said.
    pub attachable: bool,
    /// Whether containers get IPv4 addresses.
    pub enable_ipv4: bool,
    /// Whether containers get IPv6 addresses.
    pub enable_ipv6: bool,
    /// What the client asked for, with the pools that were chosen.
    pub ipam: Ipam,
    /// Whether the client chose a subnet: only then may endpoints have addresses of the client's choice.
    #[serde(default)]
    pub chosen_subnet: bool,
    /// Options of the driver.
    pub options: IndexMap<String, String>,
    /// Labels.
    pub labels: IndexMap<String, String>,
    /// Whether it is only a configuration, which no container can be on.
    #[serde(default)]
    pub config_only: bool,
    /// The configuration that it was made from.
    #[serde(default)]
    pub config_from: ConfigReference,
    /// How it looks in the kernel; `None` for host, none and configurations.
    pub bridge: Option<BridgeNetwork>,
}

impl Record for NetworkRecord {
    const KIND: &'static str = "network";
}

impl NetworkRecord {
    /// Whether it is one of the three that every tenant has.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    /// The driver as Docker calls it.
    pub fn driver_name(&self) -> &'static str {
        match self.driver {
            NetworkDriver::Bridge => "bridge",
            NetworkDriver::Host => "host",
            NetworkDriver::Null => "null",
        }
    }

    /// The label's value, for filters.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// Whether a name is that of a network that every tenant has.
pub fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

/// What a bridge network needs in the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BridgeNetwork {
    /// The network's id.
    pub id: NetworkId,
    /// Name of the bridge link, at most 15 bytes.
    pub link: String,
    /// Gateway address with the subnet's prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// No route out and no masquerade.
    pub internal: bool,
    /// Bytes; the uplink's unless the client asked for another.
    pub mtu: u32,
    /// Whether containers of this network reach each other (`com.docker.network.bridge.enable_icc`).
    pub icc: bool,
    /// Whether the source address is rewritten on the way out (`com.docker.network.bridge.enable_ip_masquerade`).
    pub masquerade: bool,
    /// Where ports are published when no host address is given (`com.docker.network.bridge.host_binding_ipv4`).
    pub default_host_ip: Option<IpAddr>,
    /// The addresses that the bridge had when the network was made, if it was there already: then it is somebody else's,
    /// and stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Vec<ipnet::IpNet>>,
}

/// Wanted addresses of an endpoint (`EndpointSettings.IPAMConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointIpam {
    /// A static IPv4 address.
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub ipv4_address: String,
    /// A static IPv6 address.
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub ipv6_address: String,
    /// Link-local addresses.
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub link_local_ips: Vec<String>,
}

/// `EndpointSettings` of a request: create's `NetworkingConfig.EndpointsConfig` and connect's `EndpointConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSettings {
    /// Wanted addresses.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpam>,
    /// Legacy links, `container:alias`.
    pub links: Option<Vec<String>>,
    /// Names others find the container by.
    pub aliases: Option<Vec<String>>,
    /// A wanted hardware address.
    #[serde(deserialize_with = "null_is_default")]
    pub mac_address: String,
    /// Options of the driver.
    pub driver_opts: Option<IndexMap<String, String>>,
    /// Which endpoint gives the default gateway: the highest wins.
    #[serde(deserialize_with = "null_is_default")]
    pub gw_priority: i64,
    /// Drone puts a network's name here; it says nothing we need.
    #[serde(rename = "NetworkID", deserialize_with = "null_is_default")]
    pub network_id: String,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "EndpointID", skip_serializing)]
    pub endpoint_id: Ignored,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "Gateway", skip_serializing)]
    pub gateway: Ignored,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "IPAddress", skip_serializing)]
    pub ip_address: Ignored,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "IPPrefixLen", skip_serializing)]
    pub ip_prefix_len: Ignored,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "IPv6Gateway", skip_serializing)]
    pub ipv6_gateway: Ignored,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "GlobalIPv6Address", skip_serializing)]
    pub global_ipv6_address: Ignored,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "GlobalIPv6PrefixLen", skip_serializing)]
    pub global_ipv6_prefix_len: Ignored,
    /// Means something only in answers; some clients send back what inspect told them.
    #[serde(rename = "DNSNames", skip_serializing)]
    pub dns_names: Ignored,
}

/// Takes any value and keeps nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A container's attachment to a network while it has addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Which network.
    pub network: NetworkId,
    /// Address in the subnet, with its prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// More addresses that the client chose, which are told to nobody (`LinkLocalIPs`).
    #[serde(default)]
    pub link_local: Vec<IpNet>,
    /// The gateway, if the network has a way out.
    pub gateway4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// Six bytes, locally administered unless the client chose one.
    pub mac: [u8; 6],
    /// Name of the link inside the container, `eth0` …
    pub interface: String,
    /// Whether the default route leads through this endpoint.
    pub default_route: bool,
}

impl Endpoint {
    /// The hardware address as Docker writes it; empty for an endpoint of the host's or of no network.
    pub fn mac_text(&self) -> String {
        if self.mac == [0; 6] {
            return String::new();
        }
        self.mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
    }
}

/// A transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The word after the slash in `80/tcp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of a container, `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The number inside the container.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

impl std::str::FromStr for Port {
    type Err = super::Error;

    fn from_str(text: &str) -> super::Result<Self> {
        let invalid = || super::Error::invalid(format!("invalid port specification: {text:?}"));
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(invalid()),
        };
        Ok(Self { number: number.parse().map_err(|_| invalid())?, protocol })
    }
}

/// A port of a container that is reachable at an address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port inside.
    pub port: Port,
    /// The host's address, unspecified for all.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

/// A published port as it is wished for; the host port may be a range or none (any free one).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The port inside.
    pub port: Port,
    /// The host's address; `None` is the network's default (all).
    pub host_ip: Option<IpAddr>,
    /// First and last host port to try; `None` is any free one of the ephemeral range.
    pub host_ports: Option<(u16, u16)>,
    /// Of a job: the address of the machine at which the port answers too.
    pub machine: Option<IpAddr>,
}

/// What one container is called on one network, for its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// Container name, aliases, short id.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// The only container that knows these names (a legacy link); `None` for all neighbours.
    pub only_for: Option<ContainerId>,
}

/// The names on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkNames {
    /// The network's own name: `web.mynet` names `web` on `mynet`.
    pub network: String,
    /// Who is there.
    pub entries: Vec<NameEntry>,
}

/// Who can be found by name from where.
pub type NameTable = BTreeMap<NetworkId, NetworkNames>;

/// Splits `addr` of a CIDR network into what inspect prints.
pub fn prefix_of(net: &IpNet) -> (String, u8) {
    (net.addr().to_string(), net.prefix_len())
}
