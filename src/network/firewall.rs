//! Our rules: one nf_tables table per daemon. The rules themselves never change; networks and published
//! ports are elements of its sets and maps, added and taken away in atomic transactions.
//!
//! The wanted state is kept here too, so that the table can be built anew when somebody flushed it, which `keeper` sees.

mod walls;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
};

use super::nft::{
    self, DataType, Element, ElementData, Expression, Field, Hook, SetData, Transaction, Verdict, register::FIRST,
};
pub use walls::{WalledJob, Walls};

use crate::model::network::{BridgeNetwork, Opening, Protocol};

/// Bits of a connection's state.
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
const NAME: u32 = 16; // bytes of a link's name in a set
const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const IPV6: u8 = libc::NFPROTO_IPV6 as u8;

/// All bridges of ours.
const BRIDGES: &str = "bridges";
/// Bridges without a way out or in.
const INTERNAL: &str = "internal";
/// Bridges whose containers leave with the host's address.
const MASQUERADED: &str = "masqueraded";
/// From a bridge to itself: what becomes of it.
const WITHIN: &str = "within";
/// From a bridge to itself, as a plain set.
const PAIRS: &str = "pairs";
/// Bridge, protocol and port: who is on the published container's own bridge is served by the proxy.
const NEAR: &str = "near";
/// Ports published at all addresses of the host, and at one address only.
const PUBLISHED: [(&str, &str, u8); 2] = [("published4", "published4_at", IPV4), ("published6", "published6_at", IPV6)];

/// A link's name as sets hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName([u8; NAME as usize]);

impl From<&str> for LinkName {
    fn from(name: &str) -> Self {
        let mut bytes = [0; NAME as usize];
        let length = name.len().min(bytes.len() - 1);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self(bytes)
    }
}

/// A published port that the kernel can rewrite: both sides are of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// The container's own bridge.
    pub bridge: LinkName,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Address and port of the host; the address may be unspecified.
    pub host: SocketAddr,
    /// Address and port of the container.
    pub container: SocketAddr,
}

/// The table and what should be in it.
pub struct Firewall {
    table: String,
    /// Those around jobs, on the machine.
    walls: Option<Walls>,
    wanted: Wanted,
    /// Rules that are in it once it is installed.
    rules: usize,
}

#[derive(Clone, Default)]
struct Wanted {
    networks: BTreeMap<String, Vec<Element>>,
    mappings: BTreeSet<Mapping>,
    /// Jobs by the machine's end of their way out.
    jobs: BTreeMap<String, WalledJob>,
    openings: BTreeSet<Opening>,
}

impl Firewall {
    /// A firewall whose table is not yet in the kernel.
    pub fn new(table: String, walls: Option<Walls>) -> Self {
        Self { table, walls, wanted: Wanted::default(), rules: 0 }
    }

    /// Puts the table with all it should hold into the kernel, in place of what is there.
    pub fn install(&mut self) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        transaction.add_table();
        transaction.delete_table();
        transaction.add_table();
        add_sets(&mut transaction);
        add_chains(&mut transaction);
        add_rules(&mut transaction);
        if let Some(walls) = &self.walls {
            walls::add_sets(&mut transaction);
            walls::add_chains(&mut transaction);
            walls::add_rules(&mut transaction, walls);
        }
        self.rules = transaction.rules();
        self.wanted.elements().iter().for_each(|element| transaction.add_element(element));
        transaction.commit()
    }

    /// Puts it there anew if rules of it are missing; whether they were. One that was taken away by us stays away.
    pub fn repair(&mut self) -> io::Result<bool> {
        if self.rules == 0 || nft::rules_of(&self.table)? == self.rules {
            return Ok(false);
        }
        self.install().map(|()| true)
    }

    /// Takes the table away if neither a network nor a job is in it.
    pub fn uninstall_if_unused(&mut self) -> io::Result<()> {
        if !self.wanted.networks.is_empty() || !self.wanted.jobs.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new(&self.table);
        transaction.add_table();
        transaction.delete_table();
        self.rules = 0;
        transaction.commit()
    }

    /// Adds or replaces the rules of a network.
    pub fn add_network(&mut self, network: &BridgeNetwork) -> io::Result<()> {
        self.change(|wanted| drop(wanted.networks.insert(network.link.clone(), network_elements(network))))
    }

    /// Takes the rules of a network away.
    pub fn remove_network(&mut self, link: &str) -> io::Result<()> {
        self.change(|wanted| drop(wanted.networks.remove(link)))
    }

    /// Publishes ports, all or none.
    pub fn add_mappings(&mut self, mappings: &[Mapping]) -> io::Result<()> {
        self.change(|wanted| wanted.mappings.extend(mappings))
    }

    /// Takes published ports back.
    pub fn remove_mappings(&mut self, mappings: &[Mapping]) -> io::Result<()> {
        self.change(|wanted| {
            for mapping in mappings {
                wanted.mappings.remove(mapping);
            }
        })
    }

    /// Walls a job in, and lets it out with the machine's address.
    pub fn add_job(&mut self, link: String, addresses: Vec<IpAddr>) -> io::Result<()> {
        let job = WalledJob { addresses, openings: BTreeSet::new() };
        self.change(|wanted| drop(wanted.jobs.insert(link, job)))
    }

    /// Says what one job reaches although the walls would refuse it. `NotFound` if it is not walled in.
    pub fn set_openings_of(&mut self, link: &str, openings: BTreeSet<Opening>) -> io::Result<()> {
        if !self.wanted.jobs.contains_key(link) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(|wanted| {
            if let Some(job) = wanted.jobs.get_mut(link) {
                job.openings = openings;
            }
        })
    }

    /// Forgets a job, whose link must be down.
    pub fn remove_job(&mut self, link: &str) -> io::Result<()> {
        self.change(|wanted| drop(wanted.jobs.remove(link)))
    }

    /// Says what jobs reach although the walls would refuse it.
    pub fn set_openings(&mut self, openings: BTreeSet<Opening>) -> io::Result<()> {
        self.change(|wanted| wanted.openings = openings)
    }

    /// Carries the difference into the kernel; if that fails, nothing has changed.
    fn change(&mut self, change: impl FnOnce(&mut Wanted)) -> io::Result<()> {
        let before = self.wanted.clone();
        change(&mut self.wanted);
        let changed = self.carry(&before.elements(), &self.wanted.elements());
        if changed.is_err() {
            self.wanted = before;
        }
        changed
    }

    fn carry(&mut self, before: &BTreeSet<Element>, after: &BTreeSet<Element>) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        before.difference(after).for_each(|element| transaction.delete_element(element));
        after.difference(before).for_each(|element| transaction.add_element(element));
        match transaction.commit() {
            // Somebody flushed the machine's rules; ours have to come back, with this change.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.install(),
            other => other,
        }
    }
}

impl Wanted {
    /// Two mappings of one port (IPv4 and IPv6, or two addresses) share the element that keeps neighbours away.
    fn elements(&self) -> BTreeSet<Element> {
        let mapped = self.mappings.iter().flat_map(|mapping| [mapping.element(), mapping.near()]);
        let of_jobs = self.jobs.iter().flat_map(|(link, job)| walls::job_elements(link, job));
        let opened = self.openings.iter().map(walls::opening_element);
        self.networks.values().flatten().cloned().chain(mapped).chain(of_jobs).chain(opened).collect()
    }
}

impl Mapping {
    fn near(&self) -> Element {
        let mut key = self.bridge.0.to_vec();
        key.extend(padded_protocol(self.protocol));
        key.extend(padded_port(self.host.port()));
        Element { set: NEAR, key, data: ElementData::None }
    }

    fn element(&self) -> Element {
        let (everywhere, at, _) = PUBLISHED[usize::from(self.host.is_ipv6())];
        let anywhere = self.host.ip().is_unspecified();
        let mut key = if anywhere { Vec::new() } else { address_bytes(self.host.ip()) };
        key.extend(padded_protocol(self.protocol));
        key.extend(padded_port(self.host.port()));
        let mut data = address_bytes(self.container.ip());
        data.extend(padded_port(self.container.port()));
        Element { set: if anywhere { everywhere } else { at }, key, data: ElementData::Value(data) }
    }
}

fn network_elements(network: &BridgeNetwork) -> Vec<Element> {
    let name = LinkName::from(network.link.as_str()).0.to_vec();
    let pair = [name.clone(), name.clone()].concat();
    let member = |set, key: &Vec<u8>| Element { set, key: key.clone(), data: ElementData::None };
    let within = if network.icc { Verdict::Accept } else { Verdict::Drop };
    let mut elements = vec![
        member(BRIDGES, &name),
        member(PAIRS, &pair),
        Element { set: WITHIN, key: pair, data: ElementData::Verdict(within) },
    ];
    if network.internal {
        elements.push(member(INTERNAL, &name));
    } else if network.masquerade {
        elements.push(member(MASQUERADED, &name));
    }
    elements
}

fn add_sets(transaction: &mut Transaction<'_>) {
    use Field::{Ipv4Address, Ipv6Address, LinkName, Protocol, Service};
    for set in [BRIDGES, INTERNAL, MASQUERADED] {
        transaction.add_set(set, DataType::of(&[LinkName]), SetData::None);
    }
    transaction.add_set(PAIRS, DataType::of(&[LinkName, LinkName]), SetData::None);
    transaction.add_set(WITHIN, DataType::of(&[LinkName, LinkName]), SetData::Verdict);
    transaction.add_set(NEAR, DataType::of(&[LinkName, Protocol, Service]), SetData::None);
    for (everywhere, at, family) in PUBLISHED {
        let address = if family == IPV4 { Ipv4Address } else { Ipv6Address };
        let target = SetData::Value(DataType::of(&[address, Service]));
        transaction.add_set(everywhere, DataType::of(&[Protocol, Service]), target);
        transaction.add_set(at, DataType::of(&[address, Protocol, Service]), target);
    }
}

fn add_chains(transaction: &mut Transaction<'_>) {
    transaction.add_chain("publish");
    transaction.add_base_chain("prerouting", "nat", Hook::Prerouting, -100);
    transaction.add_base_chain("output", "nat", Hook::Output, -100);
    transaction.add_base_chain("postrouting", "nat", Hook::Postrouting, 100);
    transaction.add_base_chain("forward", "filter", Hook::Forward, 0);
}

fn add_rules(transaction: &mut Transaction<'_>) {
    for hook in ["prerouting", "output"] {
        let local = u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec();
        transaction.add_rule(
            hook,
            &[
                Expression::DestinationKind(FIRST),
                Expression::Equal(FIRST, local),
                Expression::Decide(Verdict::Jump("publish")),
            ],
        );
    }
    add_publish_rules(transaction);
    add_postrouting_rules(transaction);
    add_forward_rules(transaction);
}

/// Loopback is left to the proxy: the kernel would have to route 127.0.0.0/8 out of a link. So are neighbours:
/// with br_netfilter their packets would turn round inside the bridge, past isolated and hairpin ports.
fn add_publish_rules(transaction: &mut Transaction<'_>) {
    let leave = || vec![Expression::Decide(Verdict::Return)];
    let loopback4 = vec![Expression::Network(16, 1, FIRST), Expression::Equal(FIRST, vec![127])];
    let loopback6 = vec![
        Expression::Network(24, 16, FIRST),
        Expression::Equal(FIRST, std::net::Ipv6Addr::LOCALHOST.octets().to_vec()),
    ];
    let near = vec![
        Expression::load_input_name(FIRST),
        Expression::load_transport(FIRST + 4),
        Expression::Transport(2, 2, FIRST + 5),
        Expression::In(NEAR, FIRST),
    ];
    transaction.add_rule("publish", &[family(IPV4), loopback4, leave()].concat());
    transaction.add_rule("publish", &[family(IPV6), loopback6, leave()].concat());
    transaction.add_rule("publish", &[near, leave()].concat());
    for (everywhere, at, number) in PUBLISHED {
        transaction.add_rule("publish", &[family(number), destination_nat(at, number, true)].concat());
        transaction.add_rule("publish", &[family(number), destination_nat(everywhere, number, false)].concat());
    }
}

fn destination_nat(map: &'static str, family: u8, with_address: bool) -> Vec<Expression> {
    let words = address_length(family) / 4;
    let offset = if family == IPV4 { 16 } else { 24 };
    let mut expressions = Vec::new();
    let mut next = FIRST;
    if with_address {
        expressions.push(Expression::Network(offset, words * 4, next));
        next += words;
    }
    expressions.push(Expression::load_transport(next));
    expressions.push(Expression::Transport(2, 2, next + 1));
    expressions.push(Expression::Map(map, FIRST, FIRST));
    expressions.push(Expression::DestinationNat(family, FIRST, FIRST + words));
    expressions
}

fn add_postrouting_rules(transaction: &mut Transaction<'_>) {
    transaction.add_rule(
        "postrouting",
        &[
            Expression::load_input_name(FIRST),
            Expression::load_output_name(FIRST + 4),
            Expression::NotIn(PAIRS, FIRST),
            Expression::In(MASQUERADED, FIRST),
            Expression::Masquerade,
        ],
    );
}

fn add_forward_rules(transaction: &mut Transaction<'_>) {
    let accept = || vec![Expression::Decide(Verdict::Accept)];
    let drop = || vec![Expression::Decide(Verdict::Drop)];
    let comes_from = |set| vec![Expression::load_input_name(FIRST), Expression::In(set, FIRST)];
    let goes_to = |set| vec![Expression::load_output_name(FIRST), Expression::In(set, FIRST)];
    let known = has_state(ESTABLISHED | RELATED);
    let within = vec![
        Expression::load_input_name(FIRST),
        Expression::load_output_name(FIRST + 4),
        Expression::Map(WITHIN, FIRST, super::nft::register::VERDICT),
    ];
    transaction.add_rule("forward", &[known, accept()].concat());
    transaction.add_rule("forward", &within);
    transaction.add_rule("forward", &[comes_from(INTERNAL), drop()].concat());
    transaction.add_rule("forward", &[goes_to(INTERNAL), drop()].concat());
    transaction.add_rule("forward", &[goes_to(BRIDGES), was_redirected(), accept()].concat());
    transaction.add_rule("forward", &[goes_to(BRIDGES), drop()].concat());
}

/// Whether a packet's connection is in one of these states.
fn has_state(states: u32) -> Vec<Expression> {
    vec![
        Expression::ConnectionState(FIRST),
        Expression::Mask(FIRST, states.to_ne_bytes().to_vec()),
        Expression::NotEqual(FIRST, vec![0; 4]),
    ]
}

fn was_redirected() -> Vec<Expression> {
    const DESTINATION_NAT: u32 = 0x20; // IPS_DST_NAT
    vec![
        Expression::ConnectionStatus(FIRST),
        Expression::Mask(FIRST, DESTINATION_NAT.to_ne_bytes().to_vec()),
        Expression::NotEqual(FIRST, vec![0; 4]),
    ]
}

fn family(number: u8) -> Vec<Expression> {
    vec![Expression::load_family(FIRST), Expression::Equal(FIRST, vec![number])]
}

fn address_length(family: u8) -> u32 {
    if family == IPV4 { 4 } else { 16 }
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn padded_protocol(protocol: Protocol) -> [u8; 4] {
    let number = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    [number, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str) -> Mapping {
        let bridge = LinkName::from("rngtest");
        Mapping {
            bridge,
            protocol: Protocol::Tcp,
            host: host.parse().unwrap(),
            container: "172.18.0.2:80".parse().unwrap(),
        }
    }

    #[test]
    fn a_given_host_address_is_part_of_the_key() {
        let all = mapping("0.0.0.0:8080").element();
        assert_eq!((all.set, all.key), ("published4", vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0]));
        let one = mapping("192.0.2.2:8080").element();
        assert_eq!((one.set, one.key), ("published4_at", vec![192, 0, 2, 2, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]));
        assert_eq!(one.data, ElementData::Value(vec![172, 18, 0, 2, 0, 80, 0, 0]));
    }
}
