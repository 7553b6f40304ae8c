//! The building blocks of a rule.

use super::{DATA_VALUE, DATA_VERDICT};
use crate::network::netlink::Message;

/// Registers: where expressions leave values for the ones after them.
pub mod register {
    /// The packet's fate.
    pub const VERDICT: u32 = 0;
    /// The first of sixteen registers of four bytes; `FIRST + n` is the n-th after it.
    pub const FIRST: u32 = 8;
}

const REJECT_ICMPX: u32 = 2; // NFT_REJECT_ICMPX_UNREACH
const ICMPX_PROHIBITED: u8 = 3; // NFT_REJECT_ICMPX_ADMIN_PROHIBITED

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Gone.
    Drop,
    /// Through with this base chain.
    Accept,
    /// Back to the chain that jumped here.
    Return,
    /// On to another chain, and back after it.
    Jump(&'static str),
}

impl Verdict {
    pub(super) fn write(&self, data: Message) -> Message {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Return => (-5i32, None),
            Self::Jump(chain) => (-3, Some(*chain)),
        };
        data.nest(DATA_VERDICT, |verdict| {
            let verdict = verdict.attr_be32(1, code.cast_unsigned());
            match chain {
                Some(chain) => verdict.attr_str(2, chain),
                None => verdict,
            }
        })
    }
}

/// A packet's property that is not in its bytes (`NFT_META_…`).
#[derive(Clone, Copy, Debug)]
pub enum Meta {
    /// Name of the link it came in by, 16 bytes.
    InputName = 6,
    /// Name of the link it leaves by, 16 bytes.
    OutputName = 7,
    /// Its address family, one byte.
    Family = 15,
    /// Its transport protocol, one byte.
    Transport = 16,
}

/// One step of a rule.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Loads a property.
    Meta(Meta, u32),
    /// Loads bytes of the network header: offset, length, register.
    Network(u32, u32, u32),
    /// Loads bytes of the transport header: offset, length, register.
    Transport(u32, u32, u32),
    /// Loads the connection's state bits.
    ConnectionState(u32),
    /// Loads the connection's status bits.
    ConnectionStatus(u32),
    /// Loads the kind of the destination address (`RTN_…`).
    DestinationKind(u32),
    /// `register &= mask`.
    Mask(u32, Vec<u8>),
    /// Goes on if the register equals the value.
    Equal(u32, Vec<u8>),
    /// Goes on if the register differs from the value.
    NotEqual(u32, Vec<u8>),
    /// Goes on if the set has the key that starts in the register.
    In(&'static str, u32),
    /// Goes on if the set has not the key that starts in the register.
    NotIn(&'static str, u32),
    /// Goes on if the map has the key; leaves its value in the second register.
    Map(&'static str, u32, u32),
    /// Rewrites the destination: family, register of the address, register of the port.
    DestinationNat(u8, u32, u32),
    /// Rewrites the source to the address of the link it leaves by.
    Masquerade,
    /// Drops the packet and tells its sender that it is prohibited.
    Refuse,
    /// Decides.
    Decide(Verdict),
}

impl Expression {
    /// The values of this expression's properties.
    pub fn load_input_name(register: u32) -> Self {
        Self::Meta(Meta::InputName, register)
    }

    /// See [`Meta::OutputName`].
    pub fn load_output_name(register: u32) -> Self {
        Self::Meta(Meta::OutputName, register)
    }

    /// See [`Meta::Family`].
    pub fn load_family(register: u32) -> Self {
        Self::Meta(Meta::Family, register)
    }

    /// See [`Meta::Transport`].
    pub fn load_transport(register: u32) -> Self {
        Self::Meta(Meta::Transport, register)
    }

    /// Name and data of the expression, as a rule's list holds them.
    pub(super) fn write(&self, element: Message) -> Message {
        let (name, data) = self.parts();
        element.attr_str(1, name).nest(2, data)
    }

    #[allow(clippy::type_complexity, reason = "a name and how to write the rest")]
    fn parts(&self) -> (&'static str, Box<dyn FnOnce(Message) -> Message + '_>) {
        match self {
            Self::Meta(key, to) => ("meta", Box::new(|m| m.attr_be32(1, *to).attr_be32(2, *key as u32))),
            Self::Network(offset, length, to) => ("payload", Box::new(|m| payload(m, 1, *offset, *length, *to))),
            Self::Transport(offset, length, to) => ("payload", Box::new(|m| payload(m, 2, *offset, *length, *to))),
            Self::ConnectionState(to) => ("ct", Box::new(|m| m.attr_be32(1, *to).attr_be32(2, 0))),
            Self::ConnectionStatus(to) => ("ct", Box::new(|m| m.attr_be32(1, *to).attr_be32(2, 2))),
            Self::DestinationKind(to) => ("fib", Box::new(|m| m.attr_be32(1, *to).attr_be32(2, 3).attr_be32(3, 2))),
            Self::Mask(register, mask) => ("bitwise", Box::new(|m| bitwise(m, *register, mask))),
            Self::Equal(register, value) => ("cmp", Box::new(|m| compare(m, *register, 0, value))),
            Self::NotEqual(register, value) => ("cmp", Box::new(|m| compare(m, *register, 1, value))),
            Self::In(set, key) => ("lookup", Box::new(|m| m.attr_str(1, set).attr_be32(2, *key))),
            Self::NotIn(set, key) => ("lookup", Box::new(|m| m.attr_str(1, set).attr_be32(2, *key).attr_be32(5, 1))),
            Self::Map(set, key, to) => {
                ("lookup", Box::new(|m| m.attr_str(1, set).attr_be32(2, *key).attr_be32(3, *to)))
            }
            Self::DestinationNat(family, address, port) => {
                ("nat", Box::new(|m| destination_nat(m, *family, *address, *port)))
            }
            Self::Masquerade => ("masq", Box::new(|m| m)),
            Self::Refuse => ("reject", Box::new(|m| m.attr_be32(1, REJECT_ICMPX).attr(2, &[ICMPX_PROHIBITED]))),
            Self::Decide(verdict) => {
                ("immediate", Box::new(|m| m.attr_be32(1, register::VERDICT).nest(2, |data| verdict.write(data))))
            }
        }
    }
}

fn payload(message: Message, base: u32, offset: u32, length: u32, to: u32) -> Message {
    message.attr_be32(1, to).attr_be32(2, base).attr_be32(3, offset).attr_be32(4, length)
}

fn compare(message: Message, register: u32, operation: u32, value: &[u8]) -> Message {
    message.attr_be32(1, register).attr_be32(2, operation).nest(3, |data| data.attr(DATA_VALUE, value))
}

fn bitwise(message: Message, register: u32, mask: &[u8]) -> Message {
    let length = u32::try_from(mask.len()).expect("masks are a few bytes");
    message
        .attr_be32(1, register)
        .attr_be32(2, register)
        .attr_be32(3, length)
        .nest(4, |data| data.attr(DATA_VALUE, mask))
        .nest(5, |data| data.attr(DATA_VALUE, &vec![0; mask.len()]))
}

fn destination_nat(message: Message, family: u8, address: u32, port: u32) -> Message {
    const DESTINATION: u32 = 1;
    message.attr_be32(1, DESTINATION).attr_be32(2, u32::from(family)).attr_be32(3, address).attr_be32(5, port)
}
