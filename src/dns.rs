//! The name server inside each sandbox: answers for containers, relays the rest untouched.
//!
//! It works on sockets it is given (the `network` adapter opens them at 127.0.0.11:53 inside the sandbox) and
//! on a view of names it is given; it knows neither containers nor the kernel.

mod message;
mod names;
mod relay;
mod server;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
pub use names::{SandboxNames, SharedNames};
pub use server::{Server, Settings};
use tokio::net::{TcpStream, UdpSocket};

/// Makes sockets in some network namespace.
#[async_trait]
pub trait Sockets: Send + Sync + 'static {
    /// A connection.
    async fn connect_tcp(&self, peer: SocketAddr) -> io::Result<TcpStream>;

    /// A socket at a port of its own that hears this peer only.
    async fn connect_udp(&self, peer: SocketAddr) -> io::Result<UdpSocket>;
}

/// Who is asked what our names do not answer.
#[derive(Clone)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is asked with.
    pub sockets: Arc<dyn Sockets>,
}

/// What a name server knows by itself.
pub trait Names: Send + Sync + 'static {
    /// The addresses behind a name without trailing dot; `None` if it is not ours.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The full name behind an address; `None` if it is not ours.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}
