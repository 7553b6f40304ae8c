//! A builder beside the engine, BuildKit: a tenant as it sees it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use async_trait::async_trait;

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
        reference::Digest,
    },
    policy::Asked,
};

struct OfTenant {
    engine: Engine,
    tenant: TenantId,
    /// Images that its builder was lent.
    lent: Mutex<HashMap<Digest, Lent>>,
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
        Arc::new(OfTenant { engine: self.clone(), tenant: tenant.clone(), lent: Mutex::default() })
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
            self.lend(record).await?;
        }
        Ok(found)
    }

    async fn put(&self, name: &str, target: &Descriptor, is_first: bool) -> Result<ImageRecord> {
        self.engine.put_built(&self.engine.scope_of(&self.tenant)?, name, target, is_first).await
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
