//! Who is at the other end of a request.

use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc};

/// Who asks.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct Peer {
    /// The process that connected.
    pub process: PeerProcess,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// The process that connected. Others may have the connection by now.
#[derive(Clone, Debug)]
pub enum PeerProcess {
    /// A descriptor of it (pidfd): a number would be another process's some time.
    Known(Arc<OwnedFd>),
    /// It had ended before we could hold it. Not the same as being outside: it may have sat in a container.
    Gone,
    /// Our pid namespace does not have it: it sits beside the container that we run in, not in one of ours.
    Outside,
}
