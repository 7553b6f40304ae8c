//! The name server inside each sandbox: answers for containers, relays the rest untouched.
//!
//! It works on sockets it is given (the `network` adapter opens them at 127.0.0.11:53 inside the sandbox) and
//! on a view of names it is given; it knows neither containers nor the kernel.

mod message;
mod names;
mod relay;
mod server;

use std::net::IpAddr;

pub use names::{SandboxNames, SharedNames};
pub use server::{Server, Settings};

/// What a name server knows by itself.
pub trait Names: Send + Sync + 'static {
    /// The addresses behind a name without trailing dot; `None` if it is not ours.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The full name behind an address; `None` if it is not ours.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}
