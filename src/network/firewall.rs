//! Our rules: one nf_tables table per daemon. The rules themselves never change; networks and published
//! ports are elements of its sets and maps, added and taken away in atomic transactions.
//!
//! The wanted state is kept here too, so that the table can be built anew when somebody flushed it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
};

use super::nft::{Element, ElementData, Expression, Hook, SetData, Transaction, Verdict, register::FIRST};
use crate::model::network::{BridgeNetwork, Protocol};

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
/// Ports published at all addresses of the host, and at one address only.
const PUBLISHED: [(&str, &str, u8); 2] = [("published4", "published4_at", IPV4), ("published6", "published6_at", IPV6)];

/// A published port that the kernel can rewrite: both sides are of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Address and port of the host; the address may be unspecified.
    pub host: SocketAddr,
    /// Address and port of the container.
    pub container: SocketAddr,
}

/// The table and what is in it.
pub struct Firewall {
    table: String,
    networks: BTreeMap<String, Vec<Element>>,
    mappings: BTreeSet<Mapping>,
}

impl Firewall {
    /// A firewall whose table is not yet in the kernel.
    pub fn new(table: String) -> Self {
        Self { table, networks: BTreeMap::new(), mappings: BTreeSet::new() }
    }

    /// Puts the table with all it should hold into the kernel, in place of what is there.
    pub fn install(&self) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        transaction.add_table();
        transaction.delete_table();
        transaction.add_table();
        add_sets(&mut transaction);
        add_chains(&mut transaction);
        add_rules(&mut transaction);
        self.networks.values().flatten().for_each(|element| transaction.add_element(element));
        self.mappings.iter().for_each(|mapping| transaction.add_element(&mapping.element()));
        transaction.commit()
    }

    /// Takes the table away if no network is in it.
    pub fn uninstall_if_unused(&self) -> io::Result<()> {
        if !self.networks.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new(&self.table);
        transaction.add_table();
        transaction.delete_table();
        transaction.commit()
    }

    /// Adds or replaces the rules of a network.
    pub fn add_network(&mut self, network: &BridgeNetwork) -> io::Result<()> {
        let old = self.networks.insert(network.link.clone(), network_elements(network)).unwrap_or_default();
        let new = &self.networks[&network.link];
        self.change(&old, new)
    }

    /// Takes the rules of a network away.
    pub fn remove_network(&mut self, link: &str) -> io::Result<()> {
        let old = self.networks.remove(link).unwrap_or_default();
        self.change(&old, &[])
    }

    /// Publishes ports, all or none.
    pub fn add_mappings(&mut self, mappings: &[Mapping]) -> io::Result<()> {
        let new: Vec<Mapping> = mappings.iter().filter(|mapping| !self.mappings.contains(mapping)).copied().collect();
        self.mappings.extend(&new);
        let changed = self.change(&[], &elements(&new));
        if changed.is_err() {
            self.mappings.retain(|mapping| !new.contains(mapping));
        }
        changed
    }

    /// Takes published ports back.
    pub fn remove_mappings(&mut self, mappings: &[Mapping]) -> io::Result<()> {
        let old: Vec<Mapping> = mappings.iter().filter(|mapping| self.mappings.remove(mapping)).copied().collect();
        self.change(&elements(&old), &[])
    }

    fn change(&self, old: &[Element], new: &[Element]) -> io::Result<()> {
        let mut transaction = Transaction::new(&self.table);
        old.iter().for_each(|element| transaction.delete_element(element));
        new.iter().for_each(|element| transaction.add_element(element));
        match transaction.commit() {
            // Somebody flushed the machine's rules; ours have to come back, with this change.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.install(),
            other => other,
        }
    }
}

impl Mapping {
    fn element(&self) -> Element {
        let (everywhere, at, _) = PUBLISHED[usize::from(self.host.is_ipv6())];
        let anywhere = self.host.ip().is_unspecified();
        let mut key = if anywhere { Vec::new() } else { address_bytes(self.host.ip()) };
        key.extend([protocol_number(self.protocol), 0, 0, 0]);
        key.extend(padded_port(self.host.port()));
        let mut data = address_bytes(self.container.ip());
        data.extend(padded_port(self.container.port()));
        Element { set: if anywhere { everywhere } else { at }, key, data: ElementData::Value(data) }
    }
}

fn elements(mappings: &[Mapping]) -> Vec<Element> {
    mappings.iter().map(Mapping::element).collect()
}

fn network_elements(network: &BridgeNetwork) -> Vec<Element> {
    let name = padded_name(&network.link);
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
    for set in [BRIDGES, INTERNAL, MASQUERADED] {
        transaction.add_set(set, NAME, SetData::None);
    }
    transaction.add_set(PAIRS, 2 * NAME, SetData::None);
    transaction.add_set(WITHIN, 2 * NAME, SetData::Verdict);
    for (everywhere, at, family) in PUBLISHED {
        let address = address_length(family);
        transaction.add_set(everywhere, 8, SetData::Value(address + 4));
        transaction.add_set(at, address + 8, SetData::Value(address + 4));
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

/// Loopback is left to the proxy: the kernel would have to route 127.0.0.0/8 out of a link.
fn add_publish_rules(transaction: &mut Transaction<'_>) {
    let leave = Expression::Decide(Verdict::Return);
    transaction.add_rule(
        "publish",
        &[family(IPV4), vec![Expression::Network(16, 1, FIRST), Expression::Equal(FIRST, vec![127]), leave]].concat(),
    );
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
    // A container that reaches a neighbour, or itself, through a published port: the answer has to come back this way.
    transaction.add_rule("postrouting", &[pair_is_ours(), was_redirected(), vec![Expression::Masquerade]].concat());
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
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    let accept = || vec![Expression::Decide(Verdict::Accept)];
    let drop = || vec![Expression::Decide(Verdict::Drop)];
    let comes_from = |set| vec![Expression::load_input_name(FIRST), Expression::In(set, FIRST)];
    let goes_to = |set| vec![Expression::load_output_name(FIRST), Expression::In(set, FIRST)];
    let known = vec![
        Expression::ConnectionState(FIRST),
        Expression::Mask(FIRST, ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec()),
        Expression::NotEqual(FIRST, vec![0; 4]),
    ];
    let within = vec![
        Expression::load_input_name(FIRST),
        Expression::load_output_name(FIRST + 4),
        Expression::Map(WITHIN, FIRST, super::nft::register::VERDICT),
    ];
    transaction.add_rule("forward", &[known, accept()].concat());
    transaction.add_rule("forward", &[pair_is_ours(), was_redirected(), accept()].concat());
    transaction.add_rule("forward", &within);
    transaction.add_rule("forward", &[comes_from(INTERNAL), drop()].concat());
    transaction.add_rule("forward", &[goes_to(INTERNAL), drop()].concat());
    transaction.add_rule("forward", &[goes_to(BRIDGES), was_redirected(), accept()].concat());
    transaction.add_rule("forward", &[goes_to(BRIDGES), drop()].concat());
}

fn pair_is_ours() -> Vec<Expression> {
    vec![Expression::load_input_name(FIRST), Expression::load_output_name(FIRST + 4), Expression::In(PAIRS, FIRST)]
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

fn padded_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME as usize, 0);
    bytes
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str) -> Mapping {
        Mapping { protocol: Protocol::Tcp, host: host.parse().unwrap(), container: "172.18.0.2:80".parse().unwrap() }
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
