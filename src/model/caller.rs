//! Who is at the other end of a request.

use std::net::SocketAddr;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The daemon itself: health checks, restart policy, what it takes up at start.
    Daemon,
    /// A process on this machine, through a unix socket.
    Process(Peer),
    /// Somebody at an address, for whom nobody vouches.
    Remote(SocketAddr),
}

impl Caller {
    /// The process, if it is one of this machine.
    pub fn process(&self) -> Option<&Peer> {
        match self {
            Self::Process(peer) => Some(peer),
            Self::Daemon | Self::Remote(_) => None,
        }
    }
}

/// Who is at the other end of a unix connection, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process number in our pid namespace; `None` if it is in another one.
    pub pid: Option<i32>,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}
