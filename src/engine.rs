//! Level 2: decides. Verbs are named as Docker's operationIds in snake case; each takes first who asks, the
//! [`tenants::Scope`].
//!
//! The engine knows no HTTP and no containerd: it calls the traits of `backend`, keeps the records, and
//! publishes what happens. Verbs that change something run to their end even if the client hangs up.

pub mod build;
pub mod config;
pub mod container;
pub mod containers;
pub mod events;
mod host;
pub mod images;
pub mod ipam;
pub mod jobs;
mod layers;
mod locks;
pub mod networks;
pub mod policies;
pub mod prune;
mod quota;
pub(crate) mod records;
pub(crate) mod room;
mod runs;
mod scoped;
pub mod store;
pub mod system;
pub mod tenants;
#[cfg(test)]
pub mod testing;
pub mod volumes;

use std::{future::Future, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    backend::{builds::Builders, images::ImageBackend, network::NetworkHosts, projects::Projects, runtime::Runtime},
    engine::{
        config::EngineConfig,
        events::EventBus,
        jobs::{BuildCacheStore, CacheStore, JobStore},
        networks::NetworkStore,
        room::Rooms,
        store::{ContainerStore, ExecStore},
        tenants::Tenants,
        volumes::VolumeStore,
    },
    model::{Error, Result, id::TenantId},
    oci::HostFacts,
    work::Carried,
};

/// The adapters that an engine works with.
#[derive(Clone)]
pub struct Backends {
    /// Container life cycles.
    pub runtime: Arc<dyn Runtime>,
    /// Content, image names, snapshots.
    pub images: Arc<dyn ImageBackend>,
    /// The kernel's networking: a host for each tenant.
    pub network: Arc<dyn NetworkHosts>,
    /// Who builds beside the engine.
    pub builders: Arc<dyn Builders>,
    /// What file systems limit.
    pub projects: Arc<dyn Projects>,
}

/// The engine; clones share everything.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// What the clones of an engine share.
pub struct Inner {
    pub(crate) id: system::DaemonId,
    pub(crate) config: EngineConfig,
    pub(crate) host: HostFacts,
    pub(crate) backends: Backends,
    pub(crate) tenants: Tenants,
    pub(crate) rooms: Rooms,
    pub(crate) containers: ContainerStore,
    pub(crate) execs: ExecStore,
    pub(crate) networks: NetworkStore,
    pub(crate) volumes: VolumeStore,
    pub(crate) events: EventBus,
    pub(crate) images: images::ImageStore,
    pub(crate) prunes: prune::Prunes,
    pub(crate) jobs: JobStore,
    pub(crate) caches: CacheStore,
    pub(crate) build_caches: BuildCacheStore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl std::ops::Deref for Engine {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Engine {
    /// Takes up what is stored: containers, networks, volumes. Containers that were running when the last
    /// daemon ended are ended first, as dockerd does without live restore.
    pub async fn open(host: HostFacts, config: EngineConfig, backends: Backends) -> Result<Self> {
        policies::default_policy(&config).map_err(|error| error.context("the policy of jobs"))?;
        let rooms = Rooms::default();
        let networks = NetworkStore::open(&config.data_root, rooms.clone())?;
        let volumes = VolumeStore::open(&config.data_root, rooms.clone())?;
        let jobs = JobStore::open(&config.data_root)?;
        let caches = CacheStore::open(&config.data_root)?;
        let build_caches = BuildCacheStore::open(&config.data_root)?;
        let backends = Backends { images: Arc::new(images::Remembering::new(backends.images.clone())), ..backends };
        let images = images::ImageStore::new(&config, backends.images.clone())?;
        let engine = Self(Arc::new(Inner {
            images,
            id: system::DaemonId::load(&config.data_root)?,
            config,
            host,
            backends,
            tenants: Tenants::default(),
            rooms,
            containers: ContainerStore::default(),
            execs: ExecStore::default(),
            networks,
            volumes,
            events: EventBus::default(),
            prunes: prune::Prunes::default(),
            jobs,
            caches,
            build_caches,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }));
        engine.tenants.add(&TenantId::default_tenant(), engine.backends.network.machine());
        build::tidy(&engine.config.data_root);
        engine.take_up_containers().await?;
        engine.take_up_tenants().await?;
        // Before any container starts again; what ran is ended.
        engine.open_networks().await?;
        engine.settle_containers().await;
        engine.learn_images();
        Ok(engine)
    }

    /// Ends every container and waits for all that is under way.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.stop_all_containers().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.backends.runtime.tidy().await;
        self.close_networks().await;
    }

    /// Starts a task that `shutdown` waits for. `name` is its span.
    pub(crate) fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task.instrument(tracing::info_span!("task", name)));
    }

    /// The same, for a task whose end somebody waits for.
    pub(crate) fn spawn_joined<F>(&self, name: &'static str, task: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task.instrument(tracing::info_span!("task", name)))
    }

    /// Runs a verb to its end even if the caller goes away; what its request holds it holds until then.
    pub(crate) async fn run<T, F>(&self, name: &'static str, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.tasks.spawn(Carried::here().during(verb.instrument(tracing::info_span!("verb", name))));
        task.await.map_err(|panic| Error::system(format!("{name} failed")).with_source(panic))?
    }

    /// Ends when the engine shuts down.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.shutdown.clone()
    }
}
