//! Level 2: carries networks out with the kernel: bridges, veth pairs and network namespaces by rtnetlink, NAT and
//! isolation by nf_tables, names at 127.0.0.11 by [`crate::dns`]. No other program is started.
//!
//! What blocks (netlink, namespaces) runs on threads of its own, what waits (proxies, name servers) on the
//! runtime. The kernel's slow deletions go on in the background.

mod bridge;
mod datagram;
mod endpoint;
mod firewall;
mod links;
mod netlink;
mod netns;
mod nft;
mod ports;
mod proxy;
mod publication;
mod sandbox;
mod sysctl;
mod uplink;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use self::{firewall::Firewall, ports::Ports, sandbox::Sandbox};
use crate::{
    backend::network::{Keep, NetworkBackend, SandboxDns, Uplink},
    dns::SharedNames,
    model::{
        Error, Result,
        id::{ContainerId, NetworkId},
        network::{BridgeNetwork, Endpoint, NameTable, PortRequest, PublishedPort},
    },
};

/// The kernel of this machine, for one daemon instance.
pub struct LinuxNetwork {
    /// Starts the alias of every bridge that we made, so that a later life finds them and no others.
    mark: String,
    netns_dir: PathBuf,
    firewall: Arc<Mutex<Firewall>>,
    ports: Arc<Ports>,
    names: Arc<SharedNames>,
    sandboxes: Mutex<HashMap<ContainerId, Arc<Sandbox>>>,
    /// Deletions that nobody waits for.
    background: TaskTracker,
}

impl LinuxNetwork {
    /// Takes over what belongs to `instance` in the calling thread's network namespace: its table of rules is
    /// made anew. Namespaces are held below `exec_root`.
    pub async fn open(instance: &str, exec_root: &Path) -> Result<Self> {
        let firewall = Arc::new(Mutex::new(Firewall::new(format!("ringer-{instance}"))));
        let network = Self {
            mark: format!("ringer {instance} "),
            netns_dir: exec_root.join("netns"),
            firewall,
            ports: Arc::default(),
            names: Arc::default(),
            sandboxes: Mutex::default(),
            background: TaskTracker::new(),
        };
        network.with_firewall("installing nf_tables rules", |firewall| firewall.install()).await?;
        warn_of_others().await;
        Ok(network)
    }

    /// What stands on the bridge that we made for a network.
    fn note(&self, network: &BridgeNetwork) -> String {
        format!("{}network {}", self.mark, network.id)
    }

    fn sandbox(&self, container: &ContainerId) -> Option<Arc<Sandbox>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).get(container).cloned()
    }

    fn require_sandbox(&self, container: &ContainerId) -> Result<Arc<Sandbox>> {
        self.sandbox(container).ok_or_else(|| Error::system(format!("container {container} has no sandbox")))
    }

    fn netns_path(&self, container: &ContainerId) -> PathBuf {
        self.netns_dir.join(container.as_str())
    }

    async fn with_firewall(
        &self,
        doing: &str,
        work: impl FnOnce(&mut Firewall) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let firewall = self.firewall.clone();
        blocking(doing, move || work(&mut firewall.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Deletes a link whose name is free already. The kernel takes its time, nobody waits.
    fn delete_in_background(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.background.spawn(async move {
            if let Err(error) = netns::on_own_thread("link-deletion", work).await {
                tracing::warn!(%error, "deleting a link in the background: {error}");
            }
        });
    }
}

/// Nothing in our table can let through what another table drops (dockerd's or ufw's FORWARD policy, say).
async fn warn_of_others() {
    let chains = blocking("reading nf_tables chains", nft::chains_that_drop_forwarded).await.unwrap_or_default();
    for chain in chains {
        tracing::warn!(
            "chain {chain} of another program drops forwarded packets: containers reach the outside, and are reached \
             from it, only if a rule there accepts what comes from and goes to ringer's bridges"
        );
    }
}

/// Runs netlink work on a blocking thread in the daemon's own network namespace.
async fn blocking<T: Send + 'static>(doing: &str, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(doing, error)),
        Err(panicked) => Err(Error::system(format!("{doing} panicked")).with_source(panicked)),
    }
}

/// An I/O error with what was being done; the cause is part of the text that the client sees.
fn failed(doing: &str, error: io::Error) -> Error {
    Error::system(format!("{doing}: {error}")).with_source(error)
}

#[async_trait]
impl NetworkBackend for LinuxNetwork {
    async fn uplink(&self) -> Result<Uplink> {
        blocking("reading the default route", uplink::read).await
    }

    async fn used_subnets(&self) -> Result<Vec<ipnet::IpNet>> {
        let mark = self.mark.clone();
        blocking("reading routes", move || uplink::used_subnets(&mark)).await
    }

    async fn find_bridge(&self, link: &str) -> Result<Option<Vec<ipnet::IpNet>>> {
        let name = link.to_owned();
        match tokio::task::spawn_blocking(move || bridge::find(&name)).await {
            // dockerd says no more than this.
            Ok(found) => found.map_err(|error| Error::system(error.to_string())),
            Err(panicked) => Err(Error::system(format!("looking for bridge {link} panicked")).with_source(panicked)),
        }
    }

    async fn create_network(&self, network: &BridgeNetwork) -> Result<()> {
        let (wanted, note) = (network.clone(), self.note(network));
        blocking(&format!("making bridge {}", network.link), move || bridge::create(&wanted, &note)).await?;
        let rules = network.clone();
        let added = self.with_firewall("adding rules", move |firewall| firewall.add_network(&rules)).await;
        match added {
            Ok(()) => Ok(()),
            Err(error) => {
                // The first error is the one that tells; the sweep finds the bridge if this fails too.
                let _ = self.remove_network(network).await;
                Err(error)
            }
        }
    }

    async fn remove_network(&self, network: &BridgeNetwork) -> Result<()> {
        let link = network.link.clone();
        self.with_firewall("removing rules", move |firewall| firewall.remove_network(&link)).await?;
        let (wanted, note) = (network.clone(), self.note(network));
        let doing = format!("removing bridge {}", network.link);
        let retired = blocking(&doing, move || bridge::retire(&wanted, &note)).await?;
        if let Some(index) = retired {
            self.delete_in_background(move || links::Links::open()?.delete(index));
        }
        Ok(())
    }

    async fn create_sandbox(&self, container: &ContainerId, dns: Option<SandboxDns>) -> Result<PathBuf> {
        let path = self.netns_path(container);
        let sandbox = {
            let mut sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Sandbox::new(container, path.clone(), self.names.clone()));
            sandboxes.entry(container.clone()).or_insert_with(fresh).clone()
        };
        match sandbox.set_up(dns).await {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = self.remove_sandbox(container).await;
                Err(failed("making a network namespace", error))
            }
        }
    }

    async fn remove_sandbox(&self, container: &ContainerId) -> Result<()> {
        let sandbox = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
        if let Some(sandbox) = sandbox {
            let mappings = sandbox.tear_down().await;
            if !mappings.is_empty() {
                self.with_firewall("removing published ports", move |firewall| firewall.remove_mappings(&mappings))
                    .await?;
            }
        }
        let path = self.netns_path(container);
        blocking("removing a network namespace", move || netns::release(&path)).await
    }

    async fn attach(&self, container: &ContainerId, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
        let sandbox = self.require_sandbox(container)?;
        let (network_, endpoint_, path) = (network.clone(), endpoint.clone(), sandbox.path().to_owned());
        netns::on_own_thread("attach", move || endpoint::attach(&path, &network_, &endpoint_))
            .await
            .map_err(|error| failed(&format!("attaching {} to {}", endpoint.interface, network.link), error))?;
        sandbox.names().join(&network.id);
        Ok(())
    }

    async fn detach(&self, container: &ContainerId, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
        self.unpublish(container, &network.id).await?;
        let Some(sandbox) = self.sandbox(container) else { return Ok(()) };
        sandbox.names().leave(&network.id);
        let (path, endpoint_) = (sandbox.path().to_owned(), endpoint.clone());
        let retired = netns::on_own_thread("detach", move || endpoint::retire(&path, &endpoint_))
            .await
            .map_err(|error| failed(&format!("detaching {} from {}", endpoint.interface, network.link), error))?;
        if let Some(delete) = retired {
            self.delete_in_background(delete);
        }
        Ok(())
    }

    async fn publish(
        &self,
        container: &ContainerId,
        network: &BridgeNetwork,
        endpoint: &Endpoint,
        ports: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        let sandbox = self.require_sandbox(container)?;
        self.unpublish(container, &network.id).await?;
        let reservations = self.ports.reserve(ports, network.default_host_ip)?;
        let publication = publication::Publication::new(reservations, network.link.as_str().into(), endpoint);
        let mappings = publication.mappings().to_vec();
        self.with_firewall("publishing ports", move |firewall| firewall.add_mappings(&mappings)).await?;
        let mappings = publication.mappings().to_vec();
        match publication.serve() {
            Ok(publication) => {
                let published = publication.ports().to_vec();
                sandbox.publish(network.id.clone(), publication).await;
                Ok(published)
            }
            Err(error) => {
                let _ = self.with_firewall("", move |firewall| firewall.remove_mappings(&mappings)).await;
                Err(failed("starting the proxy of published ports", error))
            }
        }
    }

    async fn unpublish(&self, container: &ContainerId, network: &NetworkId) -> Result<()> {
        let Some(sandbox) = self.sandbox(container) else { return Ok(()) };
        let Some(publication) = sandbox.unpublish(network).await else { return Ok(()) };
        let mappings = publication.stop().await;
        self.with_firewall("removing published ports", move |firewall| firewall.remove_mappings(&mappings)).await
    }

    async fn publish_names(&self, names: NameTable) -> Result<()> {
        self.names.replace(names);
        Ok(())
    }

    async fn sweep(&self, keep: &Keep) -> Result<()> {
        let (keep_, mark, netns_dir) = (keep.clone(), self.mark.clone(), self.netns_dir.clone());
        blocking("sweeping", move || {
            let namespaces = sandbox::sweep(&netns_dir, &keep_);
            bridge::sweep(&mark, &keep_).and(namespaces)
        })
        .await
    }

    async fn shutdown(&self) -> Result<()> {
        self.background.close();
        self.background.wait().await;
        self.background.reopen();
        self.with_firewall("removing nf_tables rules", |firewall| firewall.uninstall_if_unused()).await
    }
}
