//! The machine's name servers at its loopback (systemd-resolved, dnsmasq), as programs in the host of a job find them.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{netns::Namespace, sandbox::open_name_server};
use crate::dns::{Names, Server, Settings, Upstream};

const DNS_PORT: u16 = 53;

/// The relays of one host.
#[derive(Default)]
pub struct Relays(Mutex<BTreeMap<IpAddr, Server>>);

impl Relays {
    /// Answers in a job's host at the addresses that are not answered at yet. Where somebody else listens already there is
    /// none, as on the machine.
    pub async fn serve(&self, host: &Namespace, servers: &[IpAddr]) {
        if host.path().is_none() {
            return;
        }
        let mut running = self.0.lock().await;
        for server in servers.iter().filter(|server| server.is_loopback()) {
            if running.contains_key(server) {
                continue;
            }
            match start(host, SocketAddr::new(*server, DNS_PORT)).await {
                Ok(relay) => drop(running.insert(*server, relay)),
                Err(error) => {
                    tracing::warn!(%error, "answering for the name server {server} in the host of a job: {error}")
                }
            }
        }
    }

    /// Ends them and waits until their sockets are closed: they keep the namespace alive.
    pub async fn stop(&self) {
        for server in std::mem::take(&mut *self.0.lock().await).into_values() {
            server.stop().await;
        }
    }
}

async fn start(host: &Namespace, address: SocketAddr) -> io::Result<Server> {
    let (udp, tcp) = host.run("name-server", move || open_name_server(address)).await?;
    let upstream = Upstream { address, sockets: Arc::new(Namespace::Machine) };
    Server::start(udp, tcp, Arc::new(NoNames), Settings { upstreams: vec![upstream], keep_single_labels: false })
}

/// All questions are for the machine's server.
struct NoNames;

impl Names for NoNames {
    fn addresses(&self, _: &str) -> Option<Vec<IpAddr>> {
        None
    }

    fn name_of(&self, _: IpAddr) -> Option<String> {
        None
    }
}
