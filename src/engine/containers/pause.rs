//! `POST /containers/{id}/pause` and `/unpause`.

use crate::{
    engine::{Engine, container::Container},
    model::{Result, container::HealthStatus, id::Tenant},
};

impl Engine {
    /// Freezes all processes of the container.
    pub async fn container_pause(&self, tenant: &Tenant, reference: &str) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        let engine = self.clone();
        self.run("container_pause", async move {
            let _changing = container.lock.lock().await;
            engine.pause_held(&container).await
        })
        .await
    }

    /// Thaws them.
    pub async fn container_unpause(&self, tenant: &Tenant, reference: &str) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        let engine = self.clone();
        self.run("container_unpause", async move {
            let _changing = container.lock.lock().await;
            engine.unpause_held(&container).await
        })
        .await
    }

    /// Freezes a container whose lock the caller holds.
    pub(crate) async fn pause_held(&self, container: &Container) -> Result<()> {
        let paused = container.state().pause(container.id().as_str())?;
        let _no_exec_begins = container.exec_starts.write().await;
        self.backends.runtime.pause(container.id()).await?;
        container.update(|record| {
            record.state = paused;
            // Nobody checks it now, which dockerd calls so.
            if let Some(health) = &mut record.health {
                health.status = HealthStatus::Unhealthy;
            }
        });
        self.store_record(container).await?;
        self.events.container(&container.record(), "pause", &[]);
        Ok(())
    }

    /// Thaws a container whose lock the caller holds.
    pub(crate) async fn unpause_held(&self, container: &Container) -> Result<()> {
        let running = container.state().unpause(container.id().as_str())?;
        self.backends.runtime.resume(container.id()).await?;
        container.update(|record| record.state = running);
        self.store_record(container).await?;
        self.events.container(&container.record(), "unpause", &[]);
        Ok(())
    }
}
