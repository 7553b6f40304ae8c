//! Images: one file per verb. Names belong to tenants, content is shared by all.
//!
//! `tree` reads what an image consists of, `look_up` finds a tenant's images by name and id, `keep` writes records
//! and the labels that pin content and snapshots.

mod auth;
mod built;
mod cache;
pub(crate) mod commit;
mod delete;
mod distribution;
mod for_container;
mod history;
mod import;
mod inspect;
mod keep;
mod known;
mod list;
mod load;
mod look_up;
mod parents;
mod patience;
mod preload;
pub mod progress;
pub(crate) mod prune;
mod pull;
mod push;
mod reach;
mod save;
mod silence;
mod tag;
mod tree;
mod ways;

#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

pub use auth::LoginStatus;
pub use commit::CommitRequest;
pub use delete::{DeleteOptions, Deleted};
pub use history::HistoryLine;
pub use import::ImportRequest;
pub use inspect::{ImageDetails, ManifestSummary};
pub(crate) use known::Remembering;
pub use list::{ImageSummary, ListOptions};
pub use load::{Body, LoadOptions};
pub(crate) use preload::is_given;
pub use prune::Pruned;
pub use pull::PullRequest;
pub use push::PushRequest;
pub(crate) use reach::Held;
pub use save::ArchiveReader;
pub(crate) use tag::new_name;

pub use crate::registry::{Inspected, SearchResult};
use crate::{
    backend::images::ImageBackend,
    engine::{
        Engine,
        config::EngineConfig,
        locks::KeyedLocks,
        tenants::{Scope, Traffic},
    },
    model::{
        ErrorKind, Result,
        id::{ContainerId, TenantId},
    },
    registry::Registry,
};

/// What the image verbs share.
pub struct ImageStore {
    pub(crate) backend: Arc<dyn ImageBackend>,
    pub(crate) registry: Arc<Registry>,
    trees: tree::Trees,
    /// By digest and by chain id: one task at a time fetches a blob or unpacks a layer.
    locks: KeyedLocks,
    /// Taken to change names: a tag that moves leaves its old image without name, which two at once would get wrong.
    /// Of each tenant its own: nobody waits while another's images are pruned.
    names: KeyedLocks,
    pulls: pull::Pulls,
    /// Taken by whoever lets go of what is kept for other jobs.
    trimming: tokio::sync::Mutex<()>,
    /// For questions whose answers are only shown.
    patience: patience::Patience,
    /// Manifests whose layers hold what their configurations say.
    proven: reach::Proven,
    /// What pulls of all tenants needed.
    pub(crate) traffic: Traffic,
}

impl Engine {
    /// Reads the names of every tenant once, so that they are known should containerd fall silent before anybody asks.
    pub(crate) fn learn_images(&self) {
        let engine = self.clone();
        self.spawn("names of images", async move {
            for tenant in engine.tenants.list() {
                for names in [tenant.id().clone(), tenant.id().of_builds()] {
                    if let Err(error) = engine.backends.images.list_images(&names).await {
                        tracing::debug!("reading the names of the images of {names}: {error}");
                    }
                }
            }
        });
    }
}

impl ImageStore {
    /// With mirrors and insecure registries from the configuration.
    pub fn new(config: &EngineConfig, backend: Arc<dyn ImageBackend>) -> Result<Self> {
        Ok(Self::with_registry(backend, Registry::new(config.registry())?))
    }

    /// With a registry client that is set up already.
    pub fn with_registry(backend: Arc<dyn ImageBackend>, registry: Registry) -> Self {
        Self {
            backend,
            registry: Arc::new(registry),
            trees: tree::Trees::default(),
            locks: KeyedLocks::default(),
            names: KeyedLocks::default(),
            pulls: pull::Pulls::default(),
            trimming: tokio::sync::Mutex::default(),
            patience: patience::Patience::default(),
            proven: reach::Proven::default(),
            traffic: Traffic::default(),
        }
    }

    /// How many images a tenant has.
    pub(crate) async fn count(&self, scope: &Scope) -> Result<usize> {
        let images = self.backend.list_images(scope.tenant()).await?;
        let digests: HashSet<_> = images.into_iter().map(|image| image.target.digest).collect();
        Ok(digests.len())
    }

    /// Bytes of a layer's snapshot; 0 if it is not unpacked.
    pub(crate) async fn snapshot_size(&self, chain_id: &str) -> u64 {
        self.patience.size(chain_id, self.backend.snapshot_size(chain_id)).await
    }

    /// Whether a layer is unpacked. To look up its size is the cheapest way to ask without a lease.
    pub(crate) async fn is_unpacked(&self, chain_id: &str) -> Result<bool> {
        match self.patience.ask(self.backend.snapshot_size(chain_id)).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
            size => Ok(size.is_ok()),
        }
    }

    /// Bytes that a container has written, which `measuring` finds out.
    pub(crate) async fn written_size(
        &self,
        container: &ContainerId,
        measuring: impl Future<Output = Result<u64>>,
    ) -> Result<u64> {
        let any_question = async { self.backend.get_image(&TenantId::of_cache(), "").await.map(drop) };
        self.patience.latest_size(container.as_str(), any_question, measuring).await
    }
}
