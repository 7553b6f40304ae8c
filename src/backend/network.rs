//! What the engine asks of the kernel's networking. It has decided on names and addresses before it calls.

pub mod contract;
pub mod fake;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;

use crate::model::{
    Result,
    id::{ContainerId, NetworkId, TenantId},
    network::{BridgeNetwork, Endpoint, NameTable, Opening, PortRequest, PublishedPort},
};

/// What is known of the way out of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Bytes; 1500 if there is no default route.
    pub mtu: u32,
    /// The host's first address on the uplink, if there is one.
    pub address: Option<IpAddr>,
}

/// Whose network namespace a name server is asked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedFrom {
    /// The machine's: its own resolver names the server, which may listen at the machine's loopback.
    Machine,
    /// That of the tenant's host: the client named the server, and reaches no more through us than by itself.
    Host,
}

/// A name server that is asked on behalf of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it is asked from.
    pub from: AskedFrom,
}

/// How a sandbox answers at 127.0.0.11:53.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxDns {
    /// Where questions go that no container of the sandbox's networks answers.
    pub upstreams: Vec<Upstream>,
    /// Names without a dot are not asked of the upstreams: the client chose `ndots` and tries its search
    /// domains first.
    pub keep_single_labels: bool,
}

/// What outlives a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Sandboxes of containers that still run.
    pub containers: BTreeSet<ContainerId>,
    /// Links of the bridges of networks that still exist.
    pub links: BTreeSet<String>,
}

/// Makes and removes the hosts of tenants. A host is the network namespace in which a tenant's bridges, published ports
/// and containers of `--network host` are: the machine for the default tenant, one of its own for a job.
#[async_trait]
pub trait NetworkHosts: Send + Sync + 'static {
    /// The machine.
    fn machine(&self) -> Arc<dyn NetworkBackend>;

    /// Says what jobs reach although the walls around them would refuse it.
    async fn open_to(&self, openings: BTreeSet<Opening>) -> Result<()>;

    /// Makes the host of a job, or takes up the one that an earlier life made. What is open already is answered again.
    async fn open(&self, tenant: &TenantId) -> Result<Arc<dyn NetworkBackend>>;

    /// Says what one job reaches beside that. Its host is open.
    async fn open_job_to(&self, tenant: &TenantId, openings: BTreeSet<Opening>) -> Result<()>;

    /// Drops a host with everything that is in it; also one that this life has not opened, and one that is gone.
    async fn remove(&self, tenant: &TenantId) -> Result<()>;

    /// Removes the hosts that an earlier life left, but those of `keep`.
    async fn sweep(&self, keep: &BTreeSet<TenantId>) -> Result<()>;

    /// Drops the hosts of all jobs and shuts the machine's networking down.
    async fn shutdown(&self) -> Result<()>;
}

/// Carries the networks of one host out: bridges, sandboxes (a network namespace per container), endpoints, published
/// ports and the name server inside each sandbox.
///
/// Every call is idempotent where it creates or removes: a daemon that was killed calls it again.
/// Nothing here waits for the kernel to delete a link.
#[async_trait]
pub trait NetworkBackend: Send + Sync + 'static {
    /// The network namespace of this host, for containers that live in it; `None` is the machine's own.
    fn namespace(&self) -> Option<PathBuf>;

    /// A runtime whose sockets belong to this host, for what the daemon fetches in the name of its tenant: that meets the walls
    /// around the host. `None` is the machine's own, which every runtime has. It ends with the host.
    async fn runtime(&self) -> Result<Option<tokio::runtime::Handle>>;

    /// Reads the way out of this host.
    async fn uplink(&self) -> Result<Uplink>;

    /// Subnets that the routes and links of host and machine already use, so that pools can avoid them.
    async fn used_subnets(&self) -> Result<Vec<ipnet::IpNet>>;

    /// The addresses of a bridge of that name, if somebody has made one. A link of another kind is an error in dockerd's
    /// words.
    async fn find_bridge(&self, link: &str) -> Result<Option<Vec<ipnet::IpNet>>>;

    /// Makes the bridge, its addresses and its rules. A bridge that somebody else has made is used as it is.
    async fn create_network(&self, network: &BridgeNetwork) -> Result<()>;

    /// Takes bridge and rules away; of a bridge that somebody else has made only the addresses that were put on it.
    async fn remove_network(&self, network: &BridgeNetwork) -> Result<()>;

    /// In the host of a job, answers at these loopback addresses what the machine's name servers at the same addresses
    /// answer: programs that live in the host are told to ask there. On the machine they are there already.
    async fn relay_names(&self, servers: &[IpAddr]) -> Result<()>;

    /// Makes the network namespace of a container with loopback up; with `dns`, its name server runs in it.
    /// Returns the path that the OCI spec names.
    async fn create_sandbox(&self, container: &ContainerId, dns: Option<SandboxDns>) -> Result<PathBuf>;

    /// Lets go of the network namespace, its endpoints, published ports and name server.
    async fn remove_sandbox(&self, container: &ContainerId) -> Result<()>;

    /// Wires a sandbox to a network: veth, addresses, routes. Called again for an endpoint that is there, it
    /// brings the default route to where `endpoint.default_route` says.
    async fn attach(&self, container: &ContainerId, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()>;

    /// Unwires it again.
    async fn detach(&self, container: &ContainerId, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()>;

    /// Publishes ports of an attached endpoint, all or none. The answer has a host port for every request,
    /// one entry per host address family. A port that is taken is an error in dockerd's words
    /// (`Bind for 0.0.0.0:80 failed: port is already allocated`), to which the engine adds whose it was to be.
    async fn publish(
        &self,
        container: &ContainerId,
        network: &BridgeNetwork,
        endpoint: &Endpoint,
        ports: &[PortRequest],
    ) -> Result<Vec<PublishedPort>>;

    /// Takes all published ports of a container's endpoint back.
    async fn unpublish(&self, container: &ContainerId, network: &NetworkId) -> Result<()>;

    /// Replaces the names that the sandboxes' name servers know. A sandbox is told the names of the networks
    /// it is attached to, and no others.
    async fn publish_names(&self, names: NameTable) -> Result<()>;

    /// Removes what this daemon instance left in the kernel in an earlier life, except what is to be kept.
    async fn sweep(&self, keep: &Keep) -> Result<()>;

    /// Waits for deletions that go on behind finished calls, and takes the rules away if no network needs them.
    async fn shutdown(&self) -> Result<()>;
}
