//! A network in memory, for the engine's tests. It keeps what was asked of it and fails where it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{Keep, NetworkBackend, NetworkHosts, SandboxDns, Uplink};
use crate::model::{
    Error, Result,
    id::{ContainerId, NetworkId, TenantId},
    network::{BridgeNetwork, Endpoint, NameTable, Opening, Port, PortRequest, PublishedPort},
};

/// Hosts in memory: the machine's network and one for each job that is open.
#[derive(Clone, Default)]
pub struct FakeHosts {
    machine: Arc<FakeNetwork>,
    jobs: Arc<Mutex<BTreeMap<TenantId, Arc<FakeNetwork>>>>,
}

impl FakeHosts {
    /// What the default tenant's networks are made of.
    pub fn of_machine(&self) -> Arc<FakeNetwork> {
        self.machine.clone()
    }

    /// What a job's networks are made of, while its host is there.
    pub fn of_job(&self, tenant: &TenantId) -> Option<Arc<FakeNetwork>> {
        self.lock().get(tenant).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Arc<FakeNetwork>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NetworkHosts for FakeHosts {
    fn machine(&self) -> Arc<dyn NetworkBackend> {
        self.machine.clone()
    }

    async fn open_to(&self, openings: BTreeSet<Opening>) -> Result<()> {
        self.machine.enter("open_to")?.openings = openings;
        Ok(())
    }

    async fn open(&self, tenant: &TenantId) -> Result<Arc<dyn NetworkBackend>> {
        drop(self.machine.enter("open_host")?);
        Ok(self.lock().entry(tenant.clone()).or_insert_with(|| Arc::new(FakeNetwork::of_job(tenant))).clone())
    }

    async fn open_job_to(&self, tenant: &TenantId, openings: BTreeSet<Opening>) -> Result<()> {
        let job = self.of_job(tenant).ok_or_else(|| Error::no_such_tenant(tenant))?;
        job.enter("open_job_to")?.openings = openings;
        Ok(())
    }

    async fn remove(&self, tenant: &TenantId) -> Result<()> {
        drop(self.machine.enter("remove_host")?);
        self.lock().remove(tenant);
        Ok(())
    }

    async fn sweep(&self, keep: &BTreeSet<TenantId>) -> Result<()> {
        drop(self.machine.enter("sweep_hosts")?);
        self.lock().retain(|tenant, _| keep.contains(tenant));
        Ok(())
    }

    async fn shutdown(&self) -> Result<()> {
        self.lock().clear();
        self.machine.shutdown().await
    }
}

/// The network in memory.
#[derive(Default)]
pub struct FakeNetwork {
    namespace: Option<PathBuf>,
    state: Mutex<State>,
}

/// What the fake holds; tests look at it through [`FakeNetwork::state`].
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Networks by link.
    pub networks: BTreeMap<String, BridgeNetwork>,
    /// Sandboxes and their endpoints.
    pub sandboxes: BTreeMap<ContainerId, BTreeMap<NetworkId, Endpoint>>,
    /// Published ports by container and network.
    pub published: BTreeMap<(ContainerId, NetworkId), Vec<PublishedPort>>,
    /// The names last published.
    pub names: NameTable,
    /// Links of the host: bridges with their addresses, `None` for another kind.
    pub links: BTreeMap<String, Option<Vec<ipnet::IpNet>>>,
    /// What the host uses already.
    pub used_subnets: Vec<ipnet::IpNet>,
    /// Name servers of the machine that are answered for here.
    pub relayed: BTreeSet<IpAddr>,
    /// What the walls around jobs are open to.
    pub openings: BTreeSet<Opening>,
    failing: BTreeSet<&'static str>,
    next_port: u16,
}

impl FakeNetwork {
    fn of_job(tenant: &TenantId) -> Self {
        Self { namespace: Some(PathBuf::from("/run/fake/hosts").join(tenant.as_str())), state: Mutex::default() }
    }

    /// Makes every call of this method fail until [`FakeNetwork::recover`].
    pub fn fail(&self, method: &'static str) {
        self.lock().failing.insert(method);
    }

    /// Ends all failures.
    pub fn recover(&self) {
        self.lock().failing.clear();
    }

    /// Says what the host's routes use.
    pub fn use_subnets(&self, subnets: &[&str]) {
        self.lock().used_subnets = subnets.iter().map(|net| net.parse().expect("a subnet")).collect();
    }

    /// Gives the host a link: a bridge with these addresses, or another kind.
    pub fn add_link(&self, name: &str, bridge: Option<&[&str]>) {
        let addresses = bridge.map(|nets| nets.iter().map(|net| net.parse().expect("an address")).collect());
        self.lock().links.insert(name.to_owned(), addresses);
    }

    /// A copy of what it holds.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, method: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.failing.contains(method) {
            return Err(Error::system(format!("{method} was told to fail")));
        }
        Ok(state)
    }
}

impl State {
    fn sandbox(&mut self, container: &ContainerId) -> Result<&mut BTreeMap<NetworkId, Endpoint>> {
        self.sandboxes.get_mut(container).ok_or_else(|| Error::system(format!("container {container} has no sandbox")))
    }

    fn take_port(&mut self, request: &PortRequest, default: Option<std::net::IpAddr>) -> Result<PublishedPort> {
        let host_ip = request.host_ip.or(default).unwrap_or_else(|| std::net::Ipv4Addr::UNSPECIFIED.into());
        let (first, last) = request.host_ports.unwrap_or((32768 + self.next_port, 60999));
        let free = (first..=last).find(|number| !self.is_taken(request.port, *number));
        let Some(host_port) = free else {
            return Err(Error::system(format!("Bind for {host_ip}:{first} failed: port is already allocated")));
        };
        self.next_port += u16::from(request.host_ports.is_none());
        Ok(PublishedPort { port: request.port, host_ip, host_port })
    }

    fn is_taken(&self, port: Port, number: u16) -> bool {
        self.published.values().flatten().any(|taken| taken.port.protocol == port.protocol && taken.host_port == number)
    }
}

#[async_trait]
impl NetworkBackend for FakeNetwork {
    fn namespace(&self) -> Option<PathBuf> {
        self.namespace.clone()
    }

    async fn runtime(&self) -> Result<Option<tokio::runtime::Handle>> {
        drop(self.enter("runtime")?);
        // All sockets are this process's, but what is asked from a job's host is told from what is asked from the machine.
        Ok(self.namespace.as_ref().map(|_| tokio::runtime::Handle::current()))
    }

    async fn uplink(&self) -> Result<Uplink> {
        drop(self.enter("uplink")?);
        Ok(Uplink { mtu: 1400, address: Some([192, 0, 2, 2].into()) })
    }

    async fn used_subnets(&self) -> Result<Vec<ipnet::IpNet>> {
        Ok(self.enter("used_subnets")?.used_subnets.clone())
    }

    async fn find_bridge(&self, link: &str) -> Result<Option<Vec<ipnet::IpNet>>> {
        let state = self.enter("find_bridge")?;
        if let Some(network) = state.networks.get(link) {
            let addresses = [network.ipv4.map(ipnet::IpNet::V4), network.ipv6.map(ipnet::IpNet::V6)];
            return Ok(Some(addresses.into_iter().flatten().collect()));
        }
        match state.links.get(link) {
            Some(Some(addresses)) => Ok(Some(addresses.clone())),
            Some(None) => Err(Error::system(format!("existing interface {link} is not a bridge"))),
            None => Ok(None),
        }
    }

    async fn create_network(&self, network: &BridgeNetwork) -> Result<()> {
        self.enter("create_network")?.networks.insert(network.link.clone(), network.clone());
        Ok(())
    }

    async fn remove_network(&self, network: &BridgeNetwork) -> Result<()> {
        self.enter("remove_network")?.networks.remove(&network.link);
        Ok(())
    }

    async fn relay_names(&self, servers: &[IpAddr]) -> Result<()> {
        self.enter("relay_names")?.relayed.extend(servers);
        Ok(())
    }

    async fn create_sandbox(&self, container: &ContainerId, _: Option<SandboxDns>) -> Result<PathBuf> {
        self.enter("create_sandbox")?.sandboxes.entry(container.clone()).or_default();
        Ok(PathBuf::from("/run/fake/netns").join(container.as_str()))
    }

    async fn remove_sandbox(&self, container: &ContainerId) -> Result<()> {
        let mut state = self.enter("remove_sandbox")?;
        state.sandboxes.remove(container);
        state.published.retain(|(owner, _), _| owner != container);
        Ok(())
    }

    async fn attach(&self, container: &ContainerId, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
        let mut state = self.enter("attach")?;
        if !state.networks.contains_key(&network.link) {
            return Err(Error::system(format!("no link {}", network.link)));
        }
        state.sandbox(container)?.insert(network.id.clone(), endpoint.clone());
        Ok(())
    }

    async fn detach(&self, container: &ContainerId, network: &BridgeNetwork, _: &Endpoint) -> Result<()> {
        let mut state = self.enter("detach")?;
        state.published.remove(&(container.clone(), network.id.clone()));
        if let Some(endpoints) = state.sandboxes.get_mut(container) {
            endpoints.remove(&network.id);
        }
        Ok(())
    }

    async fn publish(
        &self,
        container: &ContainerId,
        network: &BridgeNetwork,
        _: &Endpoint,
        ports: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        let mut state = self.enter("publish")?;
        state.sandbox(container)?;
        let key = (container.clone(), network.id.clone());
        state.published.remove(&key);
        for request in ports {
            match state.take_port(request, network.default_host_ip) {
                Ok(port) => state.published.entry(key.clone()).or_default().push(port),
                Err(error) => {
                    state.published.remove(&key);
                    return Err(error);
                }
            }
        }
        Ok(state.published.get(&key).cloned().unwrap_or_default())
    }

    async fn unpublish(&self, container: &ContainerId, network: &NetworkId) -> Result<()> {
        self.enter("unpublish")?.published.remove(&(container.clone(), network.clone()));
        Ok(())
    }

    async fn publish_names(&self, names: NameTable) -> Result<()> {
        self.enter("publish_names")?.names = names;
        Ok(())
    }

    async fn sweep(&self, keep: &Keep) -> Result<()> {
        let mut state = self.enter("sweep")?;
        state.sandboxes.retain(|container, _| keep.containers.contains(container));
        state.networks.retain(|link, _| keep.links.contains(link));
        Ok(())
    }

    async fn shutdown(&self) -> Result<()> {
        self.enter("shutdown").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::network::contract;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        contract::all(&FakeNetwork::default()).await;
        contract::hosts(&FakeHosts::default()).await;
    }
}
