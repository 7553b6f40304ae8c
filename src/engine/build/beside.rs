//! A builder beside the engine, BuildKit: a tenant as it sees it.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;

use crate::{
    backend::{
        builds::{BuildImages, BuildTenant, StepNetwork, StepNetworks},
        images::ImageRecord,
    },
    engine::Engine,
    model::{
        Result,
        id::{ContainerId, TenantId},
        image::Descriptor,
    },
};

struct OfTenant {
    engine: Engine,
    tenant: TenantId,
}

impl Engine {
    /// A tenant, for a builder that works in its name.
    pub fn build_tenant(&self, tenant: &TenantId) -> Arc<dyn BuildTenant> {
        Arc::new(OfTenant { engine: self.clone(), tenant: tenant.clone() })
    }
}

#[async_trait]
impl BuildImages for OfTenant {
    async fn get(&self, name: &str) -> Result<Option<ImageRecord>> {
        self.engine.images.backend.get_image(&self.tenant, name).await
    }

    async fn list(&self) -> Result<Vec<ImageRecord>> {
        self.engine.images.backend.list_images(&self.tenant).await
    }

    async fn put(&self, name: &str, target: &Descriptor) -> Result<ImageRecord> {
        self.engine.put_built(&self.engine.scope_of(&self.tenant)?, name, target).await
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

    fn host(&self) -> Result<Option<PathBuf>> {
        Ok(self.engine.network_of(&self.tenant)?.namespace())
    }
}
