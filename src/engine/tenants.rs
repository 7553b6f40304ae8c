//! Who asks: the tenant behind a socket, what it has of its own, and the scope that every verb takes first.
//!
//! Records, labels and backends know a tenant by its id alone; what is decided needs the [`Scope`].

mod surroundings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OnceCell, Semaphore};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    backend::network::NetworkBackend,
    engine::{Engine, quota::Quota},
    model::{
        Error, Result,
        caller::Caller,
        id::TenantId,
        job::Surroundings,
        policy::{Key, Policy},
        reference::Reference,
        registry_auth::{Logins, RegistryAuth},
    },
    policy::{self, Asked},
    registry::Registry,
};

/// How many layers are fetched at once, by all pulls of a tenant together; dockerd's number.
const DOWNLOADS: usize = 3;

/// What a builder beside the engine does by itself, unseen by us: who may not do all of it cannot have one.
const ITS_OWN: [Key; 2] = [Key::Registries, Key::Pull];

/// Bytes of layers that pulls needed.
#[derive(Debug, Default)]
pub struct Traffic {
    pulled: AtomicU64,
    shared: AtomicU64,
}

impl Traffic {
    /// So many more were fetched.
    pub(crate) fn pull(&self, bytes: u64) {
        self.pulled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more were here.
    pub(crate) fn share(&self, bytes: u64) {
        self.shared.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Those that were fetched.
    pub fn pulled(&self) -> u64 {
        self.pulled.load(Ordering::Relaxed)
    }

    /// Those that were here already.
    pub fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }
}

/// Where a tenant's networks live.
#[derive(Clone)]
pub struct Host {
    /// The tenant for whom it was made; others may have been let in.
    pub of: TenantId,
    /// What carries its networks out.
    pub network: Arc<dyn NetworkBackend>,
}

/// One tenant: everything that is its alone and lies in no record.
pub struct Tenant {
    id: TenantId,
    host: Host,
    /// Whether nothing of it is in its host any more.
    has_left: AtomicBool,
    socket: OnceLock<PathBuf>,
    surroundings: Surroundings,
    policy: OnceLock<Arc<Policy>>,
    /// Credentials of registries, by their host, for what its clients fetch without any.
    logins: OnceLock<Logins>,
    /// Registries that its operator has named.
    named: OnceLock<BTreeSet<String>>,
    /// What keeps its limit of the disk, if something does.
    quota: OnceLock<Arc<Quota>>,
    /// What asks registries in its name, once something has.
    registry: OnceCell<Arc<Registry>>,
    /// Layers that are fetched at once in its name: whoever pulls from a slow registry holds up nobody else.
    downloads: Arc<Semaphore>,
    traffic: Traffic,
    closed: CancellationToken,
    /// What goes on in its name: scopes that are held, and what follows on its verbs.
    work: TaskTracker,
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Tenant {
    fn new(id: TenantId, host: Host, surroundings: Surroundings) -> Self {
        let work = TaskTracker::new();
        // Open or closed is said by `closed`: the tracker only counts.
        work.close();
        let (socket, policy, logins) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (named, registry, downloads) = (OnceLock::new(), OnceCell::new(), Arc::new(Semaphore::new(DOWNLOADS)));
        let (traffic, closed) = (Traffic::default(), CancellationToken::new());
        let (has_left, quota) = (AtomicBool::new(false), OnceLock::new());
        Self {
            id,
            host,
            has_left,
            socket,
            policy,
            logins,
            named,
            quota,
            registry,
            downloads,
            traffic,
            surroundings,
            closed,
            work,
        }
    }

    /// What records, labels and backends call it.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// The host in which its networks live.
    pub fn network(&self) -> &Arc<dyn NetworkBackend> {
        &self.host.network
    }

    /// The tenant for whom that host was made.
    pub(crate) fn host_of(&self) -> &TenantId {
        &self.host.of
    }

    /// What all its containers find around them.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// The unix socket through which its clients come, if there is one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.get().map(PathBuf::as_path)
    }

    /// Says which socket that is; the first time counts.
    pub fn listens_at(&self, socket: PathBuf) {
        let _first_one_counts = self.socket.set(socket);
    }

    /// What its clients may do: what dockerd lets everybody do, unless somebody said otherwise.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.get().cloned().unwrap_or_else(policy::trusted)
    }

    /// Says what its clients may do; the first time counts.
    pub fn obeys(&self, policy: Arc<Policy>) {
        let _first_one_counts = self.policy.set(policy);
    }

    /// Gives it credentials for what its clients fetch without any; the first time counts.
    pub fn has_logins(&self, logins: Logins) {
        let _first_one_counts = self.logins.set(logins);
    }

    /// What its pulls needed.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Says which registries, `host[:port]`, its operator has named; the first time counts.
    pub fn has_registries(&self, named: BTreeSet<String>) {
        let _first_one_counts = self.named.set(named);
    }

    /// Registries that its operator has named.
    pub(crate) fn named_registries(&self) -> BTreeSet<String> {
        self.named.get().cloned().unwrap_or_default()
    }

    /// Says what keeps its limit of the disk; the first time counts.
    pub(crate) fn has_quota(&self, quota: Arc<Quota>) {
        let _first_one_counts = self.quota.set(quota);
    }

    /// What keeps its limit of the disk, if something does.
    pub(crate) fn quota(&self) -> Option<Arc<Quota>> {
        self.quota.get().cloned()
    }

    /// Where what asks registries in its name is kept.
    pub(crate) fn registry(&self) -> &OnceCell<Arc<Registry>> {
        &self.registry
    }

    /// Held while a layer is fetched in its name.
    pub(crate) fn downloads(&self) -> &Arc<Semaphore> {
        &self.downloads
    }

    /// The one place where it is judged what a client asks. 403 if the policy does not allow it.
    pub fn permit(&self, asked: Asked<'_>) -> Result<()> {
        policy::check(&self.policy(), asked)
    }

    /// Lets `caller` ask in its name. Nobody is let in any more once it is closed.
    pub fn admit(self: &Arc<Self>, caller: Caller) -> Result<Scope> {
        let scope = Scope::new(self.clone(), caller);
        // Counted first: who closes it either sees this scope or is seen here.
        if self.closed.is_cancelled() { Err(Error::no_such_tenant(&self.id)) } else { Ok(scope) }
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Counts work that goes on in its name after the verb has answered.
    pub(crate) fn track<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.work.track_future(work)
    }

    /// Waits until nothing goes on in its name; `false` if after `limit` something still does.
    pub(crate) async fn unused(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.work.wait()).await.is_ok()
    }
}

/// Whose things a verb works on, and who asked for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scope {
    tenant: Arc<Tenant>,
    caller: Caller,
    /// Held for its drop: the tenant counts who works in its name.
    #[allow(dead_code, reason = "held for its drop")]
    work: TaskTrackerToken,
}

impl Scope {
    /// A request of `caller`.
    fn new(tenant: Arc<Tenant>, caller: Caller) -> Self {
        let work = tenant.work.token();
        Self { tenant, caller, work }
    }

    /// The tenant's id.
    pub fn tenant(&self) -> &TenantId {
        self.tenant.id()
    }

    /// The tenant.
    pub(crate) fn as_tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The host in which the tenant's networks live.
    pub fn network(&self) -> &Arc<dyn NetworkBackend> {
        self.tenant.network()
    }

    /// The tenant's unix socket, if it has one.
    pub fn socket(&self) -> Option<&Path> {
        self.tenant.socket()
    }

    /// What the tenant's clients may do.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.tenant.policy()
    }

    /// 403 if the tenant's policy does not allow what is asked.
    pub(crate) fn permit(&self, asked: Asked<'_>) -> Result<()> {
        self.tenant.permit(asked)
    }

    /// With what an image is fetched: what the client sent, else what the tenant was given for the image's registry.
    pub(crate) fn login(&self, reference: &Reference, sent: &RegistryAuth) -> RegistryAuth {
        let given = || self.tenant.logins.get()?.get(reference.registry()).cloned();
        if sent.is_anonymous() { given().unwrap_or_default() } else { sent.clone() }
    }

    /// What the tenant's pulls needed.
    pub(crate) fn traffic(&self) -> &Traffic {
        self.tenant.traffic()
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// All tenants that this daemon has now.
#[derive(Debug, Default)]
pub struct Tenants {
    all: Mutex<BTreeMap<TenantId, Arc<Tenant>>>,
    hosts: tokio::sync::Mutex<()>,
}

impl Tenants {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Arc<Tenant>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while somebody is let into the host of another one, and while a host is left and taken away.
    pub async fn change_hosts(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.hosts.lock().await
    }

    /// Whether somebody is in the host that was made for a tenant.
    pub fn is_anybody_in(&self, host: &TenantId) -> bool {
        self.lock().values().any(|tenant| tenant.host.of == *host && !tenant.has_left.load(Ordering::Relaxed))
    }

    /// Adds a tenant whose networks live in `network`, unless it is there already.
    pub fn add(&self, id: &TenantId, network: Arc<dyn NetworkBackend>) -> Arc<Tenant> {
        self.add_within(id, Host { of: id.clone(), network }, &Surroundings::default())
    }

    /// The same in a host that may be another's; its containers find this around them.
    pub fn add_within(&self, id: &TenantId, host: Host, surroundings: &Surroundings) -> Arc<Tenant> {
        let new = || Arc::new(Tenant::new(id.clone(), host, surroundings.clone()));
        self.lock().entry(id.clone()).or_insert_with(new).clone()
    }

    /// Forgets a tenant: from now on nobody asks in its name. What it had must be removed before.
    pub fn remove(&self, id: &TenantId) {
        self.lock().remove(id);
    }

    /// A tenant by its id.
    pub fn get(&self, id: &TenantId) -> Result<Arc<Tenant>> {
        self.lock().get(id).cloned().ok_or_else(|| Error::no_such_tenant(id))
    }

    /// Those whose networks live in one host, where names of links and subnets are theirs together. Runners have none of their own.
    pub fn in_host(&self, network: &Arc<dyn NetworkBackend>) -> BTreeSet<TenantId> {
        let tenants = self.lock();
        let is_there = |tenant: &&Arc<Tenant>| Arc::ptr_eq(tenant.network(), network) && tenant.id.served().is_none();
        let there = tenants.values().filter(is_there);
        there.map(|tenant| tenant.id.clone()).collect()
    }

    /// Notes that nothing of a tenant is in its host any more; answers whether nobody else is in there.
    pub fn leave_host(&self, tenant: &Tenant) -> bool {
        tenant.has_left.store(true, Ordering::Relaxed);
        !self.is_anybody_in(&tenant.host.of)
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Tenant>> {
        self.lock().values().cloned().collect()
    }
}

impl Engine {
    /// Says through which unix socket a tenant's clients come.
    pub fn tenant_listens_at(&self, tenant: &TenantId, socket: PathBuf) -> Result<()> {
        self.tenants.get(tenant).map(|tenant| tenant.listens_at(socket))
    }

    /// The scope in which the daemon itself works for a tenant.
    pub fn scope_of(&self, tenant: &TenantId) -> Result<Scope> {
        self.tenants.get(tenant)?.admit(Caller::Daemon)
    }

    /// 403 if the policy of a tenant lets it have no builder beside the engine.
    pub fn permit_builder(&self, tenant: &TenantId) -> Result<()> {
        let policy = self.tenants.get(tenant)?.policy();
        match ITS_OWN.into_iter().find(|key| !policy::allows_all(&policy, *key)) {
            None => Ok(()),
            Some(key) => Err(Error::buildkit_fetches_itself(&policy.name, key)),
        }
    }

    /// The host in which a tenant's networks live.
    pub(crate) fn network_of(&self, tenant: &TenantId) -> Result<Arc<dyn NetworkBackend>> {
        Ok(self.tenants.get(tenant)?.network().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::network::fake::FakeNetwork;

    #[tokio::test]
    async fn a_closed_tenant_lets_nobody_in_and_counts_who_is() {
        let (tenants, id) = (Tenants::default(), "x".parse().unwrap());
        let tenant = tenants.add(&id, Arc::new(FakeNetwork::default()));
        let scope = tenant.admit(Caller::Daemon).unwrap();
        tenant.close();
        assert_eq!(tenant.admit(Caller::Daemon).unwrap_err().message(), "no such tenant: x");
        let copy = scope.clone();
        drop(scope);
        assert!(!tenant.unused(Duration::from_millis(10)).await, "a copy is still held");
        drop(copy);
        assert!(tenant.unused(Duration::from_secs(60)).await);
    }

    #[test]
    fn nobody_asks_for_a_tenant_that_is_gone() {
        let (tenants, id) = (Tenants::default(), "x".parse().unwrap());
        let add = || tenants.add(&id, Arc::new(FakeNetwork::default()));
        let first = add();
        assert!(Arc::ptr_eq(&first, &add()), "a tenant is made once");
        assert!(tenants.get(&"x-build".parse().unwrap()).is_err());
        tenants.remove(&id);
        assert_eq!(tenants.get(&id).unwrap_err().message(), "no such tenant: x");
        assert!(tenants.list().is_empty());
    }

    #[test]
    fn a_host_knows_its_tenants() {
        let tenants = Tenants::default();
        let hosts: [Arc<dyn NetworkBackend>; 2] = [Arc::new(FakeNetwork::default()), Arc::new(FakeNetwork::default())];
        for (name, host) in [("a", &hosts[0]), ("b", &hosts[1]), ("c", &hosts[0])] {
            tenants.add(&name.parse().unwrap(), host.clone());
        }
        tenants.add(&TenantId::of_runner(&"a".parse().unwrap()), hosts[0].clone());
        assert_eq!(tenants.in_host(&hosts[0]), ["a", "c"].map(|name| name.parse().unwrap()).into());
    }

    #[test]
    fn the_last_one_to_leave_a_host_is_told() {
        let (tenants, network) = (Tenants::default(), Arc::new(FakeNetwork::default()));
        let host = Host { of: "a".parse().unwrap(), network };
        let add = |name: &str| tenants.add_within(&name.parse().unwrap(), host.clone(), &Surroundings::default());
        let (own, guest) = (add("a"), add("b"));
        assert!(!tenants.leave_host(&own));
        tenants.remove(own.id());
        for _ in 0..2 {
            assert!(tenants.leave_host(&guest), "also when it is tried again");
        }
    }
}
