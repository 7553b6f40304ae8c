//! nf_tables over netlink: transactions of tables, chains, sets, elements and rules, without the `nft` program.
//!
//! The crates that there are run that program (`nftables`, whose JSON loses maps of several keys in Debian 12's 1.0.6) or bind its C library;
//! it takes 3 to 13 ms for what takes 0.1 here, and it would have to be on every host.
//!
//! Numbers are from the kernel's `nf_tables.h`. A transaction is atomic: all of it or nothing.

mod expression;

use std::{io, os::fd::OwnedFd};

pub use expression::{Expression, Verdict, register};

use super::netlink::{ACK, APPEND, CREATE, DUMP, Message, Socket, attributes, read_str, split};

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const INET: u8 = 1; // NFPROTO_INET
const LIST_ELEMENT: u16 = 1; // NFTA_LIST_ELEM
const DATA_VALUE: u16 = 1; // NFTA_DATA_VALUE
const DATA_VERDICT: u16 = 2; // NFTA_DATA_VERDICT
const VERDICT_TYPE: u32 = 0xffff_ff00; // NFT_DATA_VERDICT
const SET_IS_MAP: u32 = 8; // NFT_SET_MAP

/// Kinds of messages (`NFT_MSG_…`).
mod kind {
    pub const NEW_TABLE: u16 = 0;
    pub const DELETE_TABLE: u16 = 2;
    pub const NEW_CHAIN: u16 = 3;
    pub const GET_CHAIN: u16 = 4;
    pub const DELETE_CHAIN: u16 = 5;
    pub const NEW_RULE: u16 = 6;
    pub const GET_RULE: u16 = 7;
    pub const DELETE_RULE: u16 = 8;
    pub const NEW_SET: u16 = 9;
    pub const NEW_ELEMENT: u16 = 12;
    pub const DELETE_ELEMENT: u16 = 14;
}

/// Where a base chain hooks in (`NF_INET_…`).
#[derive(Clone, Copy)]
pub enum Hook {
    /// Packets that arrive, before routing.
    Prerouting = 0,
    /// Packets on their way through.
    Forward = 2,
    /// Packets of the host itself.
    Output = 3,
    /// Packets that leave.
    Postrouting = 4,
}

/// What a set's elements carry besides their key.
#[derive(Clone, Copy)]
pub enum SetData {
    /// Nothing.
    None,
    /// A value of this type.
    Value(DataType),
    /// What to do with the packet.
    Verdict,
}

/// A concatenation of fields. The kernel wants its length only; the `nft` program shows elements by the types.
#[derive(Clone, Copy)]
pub struct DataType {
    id: u32,
    length: u32,
}

/// A field of a concatenation, as the `nft` program numbers them.
#[derive(Clone, Copy)]
pub enum Field {
    /// Four bytes of address.
    Ipv4Address = 7,
    /// Sixteen bytes of address.
    Ipv6Address = 8,
    /// A transport protocol.
    Protocol = 12,
    /// A port.
    Service = 13,
    /// Name of a link.
    LinkName = 41,
}

impl DataType {
    /// The type of these fields, each padded to four bytes.
    pub fn of(fields: &[Field]) -> Self {
        const BITS: u32 = 6;
        let length = |field: &Field| match field {
            Field::Ipv4Address | Field::Protocol | Field::Service => 4,
            Field::Ipv6Address | Field::LinkName => 16,
        };
        Self {
            id: fields.iter().fold(0, |id, field| id << BITS | *field as u32),
            length: fields.iter().map(length).sum(),
        }
    }
}

/// The data of one element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementData {
    /// For [`SetData::None`].
    None,
    /// For [`SetData::Value`].
    Value(Vec<u8>),
    /// For [`SetData::Verdict`].
    Verdict(Verdict),
}

/// One element of a set or map of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// Which set.
    pub set: &'static str,
    /// Fields, each padded to four bytes.
    pub key: Vec<u8>,
    /// What it maps to.
    pub data: ElementData,
}

/// Changes to one `inet` table that become visible together.
pub struct Transaction<'a> {
    table: &'a str,
    messages: Vec<Message>,
    sets: u32,
    rules: usize,
}

impl<'a> Transaction<'a> {
    /// Starts an empty transaction on a table.
    pub fn new(table: &'a str) -> Self {
        Self { table, messages: Vec::new(), sets: 0, rules: 0 }
    }

    /// Adds the table; one that is there stays as it is.
    pub fn add_table(&mut self) {
        let message = self.message(kind::NEW_TABLE, CREATE).attr_be32(2, 0);
        self.messages.push(message);
    }

    /// Deletes the table with all that is in it; it must be there.
    pub fn delete_table(&mut self) {
        let message = self.message(kind::DELETE_TABLE, 0);
        self.messages.push(message);
    }

    /// Adds a chain that others jump to.
    pub fn add_chain(&mut self, name: &str) {
        let message = self.message(kind::NEW_CHAIN, CREATE).attr_str(3, name);
        self.messages.push(message);
    }

    /// Adds a chain that the kernel calls; `class` is `nat` or `filter`. Packets pass by default.
    pub fn add_base_chain(&mut self, name: &str, class: &str, hook: Hook, priority: i32) {
        let message = self
            .message(kind::NEW_CHAIN, CREATE)
            .attr_str(3, name)
            .nest(4, |nest| nest.attr_be32(1, hook as u32).attr_be32(2, priority.cast_unsigned()))
            .attr_be32(5, 1)
            .attr_str(7, class);
        self.messages.push(message);
    }

    /// Adds a set, or a map if it carries data.
    pub fn add_set(&mut self, name: &str, key: DataType, data: SetData) {
        self.sets += 1;
        let flags = if matches!(data, SetData::None) { 0 } else { SET_IS_MAP };
        let message = self
            .message(kind::NEW_SET, CREATE)
            .attr_str(2, name)
            .attr_be32(3, flags)
            .attr_be32(4, key.id)
            .attr_be32(5, key.length)
            .attr_be32(10, self.sets);
        self.messages.push(match data {
            SetData::None => message,
            SetData::Value(value) => message.attr_be32(6, value.id).attr_be32(7, value.length),
            SetData::Verdict => message.attr_be32(6, VERDICT_TYPE),
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression]) {
        let message = self.message(kind::NEW_RULE, CREATE | APPEND).attr_str(2, chain).nest(4, |list| {
            expressions
                .iter()
                .fold(list, |list, expression| list.nest(LIST_ELEMENT, |element| expression.write(element)))
        });
        self.messages.push(message);
        self.rules += 1;
    }

    /// Adds an element; the same one may be there already.
    pub fn add_element(&mut self, element: &Element) {
        self.element(kind::NEW_ELEMENT, CREATE, element);
    }

    /// Deletes an element; it must be there.
    pub fn delete_element(&mut self, element: &Element) {
        self.element(kind::DELETE_ELEMENT, 0, element);
    }

    fn element(&mut self, kind: u16, flags: u16, element: &Element) {
        let message = self.message(kind, flags).attr_str(2, element.set).nest(3, |list| {
            list.nest(LIST_ELEMENT, |item| {
                let item = item.nest(1, |key| key.attr(DATA_VALUE, &element.key));
                match &element.data {
                    ElementData::None => item,
                    ElementData::Value(value) => item.nest(2, |data| data.attr(DATA_VALUE, value)),
                    ElementData::Verdict(verdict) => item.nest(2, |data| verdict.write(data)),
                }
            })
        });
        self.messages.push(message);
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        Message::new(SUBSYSTEM << 8 | kind, flags | ACK).fixed(&[INET, 0, 0, 0]).attr_str(1, self.table)
    }

    /// How many rules it adds.
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// Hands the changes to the kernel.
    pub fn commit(self) -> io::Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let frame = |kind| Message::new(kind, 0).fixed(&[0, 0, (SUBSYSTEM >> 8) as u8, SUBSYSTEM as u8]);
        let mut batch = vec![frame(BATCH_BEGIN)];
        let last = self.messages.len() - 1;
        // A failure is told of each message, asked or not; acknowledgements of thousands would not fit into the socket.
        let quiet = |(n, message): (usize, Message)| if n == last { message } else { message.without_ack() };
        batch.extend(self.messages.into_iter().enumerate().map(quiet));
        batch.push(frame(BATCH_END));
        Socket::netfilter()?.batch(batch).map_err(|(_, error)| error)
    }
}

/// A socket that hears of every change of rules in the calling thread's network namespace.
pub fn listen() -> io::Result<OwnedFd> {
    const GROUP: u32 = 7; // NFNLGRP_NFTABLES
    Socket::listening(1 << (GROUP - 1))
}

/// Whether what such a socket has received tells that a table, a chain or a rule is gone, be it whose it may.
pub fn takes_away(datagram: &[u8]) -> bool {
    let gone = [kind::DELETE_TABLE, kind::DELETE_CHAIN, kind::DELETE_RULE].map(|kind| SUBSYSTEM << 8 | kind);
    split(datagram).any(|(kind, ..)| gone.contains(&kind))
}

/// How many rules there are in a table; none if it is not there.
pub fn rules_of(table: &str) -> io::Result<usize> {
    let dump = Message::new(SUBSYSTEM << 8 | kind::GET_RULE, DUMP).fixed(&[INET, 0, 0, 0]).attr_str(1, table);
    let rules = Socket::netfilter()?.dump(dump)?;
    let is_its = |body: &&Vec<u8>| {
        let named = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == 1);
        named.is_some_and(|(_, value)| read_str(value) == table)
    };
    Ok(rules.iter().filter(is_its).count())
}

/// Chains of anybody that drop forwarded packets unless a rule of theirs accepts them: `table chain`.
pub fn chains_that_drop_forwarded() -> io::Result<Vec<String>> {
    let everybody = [0u8; 4];
    let dump = Message::new(SUBSYSTEM << 8 | kind::GET_CHAIN, DUMP).fixed(&everybody);
    let chains = Socket::netfilter()?.dump(dump)?;
    Ok(chains.iter().filter_map(|body| dropping_chain(body.get(4..)?)).collect())
}

fn dropping_chain(body: &[u8]) -> Option<String> {
    let number = |value: &[u8]| value.try_into().map(u32::from_be_bytes).ok();
    let (mut table, mut name, mut hook, mut policy) = (String::new(), String::new(), None, None);
    for (kind, value) in attributes(body) {
        match kind {
            1 => table = read_str(value),
            3 => name = read_str(value),
            4 => hook = attributes(value).find(|(kind, _)| *kind == 1).and_then(|(_, value)| number(value)),
            5 => policy = number(value),
            _ => {}
        }
    }
    (hook == Some(Hook::Forward as u32) && policy == Some(0)).then(|| format!("{table} {name}"))
}
