//! `POST /containers/{id}/pause` and `/unpause`.

use crate::{
    engine::Engine,
    model::{Result, id::Tenant},
};

impl Engine {
    /// Freezes all processes of the container.
    pub async fn container_pause(&self, tenant: &Tenant, reference: &str) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        let engine = self.clone();
        self.run("container_pause", async move {
            let _changing = container.lock.lock().await;
            let paused = container.state().pause(container.id().as_str())?;
            engine.backends.runtime.pause(container.id()).await?;
            container.update(|record| record.state = paused);
            engine.store_record(&container).await?;
            engine.events.container(&container.record(), "pause", &[]);
            Ok(())
        })
        .await
    }

    /// Thaws them.
    pub async fn container_unpause(&self, tenant: &Tenant, reference: &str) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        let engine = self.clone();
        self.run("container_unpause", async move {
            let _changing = container.lock.lock().await;
            let running = container.state().unpause(container.id().as_str())?;
            engine.backends.runtime.resume(container.id()).await?;
            container.update(|record| record.state = running);
            engine.store_record(&container).await?;
            engine.events.container(&container.record(), "unpause", &[]);
            Ok(())
        })
        .await
    }
}
