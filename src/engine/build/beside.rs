//! A builder beside the engine, BuildKit: a tenant as it sees it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::{
    backend::{
        builds::{
            Around, BuildImages, BuildRules, BuildSurroundings, BuildTenant, LENT, StepNetwork, StepNetworks, Wish,
        },
        images::ImageRecord,
    },
    engine::Engine,
    model::{
        Result,
        id::{ContainerId, TenantId},
        image::Descriptor,
        limits,
        reference::Digest,
    },
    policy::Asked,
    work::Carried,
};

struct OfTenant {
    engine: Engine,
    tenant: TenantId,
    /// Images that its builder was lent.
    lent: Mutex<HashMap<Digest, Lent>>,
    /// For what its builder has us hold that is large.
    places: Arc<Semaphore>,
}

/// What was lent of an image, as its name's labels say it, and when.
struct Lent {
    labels: HashMap<String, String>,
    since: Instant,
}

impl Lent {
    /// Whether the builder still has it for a while.
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < LENT / 2
    }
}

impl OfTenant {
    fn new(engine: &Engine, tenant: &TenantId) -> Self {
        let places = Arc::new(Semaphore::new(limits::LARGE_REQUESTS));
        Self { engine: engine.clone(), tenant: tenant.clone(), lent: Mutex::default(), places }
    }

    /// What a call of its builder carries, as requests through a listener do.
    fn carried(&self) -> Carried {
        Carried::of(self.places.clone())
    }

    /// Lends an image, unless the builder still has it for a while: each blob of it is a change of containerd's database.
    async fn lend(&self, record: &ImageRecord) -> Result<()> {
        let lent = || self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Lent { labels: record.labels.clone(), since: Instant::now() };
        let has_it = |before: &Lent| before.labels == now.labels && before.is_fresh();
        if lent().get(&record.target.digest).is_some_and(has_it) {
            return Ok(());
        }
        self.engine.images.lend(&self.cache(), record).await?;
        let mut lent = lent();
        lent.retain(|_, before| before.is_fresh());
        lent.insert(record.target.digest.clone(), now);
        Ok(())
    }
}

impl Engine {
    /// A tenant, for a builder that works in its name.
    pub fn build_tenant(&self, tenant: &TenantId) -> Arc<dyn BuildTenant> {
        Arc::new(OfTenant::new(self, tenant))
    }
}

impl BuildRules for OfTenant {
    fn permit(&self, wish: Wish<'_>) -> Result<()> {
        self.engine.tenants.get(&self.tenant)?.permit(match wish {
            Wish::Steps(host_config) => Asked::Build(host_config),
            Wish::Push(reference) => Asked::Push(reference),
        })
    }
}

impl BuildSurroundings for OfTenant {
    fn around(&self) -> Around {
        self.engine.around_builds(&self.tenant)
    }

    fn cache(&self) -> TenantId {
        self.engine.build_cache_of(&self.tenant)
    }
}

#[async_trait]
impl BuildImages for OfTenant {
    async fn get(&self, name: &str) -> Result<Option<ImageRecord>> {
        let found = self.engine.images.backend.get_image(&self.tenant, name).await?;
        if let Some(record) = &found {
            self.carried().during(self.lend(record)).await?;
        }
        Ok(found)
    }

    async fn put(&self, name: &str, target: &Descriptor, is_first: bool) -> Result<ImageRecord> {
        let scope = self.engine.scope_of(&self.tenant)?;
        self.engine.put_built(&scope, name, target, is_first, self.carried()).await
    }
}

#[async_trait]
impl StepNetworks for OfTenant {
    async fn connect(&self, step: &ContainerId) -> Result<StepNetwork> {
        let (engine, scope, step) = (self.engine.clone(), self.engine.scope_of(&self.tenant)?, step.clone());
        self.engine.run("connect_step", async move { engine.connect_step(&scope, &step).await }).await
    }

    async fn release(&self, step: &ContainerId) {
        let (engine, tenant, step) = (self.engine.clone(), self.tenant.clone(), step.clone());
        let release = async move {
            engine.release_step(&tenant, &step).await;
            Ok(())
        };
        if let Err(error) = self.engine.run("release_step", release).await {
            tracing::warn!("releasing the network of a build's step: {}", error.chain());
        }
    }

    async fn host(&self) -> Result<Option<PathBuf>> {
        let (engine, scope) = (self.engine.clone(), self.engine.scope_of(&self.tenant)?);
        self.engine.run("open_host", async move { engine.open_host(&scope).await }).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use indexmap::IndexMap;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        engine::testing::Fakes,
        model::image::documents::{Index, media_type},
    };

    /// By then it would have been done.
    const WAITS: Duration = Duration::from_millis(50);

    /// Of a result, as it is named and as it is lent.
    #[tokio::test]
    async fn large_documents_of_one_builder_wait_for_each_other() {
        let fakes = Fakes::new().await;
        let tenant = OfTenant::new(&fakes.engine, &TenantId::default_tenant());
        let put = async |name: &str, length: usize| {
            let media = media_type::OCI_INDEX.to_owned();
            let annotations = IndexMap::from([("long".to_owned(), "x".repeat(length))]);
            let index = Index { schema_version: 2, media_type: media, manifests: Vec::new(), annotations };
            let bytes = serde_json::to_vec(&index).unwrap();
            fakes.images.give_builder(&tenant.tenant, &bytes);
            tenant.put(name, &Descriptor::of(media_type::OCI_INDEX, &bytes), true).await
        };
        let (small, large) = ("docker.io/library/small:1", "docker.io/library/large:1");
        let all = async || tenant.places.clone().acquire_many_owned(limits::LARGE_REQUESTS as u32).await.unwrap();
        let held = all().await;
        put(small, 100).await.unwrap();
        assert!(timeout(WAITS, put(large, limits::SMALL_HOLDING)).await.is_err());
        drop(held);
        put(large, limits::SMALL_HOLDING).await.unwrap();
        let held = all().await;
        assert!(tenant.get(small).await.unwrap().is_some());
        assert!(timeout(WAITS, tenant.get(large)).await.is_err());
        drop(held);
        assert!(tenant.get(large).await.unwrap().is_some());
    }
}
