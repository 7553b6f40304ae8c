//! Netlink as far as this adapter needs it: building messages, sending them, reading acknowledgements and dumps.
//!
//! It is built here and not by `netlink-packet-core`, since most of what is sent is nf_tables' ([`super::nft`]), for which there are no
//! packets in that family of crates; with the builder there, the dozen messages of [`super::links`] are shorter than their types would be.
//!
//! Blocking on purpose. The kernel answers in microseconds, and a socket belongs to the network namespace of the
//! thread that opened it, so callers run on threads of their own (see `netns`).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
    sockopt::Timeout,
};

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: the kernel answers with an error code, 0 for success.
pub const ACK: u16 = 0x4;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;
/// `NLM_F_DUMP`: all objects.
pub const DUMP: u16 = 0x300;

const HEADER: usize = 16;
/// Bytes of a socket's buffers; the kernel takes twice as much, for what it keeps beside them.
const BUFFER: usize = 1 << 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// One message under construction.
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts a message of a kind; `REQUEST` is implied.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self { bytes }
    }

    /// Appends the fixed header of the message's family (`ifinfomsg`, `rtmsg`, `nfgenmsg` …).
    #[must_use]
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    #[must_use]
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    /// Appends a number in the machine's byte order, as rtnetlink wants it.
    #[must_use]
    pub fn attr_u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a number in network byte order, as nf_tables wants it.
    #[must_use]
    pub fn attr_be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a string with its terminating zero.
    #[must_use]
    pub fn attr_str(mut self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
        self
    }

    /// Appends an attribute that `fill` fills with more attributes.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.put(kind | NESTED, &[]);
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).expect("attributes of ours are far below 64 KiB");
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes of ours are far below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The same, of which only a failure is told.
    #[must_use]
    pub fn without_ack(mut self) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) & !ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// Whether the kernel was asked to acknowledge this message.
    fn wants_ack(&self) -> bool {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) & ACK != 0
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("messages of ours are small");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// The attributes in `bytes`, as kind and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A number in the machine's byte order; 0 if the attribute is too short.
pub fn read_u32(value: &[u8]) -> u32 {
    value.get(..4).map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
}

/// A string without its terminating zero.
pub fn read_str(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// A connection to one of the kernel's netlink families, in the network namespace of the opening thread.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Links, addresses, routes.
    pub fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// nf_tables.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        Self::open_in(protocol, 0)
    }

    /// One that hears what happens in groups, a bit each, of netfilter.
    pub fn listening(groups: u32) -> io::Result<OwnedFd> {
        Self::open_in(Some(netlink::NETFILTER), groups).map(|socket| socket.fd)
    }

    fn open_in(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        // A refusal only limits how much is dumped at once.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&fd, BUFFER);
        // The kernel answers at once; a limit keeps a thread from waiting for an answer that was dropped.
        rustix::net::sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(Duration::from_secs(10)))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends one message and waits for the kernel's word on it.
    pub fn request(&mut self, message: Message) -> io::Result<()> {
        self.batch(vec![message]).map_err(|(_, error)| error)
    }

    /// Sends messages in one go and waits for all acknowledgements. The error is the first one, with the
    /// position of the message it belongs to.
    pub fn batch(&mut self, messages: Vec<Message>) -> Result<(), (usize, io::Error)> {
        let first = self.sequence.wrapping_add(1);
        let mut waiting = 0usize;
        let mut bytes = Vec::new();
        for message in messages {
            waiting += usize::from(message.wants_ack());
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(message.finish(self.sequence));
        }
        // A transaction is one datagram, however large. A refusal only limits its size.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len().max(BUFFER));
        self.send(&bytes).map_err(|error| (0, error))?;
        self.collect_acks(first, waiting)
    }

    fn collect_acks(&mut self, first: u32, mut waiting: usize) -> Result<(), (usize, io::Error)> {
        let mut failed = None;
        while waiting > 0 {
            let datagram = self.receive().map_err(|error| (0, error))?;
            for (kind, sequence, body) in split(&datagram) {
                let position = sequence.wrapping_sub(first);
                if kind != ERROR || position > u32::MAX / 2 {
                    continue;
                }
                waiting -= 1;
                let code = read_u32(body).cast_signed();
                if code != 0 && failed.is_none() {
                    failed = Some((position as usize, io::Error::from_raw_os_error(-code)));
                }
                // An aborted transaction does not acknowledge what followed the failure in every kernel.
                if waiting == 0 || (failed.is_some() && !self.more()) {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn more(&self) -> bool {
        let mut byte = [0u8; 1];
        rustix::net::recv(&self.fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok()
    }

    /// Asks for all objects of a kind; each answer is the body after the netlink header.
    pub fn dump(&mut self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        self.send(&bytes)?;
        let mut found = Vec::new();
        loop {
            let datagram = self.receive()?;
            for (kind, sequence, body) in split(&datagram) {
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    DONE => return Ok(found),
                    ERROR => match read_u32(body).cast_signed() {
                        0 => return Ok(found),
                        code => return Err(io::Error::from_raw_os_error(-code)),
                    },
                    _ => found.push(body.to_vec()),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        receive(self.fd.as_fd(), RecvFlags::empty())
    }
}

/// What has come; `WouldBlock` if nothing has.
pub fn receive_at_once(socket: impl AsFd) -> io::Result<Vec<u8>> {
    receive(socket.as_fd(), RecvFlags::DONTWAIT)
}

fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 64 * 1024];
    let (length, _) = rustix::net::recv(socket, &mut buffer[..], flags)?;
    buffer.truncate(length);
    Ok(buffer)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The messages of one datagram: kind, sequence, body.
pub fn split(datagram: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.get(..HEADER)?;
        let length = read_u32(header) as usize;
        let body = rest.get(HEADER..length)?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = read_u32(&header[8..]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_carry_their_length() {
        let message = Message::new(1, 0).nest(2, |inner| inner.attr_str(3, "ab").attr_u32(4, 5));
        let bytes = message.finish(9);
        let outer: Vec<_> = attributes(&bytes[HEADER..]).collect();
        assert_eq!(outer.len(), 1);
        assert_eq!(outer[0].0, 2);
        let inner: Vec<_> = attributes(outer[0].1).collect();
        assert_eq!(inner, vec![(3, &b"ab\0"[..]), (4, &5u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn cut_attributes_end_the_walk() {
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
    }
}
