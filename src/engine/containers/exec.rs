//! The verbs of execs.

mod process;
mod start;

pub use process::ExecView;

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    engine::{
        Engine,
        container::{
            Container, Turn,
            exec::{Exec, ExecRequest, ExecState},
        },
        tenants::Scope,
    },
    model::{Error, Result, container::ContainerState, id::ExecId},
    policy::Asked,
};

impl Engine {
    /// Prepares an exec; nothing runs yet. A user of the request's own must be known in the container.
    pub async fn container_exec(&self, scope: &Scope, reference: &str, request: ExecRequest) -> Result<ExecId> {
        let container = self.containers.get(scope.tenant(), reference)?;
        scope.permit(Asked::Exec { privileged: request.privileged })?;
        Ok(self.prepare_exec(&container, reference, request).await?.id.clone())
    }

    /// The same in a container that was found by `reference`.
    pub(crate) async fn prepare_exec(
        &self,
        container: &Arc<Container>,
        reference: &str,
        request: ExecRequest,
    ) -> Result<Arc<Exec>> {
        // A turn for the look alone: what holds it up long is no matter of an exec that is under way.
        can_exec(&container.turn().await?, reference)?;
        if request.command.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        super::session::detach_keys(&request.detach_keys, "escape")?;
        if !request.user.is_empty() {
            self.resolve_user(container, &request.user).await?;
        }
        let record = container.record();
        let exec = Arc::new(Exec {
            id: ExecId::random(),
            tenant: record.tenant.clone(),
            container: container.id().clone(),
            request,
            state: watch::Sender::new(ExecState::Created),
        });
        let action = format!("exec_create: {}", command_line(&exec.request.command));
        self.execs.insert(exec.clone())?;
        self.events.container(&record, action, &[("execID", exec.id.to_string())]);
        Ok(exec)
    }
}

/// Whether the container is one in which something can be run, as dockerd says it of a container called `name`.
fn can_exec(turn: &Turn, name: &str) -> Result<()> {
    let id = turn.id();
    match turn.state() {
        ContainerState::Running(_) => Ok(()),
        ContainerState::Paused(_) => Err(Error::is_paused(name)),
        ContainerState::Restarting(_) => {
            Err(Error::conflict(format!("Container {id} is restarting, wait until the container is running")))
        }
        _ => Err(Error::not_running(id.as_str())),
    }
}

/// A command as events tell it: the program, a space, the arguments; dockerd keeps the space without any.
pub(super) fn command_line(command: &[String]) -> String {
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    format!("{program} {}", arguments.join(" "))
}
