//! Sandboxes: a container's network namespace, the name server in it and the ports published from it.

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{
    firewall::Mapping,
    netns::{self, Namespace},
    publication::Publication,
};
use crate::{
    backend::network::{AskedFrom, Keep, SandboxDns},
    dns::{SandboxNames, Server, Settings, SharedNames, Upstream},
    model::id::{ContainerId, NetworkId},
};

const NAME_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

/// One container's sandbox.
pub struct Sandbox {
    path: PathBuf,
    names: Arc<SandboxNames>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    server: Option<Server>,
    publications: HashMap<NetworkId, Publication>,
}

/// Of datagrams and of streams.
pub type NameServerSockets = (UdpSocket, TcpListener);

impl Sandbox {
    /// A sandbox that is not yet in the kernel.
    pub fn new(container: &ContainerId, path: PathBuf, names: Arc<SharedNames>) -> Self {
        let names = Arc::new(SandboxNames::new(container.clone(), names));
        Self { path, names, running: Mutex::default() }
    }

    /// Where the namespace is held.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its name server knows.
    pub fn names(&self) -> &SandboxNames {
        &self.names
    }

    /// Makes the namespace and starts the name server in it, as far as they are not there yet. `host` is where name
    /// servers that the client chose are asked from.
    pub async fn set_up(&self, dns: Option<SandboxDns>, host: &Namespace) -> io::Result<()> {
        let mut running = self.running.lock().await;
        let (path, with_server) = (self.path.clone(), dns.is_some() && running.server.is_none());
        let sockets = netns::on_own_thread("sandbox", move || make(&path, with_server)).await?;
        if let (Some((udp, tcp)), Some(dns)) = (sockets, dns) {
            running.server = Some(Server::start(udp, tcp, self.names.clone(), settings(&dns, host))?);
        }
        Ok(())
    }

    /// Ends name server and proxies; their sockets would keep the namespace alive. The answer is what the
    /// firewall has to forget.
    pub async fn tear_down(&self) -> Vec<Mapping> {
        let Running { server, publications } = std::mem::take(&mut *self.running.lock().await);
        let mut mappings = Vec::new();
        for publication in publications.into_values() {
            mappings.extend(publication.stop().await);
        }
        if let Some(server) = server {
            server.stop().await;
        }
        mappings
    }

    /// Keeps the published ports of a network.
    pub async fn publish(&self, network: NetworkId, publication: Publication) {
        self.running.lock().await.publications.insert(network, publication);
    }

    /// Gives the published ports of a network back.
    pub async fn unpublish(&self, network: &NetworkId) -> Option<Publication> {
        self.running.lock().await.publications.remove(network)
    }
}

fn settings(dns: &SandboxDns, host: &Namespace) -> Settings {
    let upstreams = dns.upstreams.iter().map(|upstream| {
        let from = match upstream.from {
            AskedFrom::Machine => &Namespace::Machine,
            AskedFrom::Host => host,
        };
        Upstream { address: upstream.address, sockets: Arc::new(from.clone()) }
    });
    Settings { upstreams: upstreams.collect(), keep_single_labels: dns.keep_single_labels }
}

/// Runs on a thread of its own, which ends up in the namespace.
fn make(path: &Path, with_server: bool) -> io::Result<Option<NameServerSockets>> {
    netns::enter_or_create(path)?;
    with_server.then(|| open_name_server(SocketAddr::from(NAME_SERVER))).transpose()
}

/// The sockets of a name server, in the calling thread's network namespace.
pub fn open_name_server(address: SocketAddr) -> io::Result<NameServerSockets> {
    let sockets = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    sockets.0.set_nonblocking(true)?;
    sockets.1.set_nonblocking(true)?;
    Ok(sockets)
}

/// Lets go of the namespaces that are not to be kept.
pub fn sweep(directory: &Path, keep: &Keep) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut result = Ok(());
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !keep.containers.contains(&ContainerId::from_stored(name)) {
            result = result.and(netns::release(&entry.path()));
        }
    }
    result
}
