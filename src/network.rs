//! Level 2: carries networks out with the kernel: bridges, veth pairs and network namespaces by rtnetlink, NAT and
//! isolation by nf_tables, names at 127.0.0.11 by [`crate::dns`]. No other program is started.
//!
//! A [`LinuxNetwork`] is one host: a network namespace that bridges, rules and published ports are in. [`LinuxHosts`] are
//! the machine's own and one for each job.
//!
//! What blocks (netlink, namespaces) runs on threads of its own, what waits (proxies, name servers) on the
//! runtime. The kernel's slow deletions go on in the background.

mod bridge;
mod datagram;
mod endpoint;
mod firewall;
mod hosts;
mod keeper;
mod links;
mod netlink;
mod netns;
mod nft;
mod outlet;
mod ports;
mod proxy;
mod publication;
mod relays;
mod sandbox;
mod sysctl;
mod uplink;
mod way_out;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

pub use self::hosts::{JobNetworks, LinuxHosts};
use self::{
    firewall::{Firewall, Walls},
    keeper::Keeper,
    netns::Namespace,
    outlet::Outlet,
    ports::{Ports, Reservation},
    relays::Relays,
    sandbox::Sandbox,
};
use crate::{
    backend::network::{Keep, NetworkBackend, SandboxDns, Uplink},
    dns::SharedNames,
    model::{
        Error, Result,
        id::{ContainerId, NetworkId},
        network::{BridgeNetwork, Endpoint, NameTable, PortRequest, Protocol, PublishedPort},
    },
};

/// How many numbers are tried for a port that is to be the same in a job and on the machine, and that may be any.
const NUMBERS: usize = 16;

/// One host of one daemon instance, as the kernel has it.
pub struct LinuxNetwork {
    namespace: Namespace,
    /// Starts the alias of every bridge that we made, so that a later life finds them and no others.
    mark: String,
    netns_dir: PathBuf,
    firewall: Arc<Mutex<Firewall>>,
    ports: Arc<Ports>,
    /// Of a job's host: the machine's ports, where some of its own may answer too.
    machine_ports: Option<Arc<Ports>>,
    names: Arc<SharedNames>,
    sandboxes: Mutex<HashMap<ContainerId, Arc<Sandbox>>>,
    relays: Relays,
    outlet: Outlet,
    /// Watches over the machine's rules.
    keeper: Option<Keeper>,
    /// Deletions that nobody waits for.
    background: TaskTracker,
}

impl LinuxNetwork {
    /// Takes over what belongs to `instance` on the machine, that is in the calling thread's network namespace: its
    /// table of rules is made anew. Namespaces of containers are held below `exec_root`.
    pub async fn open(instance: &str, exec_root: &Path) -> Result<Self> {
        Self::open_machine(instance, exec_root, None).await
    }

    async fn open_machine(instance: &str, exec_root: &Path, walls: Option<Walls>) -> Result<Self> {
        let mut network = Self::open_in(Namespace::Machine, instance, exec_root.join("netns"), walls, None).await?;
        let keeper = Keeper::start(network.firewall.clone()).await;
        network.keeper = Some(keeper.map_err(|error| failed("watching nf_tables rules", error))?);
        network.warn_of_others().await;
        Ok(network)
    }

    /// The same in a network namespace, with those of its containers held in `netns_dir`.
    async fn open_in(
        namespace: Namespace,
        instance: &str,
        netns_dir: PathBuf,
        walls: Option<Walls>,
        machine_ports: Option<Arc<Ports>>,
    ) -> Result<Self> {
        let firewall = Arc::new(Mutex::new(Firewall::new(format!("ringer-{instance}"), walls)));
        let network = Self {
            namespace,
            mark: format!("ringer {instance} "),
            netns_dir,
            firewall,
            ports: Arc::default(),
            machine_ports,
            names: Arc::default(),
            sandboxes: Mutex::default(),
            relays: Relays::default(),
            outlet: Outlet::default(),
            keeper: None,
            background: TaskTracker::new(),
        };
        network.with_firewall("installing nf_tables rules", |firewall| firewall.install()).await?;
        Ok(network)
    }

    /// Nothing in our table can let through what another table drops (dockerd's or ufw's FORWARD policy, say).
    async fn warn_of_others(&self) {
        let chains = self.blocking("reading nf_tables chains", nft::chains_that_drop_forwarded).await;
        for chain in chains.unwrap_or_default() {
            tracing::warn!(
                "chain {chain} of another program drops forwarded packets: containers reach the outside, and are \
                 reached from it, only if a rule there accepts what comes from and goes to ringer's bridges"
            );
        }
    }

    /// Ends what runs in the host: name servers and proxies, whose sockets would keep it.
    async fn close(&self) {
        let sandboxes = std::mem::take(&mut *self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner));
        for sandbox in sandboxes.into_values() {
            sandbox.tear_down().await;
        }
        self.relays.stop().await;
        self.outlet.close().await;
        self.background.close();
        self.background.wait().await;
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
        self.blocking(doing, move || work(&mut firewall.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Runs netlink work in the host's network namespace.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.namespace.run("netlink", work).await.map_err(|error| failed(doing, error))
    }

    /// Binds the sockets of published ports, in the host's network namespace.
    async fn reserve(&self, ports: &[PortRequest], default: Option<IpAddr>) -> Result<Vec<Reservation>> {
        reserve(&self.namespace, &self.ports, ports.to_vec(), default).await
    }

    /// Binds the sockets of published ports, and those on the machine of a job's ports that answer there too: the second ones are such.
    async fn reserve_all(
        &self,
        ports: &[PortRequest],
        default: Option<IpAddr>,
    ) -> Result<(Vec<Reservation>, Vec<Reservation>)> {
        // Nobody carries SCTP from one host to another.
        let is_here = |request: &PortRequest| request.machine.is_none() || request.port.protocol == Protocol::Sctp;
        let Some(of_machine) = &self.machine_ports else {
            return Ok((self.reserve(ports, default).await?, Vec::new()));
        };
        let (here, too): (Vec<PortRequest>, Vec<PortRequest>) = ports.iter().cloned().partition(is_here);
        let (mut reserved, mut on_machine) = (self.reserve(&here, default).await?, Vec::new());
        for request in too {
            let (of_job, there) = self.reserve_in_both(&request, default, of_machine).await?;
            reserved.extend(of_job);
            on_machine.extend(there);
        }
        Ok((reserved, on_machine))
    }

    /// One that has the same number in both: the first one that is free in both, of those that the client asked for.
    async fn reserve_in_both(
        &self,
        request: &PortRequest,
        default: Option<IpAddr>,
        of_machine: &Arc<Ports>,
    ) -> Result<(Vec<Reservation>, Vec<Reservation>)> {
        let numbers: Vec<Option<(u16, u16)>> = match request.host_ports {
            Some((first, last)) => (first..=last).map(|number| Some((number, number))).collect(),
            None => vec![None; NUMBERS],
        };
        let mut refusal = Error::system("all ports are allocated");
        for host_ports in numbers {
            let there = PortRequest { host_ip: request.machine, host_ports, ..request.clone() };
            let tried = async {
                let there = reserve(&Namespace::Machine, of_machine, vec![there], None).await?;
                let number = there.first().map(|port| (port.published.host_port, port.published.host_port));
                let here = PortRequest { host_ports: number, ..request.clone() };
                Ok((self.reserve(&[here], default).await?, there))
            };
            match tried.await {
                Ok(reserved) => return Ok(reserved),
                Err(refused) => refusal = refused,
            }
        }
        Err(refusal)
    }

    /// Deletes a link whose name is free already. The kernel takes its time, nobody waits.
    fn delete_in_background(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        let namespace = self.namespace.clone();
        self.background.spawn(async move {
            if let Err(error) = namespace.run_apart("link-deletion", work).await {
                tracing::warn!(%error, "deleting a link in the background: {error}");
            }
        });
    }
}

async fn reserve(
    namespace: &Namespace,
    book: &Arc<Ports>,
    ports: Vec<PortRequest>,
    default: Option<IpAddr>,
) -> Result<Vec<Reservation>> {
    let book = book.clone();
    let reserved = namespace.run("ports", move || Ok(book.reserve(&ports, default))).await;
    reserved.map_err(|error| failed("reserving ports", error))?
}

/// An I/O error with what was being done; the cause is part of the text that the client sees.
fn failed(doing: &str, error: io::Error) -> Error {
    Error::system(format!("{doing}: {error}")).with_source(error)
}

#[async_trait]
impl NetworkBackend for LinuxNetwork {
    fn namespace(&self) -> Option<PathBuf> {
        self.namespace.path().map(Path::to_owned)
    }

    async fn runtime(&self) -> Result<Option<tokio::runtime::Handle>> {
        self.outlet.runtime(&self.namespace).await.map_err(|error| failed("starting the outlet of a job", error))
    }

    async fn uplink(&self) -> Result<Uplink> {
        self.blocking("reading the default route", uplink::read).await
    }

    async fn used_subnets(&self) -> Result<Vec<ipnet::IpNet>> {
        let read = |mark: String| move || uplink::used_subnets(&mark);
        let mut used = self.blocking("reading routes", read(self.mark.clone())).await?;
        if self.namespace.path().is_some() {
            let of_machine = Namespace::Machine.run("netlink", read(self.mark.clone())).await;
            used.extend(of_machine.map_err(|error| failed("reading the machine's routes", error))?);
        }
        Ok(used)
    }

    async fn find_bridge(&self, link: &str) -> Result<Option<Vec<ipnet::IpNet>>> {
        let name = link.to_owned();
        let found = self.namespace.run("netlink", move || bridge::find(&name)).await;
        // dockerd says no more than this.
        found.map_err(|error| Error::system(error.to_string()))
    }

    async fn create_network(&self, network: &BridgeNetwork) -> Result<()> {
        let (wanted, mark, note) = (network.clone(), self.mark.clone(), self.note(network));
        let doing = format!("making bridge {}", network.link);
        self.blocking(&doing, move || bridge::create(&wanted, &mark, &note)).await?;
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
        let retired = self.blocking(&doing, move || bridge::retire(&wanted, &note)).await?;
        if let Some(index) = retired {
            self.delete_in_background(move || links::Links::open()?.delete(index));
        }
        Ok(())
    }

    async fn relay_names(&self, servers: &[IpAddr]) -> Result<()> {
        self.relays.serve(&self.namespace, servers).await;
        Ok(())
    }

    async fn create_sandbox(&self, container: &ContainerId, dns: Option<SandboxDns>) -> Result<PathBuf> {
        let path = self.netns_path(container);
        let sandbox = {
            let mut sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Sandbox::new(container, path.clone(), self.names.clone()));
            sandboxes.entry(container.clone()).or_insert_with(fresh).clone()
        };
        match sandbox.set_up(dns, &self.namespace).await {
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
        self.blocking("removing a network namespace", move || netns::release(&path)).await
    }

    async fn attach(&self, container: &ContainerId, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
        let sandbox = self.require_sandbox(container)?;
        let (network_, endpoint_, path) = (network.clone(), endpoint.clone(), sandbox.path().to_owned());
        self.namespace
            .run_apart("attach", move || endpoint::attach(&path, &network_, &endpoint_))
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
        let retired = self
            .namespace
            .run_apart("detach", move || endpoint::retire(&path, &endpoint_))
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
        let (reservations, on_machine) = self.reserve_all(ports, network.default_host_ip).await?;
        let link = network.link.as_str().into();
        let publication = publication::Publication::new(reservations, on_machine, link, endpoint);
        let mappings = publication.mappings().to_vec();
        self.with_firewall("publishing ports", move |firewall| firewall.add_mappings(&mappings)).await?;
        let mappings = publication.mappings().to_vec();
        match publication.serve(&self.namespace) {
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
        self.blocking("sweeping", move || {
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
