//! The verbs on a store in memory and a registry that does what it is told.

mod archives;
mod commits;
mod names;
mod pulls;
mod pushes;
mod reach;

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::load::{Body, ProgressStream};
use crate::{
    backend::images::{fake::FakeImages, samples::Sample},
    engine::{
        Engine,
        config::EngineConfig,
        images::{LoadOptions, PullRequest},
        testing::Fakes,
    },
    model::{Error, Result, id::TenantId},
    oci::host::HostFacts,
    registry::tests::{fake, publish},
};

/// An engine on fakes, and a registry.
struct World {
    engine: Engine,
    store: FakeImages,
    registry: fake::Registry,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(EngineConfig::default()).await
    }

    async fn with(config: EngineConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Fakes { engine, images, folder, .. } = Fakes::open_with(HostFacts::detect(), folder, config).await;
        Self { engine, store: images, registry: fake::Registry::start().await, _folder: folder }
    }

    fn publish(&self, repository: &str, sample: &Sample) {
        publish(&self.registry, repository, sample);
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry.host())
    }

    async fn start_pull(&self, rest: &str, platform: &str) -> Result<ProgressStream> {
        let platform = if platform.is_empty() { None } else { Some(platform.parse().unwrap()) };
        let request = PullRequest { image: self.name(rest), platform, ..PullRequest::default() };
        self.engine.image_pull(&self.engine.default_scope(), &request).await
    }

    /// All messages of a pull, each as `id status`.
    async fn pull(&self, rest: &str) -> Vec<String> {
        lines(self.start_pull(rest, "").await.unwrap()).await.unwrap()
    }

    async fn load(&self, tar: impl Into<Bytes>) -> Result<Vec<String>> {
        lines(
            self.engine
                .image_load(
                    &self.engine.default_scope(),
                    body(tar),
                    LoadOptions { quiet: true, ..LoadOptions::default() },
                )
                .unwrap(),
        )
        .await
    }

    /// Waits until the store holds so many blobs and snapshots.
    async fn wait_for_counts(&self, counts: (usize, usize)) {
        let wait = async {
            while self.store.counts() != counts {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        waited.unwrap_or_else(|_| panic!("the store holds {:?}, not {counts:?}", self.store.counts()));
    }
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Box::pin(std::io::Cursor::new(bytes.into()))
}

async fn lines(mut stream: ProgressStream) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    while let Some(message) = stream.next().await {
        let message = message?;
        let text = message.stream.or(message.status).unwrap_or_default();
        lines.push(match message.id {
            Some(id) => format!("{id} {text}"),
            None => text,
        });
    }
    Ok(lines)
}
