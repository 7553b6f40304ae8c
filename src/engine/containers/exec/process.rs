//! What the runtime is told about an exec, and what clients are.

use std::sync::Arc;

use oci_spec::runtime::Process;

use crate::{
    engine::{
        Engine,
        container::{
            Container,
            exec::{Exec, ExecRequest, ExecState},
        },
        tenants::Scope,
    },
    model::{Result, container::ContainerRecord},
    oci,
};

/// An exec for `GET /exec/{id}/json`.
pub struct ExecView {
    /// The exec.
    pub exec: Arc<Exec>,
    /// Where it stands.
    pub state: ExecState,
    /// Its container.
    pub container: Arc<ContainerRecord>,
}

impl Engine {
    /// Looks an exec up; it can be read until its container goes.
    pub fn exec_inspect(&self, scope: &Scope, id: &str) -> Result<ExecView> {
        let exec = self.execs.get(scope.tenant(), id)?;
        let container = self.containers.get(scope.tenant(), exec.container.as_str())?.record();
        let state = *exec.state.borrow();
        Ok(ExecView { exec, state, container })
    }

    pub(super) async fn exec_process(
        &self,
        container: &Arc<Container>,
        request: &ExecRequest,
        console_size: Option<(u32, u32)>,
    ) -> Result<Process> {
        // The other side of a link may have ended since; then its variables are not there.
        let record = self.with_given_variables(container.record()).unwrap_or_else(|_| container.record());
        let user_spec = if request.user.is_empty() { &record.config.user } else { &request.user };
        let user = self.resolve_user(container, user_spec).await?;
        let (height, width) = console_size.unwrap_or_default();
        oci::exec_process(&oci::ExecInput {
            record: &record,
            hostname: &record.config.hostname,
            user: &user,
            command: &request.command,
            env: &request.env,
            working_dir: &request.working_dir,
            tty: request.tty,
            console_size: [height, width],
            privileged: request.privileged,
            host: &self.host,
        })
    }
}
