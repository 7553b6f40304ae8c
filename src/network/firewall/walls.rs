//! The walls around jobs: rules of the machine's table for what comes in by the machine's end of a way out.
//!
//! They are asked before NAT and routing, when a packet still says where it wants to go, so that no published port, of
//! ours or of another program, leads around them. What a job does with addresses, ARP and capabilities happens in its own
//! network namespaces; here counts by which link a packet comes. What belongs to a connection that was let through passes.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    ESTABLISHED, IPV4, IPV6, LinkName, MASQUERADED, address_bytes, address_length, family, has_state, padded_port,
    padded_protocol,
};
use crate::{
    model::network::Opening,
    network::nft::{
        DataType, Element, ElementData, Expression, Field, Hook, SetData, Transaction, Verdict, register::FIRST,
    },
};

/// The machine's ends of ways out.
pub const JOBS: &str = "jobs";
/// Link and address: with which addresses the packets of a job come.
const SOURCES: [(&str, u8); 2] = [("sources4", IPV4), ("sources6", IPV6)];
/// Address, protocol and port: what is open although it would be refused.
const OPENED: [(&str, u8); 2] = [("opened4", IPV4), ("opened6", IPV6)];
/// Link, address, protocol and port: what is open to one job.
const OPENED_TO: [(&str, u8); 2] = [("opened_to4", IPV4), ("opened_to6", IPV6)];
/// After the kernel knows a packet's connection, before destinations are rewritten.
const PRIORITY: i32 = -150;

/// What no job reaches, whatever the machine routes.
#[derive(Clone, Debug)]
pub struct Walls {
    /// Destinations that are refused beside those of this machine.
    pub refused: Vec<IpNet>,
}

/// A job that is walled in.
#[derive(Clone, Debug)]
pub struct WalledJob {
    /// With which addresses its packets come.
    pub addresses: Vec<IpAddr>,
    /// What it reaches although it would be refused, beside what is open to all.
    pub openings: BTreeSet<Opening>,
}

pub fn add_sets(transaction: &mut Transaction<'_>) {
    transaction.add_set(JOBS, DataType::of(&[Field::LinkName]), SetData::None);
    for (set, number) in SOURCES {
        transaction.add_set(set, DataType::of(&[Field::LinkName, address_field(number)]), SetData::None);
    }
    for (set, number) in OPENED {
        let key = DataType::of(&[address_field(number), Field::Protocol, Field::Service]);
        transaction.add_set(set, key, SetData::None);
    }
    for (set, number) in OPENED_TO {
        let key = DataType::of(&[Field::LinkName, address_field(number), Field::Protocol, Field::Service]);
        transaction.add_set(set, key, SetData::None);
    }
}

pub fn add_chains(transaction: &mut Transaction<'_>) {
    transaction.add_chain("from_job");
    transaction.add_base_chain("walls", "filter", Hook::Prerouting, PRIORITY);
}

pub fn add_rules(transaction: &mut Transaction<'_>, walls: &Walls) {
    add_source_rules(transaction);
    transaction.add_rule("from_job", &[has_state(ESTABLISHED), decide(Verdict::Accept)].concat());
    for (set, number) in OPENED {
        transaction.add_rule("from_job", &[is_opened(set, number), decide(Verdict::Accept)].concat());
    }
    for (set, number) in OPENED_TO {
        transaction.add_rule("from_job", &[is_opened_to(set, number), decide(Verdict::Accept)].concat());
    }
    for net in &walls.refused {
        transaction.add_rule("from_job", &[goes_to(net), vec![Expression::Refuse]].concat());
    }
    // An address of the machine, broadcast, multicast, or what it has no route to.
    let unicast = u32::from(libc::RTN_UNICAST).to_ne_bytes().to_vec();
    let is_not_elsewhere = vec![Expression::DestinationKind(FIRST), Expression::NotEqual(FIRST, unicast)];
    transaction.add_rule("from_job", &[is_not_elsewhere, vec![Expression::Refuse]].concat());
    transaction.add_rule("from_job", &decide(Verdict::Accept));
    // Nobody comes in by a job's way out.
    let goes_to_job = vec![Expression::load_output_name(FIRST), Expression::In(JOBS, FIRST)];
    transaction.add_rule("forward", &[goes_to_job, decide(Verdict::Drop)].concat());
}

/// Whoever sends with an address that is not the job's is not heard.
fn add_source_rules(transaction: &mut Transaction<'_>) {
    let is_of_nobody = vec![Expression::load_input_name(FIRST), Expression::NotIn(JOBS, FIRST)];
    transaction.add_rule("walls", &[is_of_nobody, decide(Verdict::Accept)].concat());
    for (set, number) in SOURCES {
        let offset = if number == IPV4 { 12 } else { 8 };
        let comes_as_it_should = vec![
            Expression::load_input_name(FIRST),
            Expression::Network(offset, address_length(number), FIRST + 4),
            Expression::In(set, FIRST),
        ];
        transaction
            .add_rule("walls", &[family(number), comes_as_it_should, decide(Verdict::Jump("from_job"))].concat());
    }
    transaction.add_rule("walls", &decide(Verdict::Drop));
}

fn is_opened(set: &'static str, number: u8) -> Vec<Expression> {
    [family(number), load_place(number, FIRST), vec![Expression::In(set, FIRST)]].concat()
}

fn is_opened_to(set: &'static str, number: u8) -> Vec<Expression> {
    let link = vec![Expression::load_input_name(FIRST)];
    [family(number), link, load_place(number, FIRST + 4), vec![Expression::In(set, FIRST)]].concat()
}

/// Destination, protocol and port, from a register on.
fn load_place(number: u8, register: u32) -> Vec<Expression> {
    let after = register + address_length(number) / 4;
    vec![load_destination(number, register), Expression::load_transport(after), Expression::Transport(2, 2, after + 1)]
}

fn goes_to(net: &IpNet) -> Vec<Expression> {
    let number = if net.addr().is_ipv4() { IPV4 } else { IPV6 };
    let within = vec![
        load_destination(number, FIRST),
        Expression::Mask(FIRST, address_bytes(net.netmask())),
        Expression::Equal(FIRST, address_bytes(net.network())),
    ];
    [family(number), within].concat()
}

fn load_destination(number: u8, register: u32) -> Expression {
    Expression::Network(if number == IPV4 { 16 } else { 24 }, address_length(number), register)
}

fn decide(verdict: Verdict) -> Vec<Expression> {
    vec![Expression::Decide(verdict)]
}

fn address_field(number: u8) -> Field {
    if number == IPV4 { Field::Ipv4Address } else { Field::Ipv6Address }
}

/// The elements of one job: its link, its addresses, that it leaves with the machine's address, and what is open to it.
pub fn job_elements(link: &str, job: &WalledJob) -> Vec<Element> {
    let name = LinkName::from(link).0.to_vec();
    let member = |set, key| Element { set, key, data: ElementData::None };
    let sources = job.addresses.iter().map(|address| {
        let (set, _) = SOURCES[usize::from(address.is_ipv6())];
        member(set, [name.clone(), address_bytes(*address)].concat())
    });
    let opened = job.openings.iter().map(|opening| {
        let (set, _) = OPENED_TO[usize::from(opening.address.is_ipv6())];
        member(set, [name.clone(), place_key(opening)].concat())
    });
    [member(JOBS, name.clone()), member(MASQUERADED, name.clone())].into_iter().chain(sources).chain(opened).collect()
}

/// The element of what is open to all.
pub fn opening_element(opening: &Opening) -> Element {
    let (set, _) = OPENED[usize::from(opening.address.is_ipv6())];
    Element { set, key: place_key(opening), data: ElementData::None }
}

fn place_key(opening: &Opening) -> Vec<u8> {
    let mut key = address_bytes(opening.address.ip());
    key.extend(padded_protocol(opening.protocol));
    key.extend(padded_port(opening.address.port()));
    key
}
