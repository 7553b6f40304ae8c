//! `POST /containers/{id}/start`.

use crate::{
    engine::{Engine, tenants::Scope},
    model::Result,
};

impl Engine {
    /// Starts a container. `NotModified` if it runs.
    pub async fn container_start(&self, scope: &Scope, reference: &str) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let engine = self.clone();
        self.run("container_start", async move { engine.start(&container).await }).await
    }
}
