//! For tests: an engine on fakes.

use std::sync::Arc;

use tempfile::TempDir;

use super::{
    Backends, Engine,
    config::EngineConfig,
    images::{Body, ImportRequest},
    tenants::Scope,
};
use crate::{
    backend::{
        builds::NoBuilders,
        images::{fake::FakeImages, samples::tar},
        network::fake::{FakeHosts, FakeNetwork},
        projects::fake::FakeProjects,
        runtime::fake::FakeRuntime,
    },
    model::{caller::Caller, id::TenantId},
    oci::host::HostFacts,
};

/// An engine, the fakes below it, and the folders of both, which go with it.
pub struct Fakes {
    /// What is tested.
    pub engine: Engine,
    /// What its containers run on.
    pub runtime: Arc<FakeRuntime>,
    /// What its images lie in.
    pub images: FakeImages,
    /// What the networks of the default tenant are made of.
    pub network: Arc<FakeNetwork>,
    /// What has those of jobs too.
    pub hosts: FakeHosts,
    /// What its file system limits: nothing yet.
    pub projects: Arc<FakeProjects>,
    /// The engine's `data` and `run`, and what the runtime writes.
    pub folder: TempDir,
}

impl Engine {
    /// A scope of the default tenant.
    pub fn default_scope(&self) -> Scope {
        self.scope_for(&TenantId::default_tenant())
    }

    /// A scope of a tenant, which is made if need be.
    pub fn scope_for(&self, tenant: &TenantId) -> Scope {
        let tenant = self.tenants.add(tenant, self.backends.network.machine());
        tenant.admit(Caller::Daemon).expect("nobody closed it")
    }

    /// A scope of a tenant with a host of its own, as that of a job.
    pub async fn scope_in_host(&self, tenant: &TenantId) -> Scope {
        let host = self.backends.network.open(tenant).await.expect("a host");
        self.tenants.add(tenant, host).admit(Caller::Daemon).expect("nobody closed it")
    }
}

impl Fakes {
    /// Opens one in a folder of its own.
    pub async fn new() -> Self {
        Self::open(HostFacts::detect(), tempfile::tempdir().expect("a temporary folder")).await
    }

    /// Opens one on what an earlier one may have left in the folder, on a host that is described.
    pub async fn open(host: HostFacts, folder: TempDir) -> Self {
        Self::open_with(host, folder, EngineConfig::default()).await
    }

    /// The same with a configuration, but for its folders.
    pub async fn open_with(host: HostFacts, folder: TempDir, config: EngineConfig) -> Self {
        let config = EngineConfig {
            data_root: folder.path().join("data"),
            exec_root: folder.path().join("run"),
            instance: "test".to_owned(),
            ..config
        };
        let runtime = Arc::new(FakeRuntime::new(folder.path()));
        let images = FakeImages::default();
        let hosts = FakeHosts::default();
        let (network, projects) = (hosts.of_machine(), Arc::new(FakeProjects::default()));
        let backends = Backends {
            runtime: runtime.clone(),
            images: Arc::new(images.clone()),
            network: Arc::new(hosts.clone()),
            builders: Arc::new(NoBuilders),
            projects: projects.clone(),
        };
        let engine = Engine::open(host, config, backends).await.expect("an engine on fakes opens");
        Self { engine, runtime, images, network, hosts, projects, folder }
    }

    /// The same with the image `box`, in whose only layer is nothing.
    pub async fn with_box() -> Self {
        let fakes = Self::new().await;
        let request = ImportRequest { repository: "box".to_owned(), ..ImportRequest::default() };
        let body: Body = Box::pin(std::io::Cursor::new(tar(&[])));
        fakes
            .engine
            .image_import(&fakes.engine.default_scope(), &request, body)
            .await
            .expect("an empty image is imported");
        fakes
    }
}
