//! What a builder beside the engine needs of it and of the runtime: BuildKit, which keeps its own cache in our containerd.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::{
    backend::images::ImageRecord,
    model::{
        ErrorKind, Result,
        container::HostConfig,
        id::{ContainerId, TenantId},
        image::Descriptor,
        policy::Key,
        reference::Reference,
        time::Timestamp,
    },
};

/// The names of one tenant, as a builder on its behalf sees and sets them.
#[async_trait]
pub trait BuildImages: Send + Sync + 'static {
    /// One name, normalised; `None` if the tenant has no such image. What the tenant has of it is lent to the builder.
    async fn get(&self, name: &str) -> Result<Option<ImageRecord>>;

    /// Points a name at an image that was built, whose content is taken from the builder. One that begins with [`DANGLING`] stands
    /// for none. `is_first` if its build has not given it another one before.
    async fn put(&self, name: &str, target: &Descriptor, is_first: bool) -> Result<ImageRecord>;
}

/// The networks of a tenant, for the steps of builds.
#[async_trait]
pub trait StepNetworks: Send + Sync + 'static {
    /// Makes what a container of the default bridge has. To be released by the same id.
    async fn connect(&self, step: &ContainerId) -> Result<StepNetwork>;

    /// Takes it back; what is gone already is success.
    async fn release(&self, step: &ContainerId);

    /// Where the tenant's `--network=host` is, from which the builder itself fetches; `None` is the machine's. Names resolve there
    /// as they do on the machine.
    async fn host(&self) -> Result<Option<PathBuf>>;
}

/// The network of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepNetwork {
    /// Its namespace.
    pub namespace: PathBuf,
    /// Its `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// What a tenant may ask of its builder.
pub trait BuildRules: Send + Sync + 'static {
    /// 403 if the tenant's policy does not allow it.
    fn permit(&self, wish: Wish<'_>) -> Result<()>;
}

/// What a build asks beyond what all have.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// Steps in containers like this.
    Steps(&'a HostConfig),
    /// To push its result.
    Push(&'a Reference),
}

/// What the containers of a tenant find around them, and so the steps of its builds and its builder.
pub trait BuildSurroundings: Send + Sync + 'static {
    /// What that is.
    fn around(&self) -> Around;

    /// The cache that its builder works on: called as the tenant whose own it is, or one that outlives it.
    fn cache(&self) -> TenantId;
}

/// What is around steps and builders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Variables of steps, `NAME=VALUE`. What a step sets goes before.
    pub env: Vec<String>,
    /// Names that they know, with their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// A file that they have.
    pub file: Option<AroundFile>,
    /// Variables of the builder itself.
    pub builder_env: Vec<String>,
    /// Mirrors of Docker Hub that it asks first.
    pub mirrors: Vec<String>,
    /// What `host-gateway` means among the names that a build says.
    pub host_gateway: Option<IpAddr>,
}

/// A file for reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AroundFile {
    /// On the machine.
    pub source: PathBuf,
    /// In a step.
    pub destination: String,
    /// Variables that name it there.
    pub env: Vec<String>,
    /// The machine's own of the kind, in whose place the builder finds it, if the machine has one.
    pub machines: Option<PathBuf>,
}

/// Whom a builder builds for.
pub trait BuildTenant: BuildImages + StepNetworks + BuildRules + BuildSurroundings {}

impl<T: BuildImages + StepNetworks + BuildRules + BuildSurroundings> BuildTenant for T {}

/// A build that a client asked for, when it has ended; or a step of one, when it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A step of a build.
    pub is_step: bool,
    /// The names of its result, as far as they are shown.
    pub names: String,
    /// When it was asked for.
    pub begun: Instant,
    /// Why it failed.
    pub failed: Option<ErrorKind>,
    /// The rule of the tenant's policy that did not allow it.
    pub refused_by: Option<Key>,
}

/// Told of what clients asked a builder for.
pub type Told = Arc<dyn Fn(Asked) + Send + Sync>;

/// How the names of images begin that were built without one; their digest follows.
pub const DANGLING: &str = "moby-dangling@";

/// The builders beside the engine.
#[async_trait]
pub trait Builders: Send + Sync + 'static {
    /// Ends a tenant's for good, with all that it has: processes, cache, history, mounts. Nobody builds for the tenant any more. What
    /// is gone already is success.
    async fn remove(&self, tenant: &TenantId) -> Result<()>;

    /// Ends a tenant's for good, but for the cache that it was lent, which stays for others without a trace of whose builds those were.
    /// Answers how many bytes that takes.
    async fn give_back(&self, tenant: &TenantId, cache: &TenantId) -> Result<u64>;

    /// Whether they can be started at all.
    fn is_here(&self) -> bool;

    /// What a tenant's keeps of its builds; nothing if it has never built.
    async fn cache_usage(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>) -> Result<Vec<CacheRecord>>;

    /// Takes some of that away, and tells what it was.
    async fn prune_cache(
        &self,
        tenant: &TenantId,
        of: Arc<dyn BuildTenant>,
        prune: &CachePrune,
    ) -> Result<Vec<CacheRecord>>;
}

/// Something that is kept of builds, as Docker's API tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// Its id.
    pub id: String,
    /// Those that it is made upon.
    pub parents: Vec<String>,
    /// `regular`, `source.local`, `exec.cachemount` and their like.
    pub kind: String,
    /// The command, or what else it came from.
    pub description: String,
    /// A build has it at this moment.
    pub in_use: bool,
    /// An image has it too, so that its end frees nothing.
    pub shared: bool,
    /// Bytes on disk.
    pub size: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When a build last had it.
    pub last_used: Option<Timestamp>,
    /// How many builds had it.
    pub usage_count: u64,
}

/// Which records are to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CachePrune {
    /// Also those of which images are made.
    pub all: bool,
    /// Of these alone.
    pub filter: CacheFilter,
    /// What a build had since then stays.
    pub unused_for: Duration,
    /// How much is to stay.
    pub room: CacheRoom,
}

/// What is said of records; what says nothing is of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheFilter {
    /// How its id begins.
    pub id: Option<String>,
    /// The id of one that it is made upon.
    pub parent: Option<String>,
    /// Its kind.
    pub kind: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Whether a build has it at this moment.
    pub in_use: Option<bool>,
    /// Whether an image has it too.
    pub shared: Option<bool>,
    /// Whether none has.
    pub private: Option<bool>,
}

/// How much of a cache is to stay. With nothing but zeros nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheRoom {
    /// Bytes that stay, whatever the other two say.
    pub reserved: u64,
    /// Bytes that may stay; 0 is no limit beside another one.
    pub max_used: u64,
    /// Bytes that should be free on the disk; while they are, nothing goes for them.
    pub min_free: u64,
}

/// Where nobody builds.
pub struct NoBuilders;

#[async_trait]
impl Builders for NoBuilders {
    async fn remove(&self, _: &TenantId) -> Result<()> {
        Ok(())
    }

    async fn give_back(&self, _: &TenantId, _: &TenantId) -> Result<u64> {
        Ok(0)
    }

    fn is_here(&self) -> bool {
        false
    }

    async fn cache_usage(&self, _: &TenantId, _: Arc<dyn BuildTenant>) -> Result<Vec<CacheRecord>> {
        Ok(Vec::new())
    }

    async fn prune_cache(&self, _: &TenantId, _: Arc<dyn BuildTenant>, _: &CachePrune) -> Result<Vec<CacheRecord>> {
        Ok(Vec::new())
    }
}

/// The runtime's namespace of the builder of a cache. What is in it is its own alone: nothing is found there that was not
/// lent by the engine or proven by its bytes.
pub fn namespace(ours: &str, cache: &TenantId) -> String {
    format!("{ours}-build-{cache}")
}

/// How long what is lent to a builder stays with it at least.
pub const LENT: Duration = Duration::from_secs(3600);

/// Where a builder finds the runtime, and what its containers run under.
#[derive(Clone, Debug)]
pub struct BuildPlace {
    /// containerd's socket.
    pub address: PathBuf,
    /// This instance's namespace within it.
    pub namespace: String,
    /// Folders in which the runtime has one for each namespace, which it leaves behind.
    pub folders: Vec<PathBuf>,
    /// The snapshotter in use.
    pub snapshotter: String,
    /// The shim of the default runtime.
    pub shim: String,
    /// Its options: a type's name and a message of it.
    pub shim_options: Option<(String, Vec<u8>)>,
    /// How much sooner than others a step is killed for want of memory, as of a container that does not say it.
    pub oom_score_adj: i32,
}
