//! `POST /containers/{id}/resize` and `POST /exec/{id}/resize`.

use crate::{
    engine::{Engine, container::exec::ExecState, tenants::Scope},
    model::{Error, Result},
};

/// How long a resize waits for the start of its exec.
const START_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

impl Engine {
    /// Sets the size of a container's terminal, in characters.
    pub async fn container_resize(&self, scope: &Scope, reference: &str, width: u32, height: u32) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let id = container.id();
        if !container.turn().await?.state().is_running() {
            return Err(Error::not_running(id.as_str()));
        }
        self.backends.runtime.resize(id, None, width, height).await?;
        let size = [("height", height.to_string()), ("width", width.to_string())];
        self.events.container(&container.record(), "resize", &size);
        Ok(())
    }

    /// Sets the size of an exec's terminal. A resize may come before the start, which the CLI sends at the same time.
    pub async fn exec_resize(&self, scope: &Scope, id: &str, width: u32, height: u32) -> Result<()> {
        let exec = self.execs.get(scope.tenant(), id)?;
        let mut state = exec.state.subscribe();
        let settled = state.wait_for(|state| matches!(state, ExecState::Running(_) | ExecState::Exited(_)));
        if tokio::time::timeout(START_PATIENCE, settled).await.is_err() {
            return Err(Error::system("timeout waiting for exec session ready"));
        }
        self.backends.runtime.resize(&exec.container, Some(&exec.id), width, height).await
    }
}
