//! Brings the machine's rules back when somebody takes them away: `nft flush ruleset` stands in many a script and unit, and without
//! the walls a job reaches what it must not.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{firewall::Firewall, netlink, netns::Namespace, nft};

/// Between two looks at least, whatever a program does that takes them away again and again.
const PAUSE: Duration = Duration::from_millis(100);

/// Watches until it is dropped.
#[allow(dead_code, reason = "held for its drop")]
pub struct Keeper(AbortOnDropHandle<()>);

impl Keeper {
    /// Begins to watch over a table of the machine.
    pub async fn start(firewall: Arc<Mutex<Firewall>>) -> io::Result<Self> {
        let socket = Namespace::Machine.run("netlink", nft::listen).await?;
        // SAFETY: an owned descriptor stays open and the same until the AsyncFd that owns it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(AbortOnDropHandle::new(tokio::spawn(watch(socket, firewall)))))
    }
}

async fn watch(socket: AsyncFd<OwnedFd>, firewall: Arc<Mutex<Firewall>>) {
    loop {
        let look = |socket: &OwnedFd| netlink::receive_at_once(socket).map(|datagram| nft::takes_away(&datagram));
        match socket.async_io(Interest::READABLE, look).await {
            Ok(false) => continue,
            // More than the socket holds has happened.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return warn!(%error, "rules of nf_tables are not watched any more: {error}"),
            Ok(true) => {}
        }
        let firewall = firewall.clone();
        let repaired =
            Namespace::Machine.run("netlink", move || firewall.lock().unwrap_or_else(PoisonError::into_inner).repair());
        match repaired.await {
            Ok(false) => {}
            Ok(true) => warn!("somebody took away our rules of nf_tables: they are back, with the walls around jobs"),
            Err(error) => warn!(%error, "looking after our rules of nf_tables: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
