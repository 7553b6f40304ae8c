//! `POST /containers/{id}/pause` and `/unpause`.

use crate::{
    engine::{Engine, container::Turn, tenants::Scope},
    model::{Error, Result, container::HealthStatus},
};

impl Engine {
    /// Freezes all processes of the container.
    pub async fn container_pause(&self, scope: &Scope, reference: &str) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let engine = self.clone();
        self.run("container_pause", async move { engine.pause(&container.turn().await?).await }).await
    }

    /// Thaws them.
    pub async fn container_unpause(&self, scope: &Scope, reference: &str) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let engine = self.clone();
        self.run("container_unpause", async move { engine.unpause(&container.turn().await?).await }).await
    }

    /// Freezes a container in the caller's turn.
    pub(crate) async fn pause(&self, turn: &Turn) -> Result<()> {
        let paused = turn.state().pause(turn.id().as_str())?;
        let _no_exec_begins = turn.exec_starts.write().await;
        let refused = |error: Error| error.context(format!("cannot pause container {}", turn.id()));
        self.backends.runtime.pause(turn.id()).await.map_err(refused)?;
        turn.update(|record| {
            record.state = paused;
            // Nobody checks it now, which dockerd calls so.
            if let Some(health) = &mut record.health {
                health.status = HealthStatus::Unhealthy;
            }
        });
        turn.store(&*self.backends.runtime).await?;
        self.events.container(&turn.record(), "pause", &[]);
        Ok(())
    }

    /// Thaws a container in the caller's turn.
    pub(crate) async fn unpause(&self, turn: &Turn) -> Result<()> {
        let running = turn.state().unpause(turn.id().as_str())?;
        self.backends.runtime.resume(turn.id()).await?;
        turn.update(|record| record.state = running);
        turn.store(&*self.backends.runtime).await?;
        self.events.container(&turn.record(), "unpause", &[]);
        Ok(())
    }
}
