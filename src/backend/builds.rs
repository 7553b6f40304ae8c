//! What a builder beside the engine needs of it and of the runtime: BuildKit, which keeps its own cache in our containerd.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::{
    backend::images::ImageRecord,
    model::{Result, id::ContainerId, image::Descriptor},
};

/// The names of one tenant, as a builder on its behalf sees and sets them.
#[async_trait]
pub trait BuildImages: Send + Sync + 'static {
    /// One name, normalised; `None` if the tenant has no such image.
    async fn get(&self, name: &str) -> Result<Option<ImageRecord>>;

    /// All names.
    async fn list(&self) -> Result<Vec<ImageRecord>>;

    /// Points a name at an image that was built and whose content is here. One that begins with [`DANGLING`] stands for none.
    async fn put(&self, name: &str, target: &Descriptor) -> Result<ImageRecord>;
}

/// The networks of a tenant, for the steps of builds.
#[async_trait]
pub trait StepNetworks: Send + Sync + 'static {
    /// Makes what a container of the default bridge has. To be released by the same id.
    async fn connect(&self, step: &ContainerId) -> Result<StepNetwork>;

    /// Takes it back; what is gone already is success.
    async fn release(&self, step: &ContainerId);

    /// Where the tenant's `--network=host` is; `None` is the machine's.
    fn host(&self) -> Result<Option<PathBuf>>;
}

/// The network of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepNetwork {
    /// Its namespace.
    pub namespace: PathBuf,
    /// Its `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// Whom a builder builds for.
pub trait BuildTenant: BuildImages + StepNetworks {}

impl<T: BuildImages + StepNetworks> BuildTenant for T {}

/// How the names of images begin that were built without one; their digest follows.
pub const DANGLING: &str = "moby-dangling@";

/// Where a builder finds the runtime, and what its containers run under.
#[derive(Clone, Debug)]
pub struct BuildPlace {
    /// containerd's socket.
    pub address: PathBuf,
    /// This instance's namespace within it.
    pub namespace: String,
    /// The snapshotter in use.
    pub snapshotter: String,
    /// The shim of the default runtime.
    pub shim: String,
    /// Its options: a type's name and a message of it.
    pub shim_options: Option<(String, Vec<u8>)>,
}
