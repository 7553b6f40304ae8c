//! `POST /containers/{id}/kill`, and signals for other verbs.

use std::sync::Arc;

use crate::{
    engine::{Engine, container::Container},
    model::{Error, ErrorKind, Result, container::ContainerState, id::Tenant, signal::Signal},
};

impl Engine {
    /// Sends a signal. After SIGKILL it answers when the exit is recorded: the Woodpecker agent removes without
    /// force right after.
    pub async fn container_kill(&self, tenant: &Tenant, reference: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal.filter(|text| !text.is_empty()).map_or(Ok(Signal::KILL), Signal::parse_known);
        let signal = signal.map_err(|error| error.context(format!("cannot kill container: {reference}")))?;
        let found = self.containers.get(tenant, reference);
        let container = found.map_err(|error| error.context(format!("cannot kill container: {reference}")))?;
        let engine = self.clone();
        let name = reference.to_owned();
        let verb = async move {
            let sent = engine.send_signal(&container, signal).await;
            sent.map_err(|error| error.context(format!("cannot kill container: {name}")))?;
            if signal == Signal::KILL {
                container.wait_for(|snapshot| !snapshot.record.state.is_running()).await;
            }
            Ok(())
        };
        self.run("container_kill", verb).await
    }

    /// Sends a signal to the first process and tells the restart policy to hold still.
    pub(crate) async fn send_signal(&self, container: &Arc<Container>, signal: Signal) -> Result<()> {
        let not_running = || Error::not_running(container.id().as_str());
        let paused = match container.state() {
            ContainerState::Running(_) => false,
            ContainerState::Paused(_) => true,
            ContainerState::Restarting(_) => {
                self.cancel_restart(container).await;
                return Ok(());
            }
            _ => return Err(not_running()),
        };
        let stop_signal = stop_signal(container)?;
        if signal == Signal::KILL || signal == stop_signal {
            container.update(|record| record.has_been_manually_stopped = true);
        }
        let sent = self.backends.runtime.kill(container.id(), None, signal.number(), false).await;
        sent.map_err(|error| if error.kind() == ErrorKind::NotFound { not_running() } else { error })?;
        if paused && (signal == Signal::KILL || signal == stop_signal) {
            // A frozen process gets its signal when it thaws. It may be gone by now: SIGKILL thaws by itself.
            if let Err(error) = self.backends.runtime.resume(container.id()).await {
                tracing::debug!(container.id = %container.id(), "thawing container {}: {error}", container.id());
            }
        }
        self.events.container(&container.record(), "kill", &[("signal", signal.number().to_string())]);
        Ok(())
    }
}

/// The signal that asks this container to end.
pub(crate) fn stop_signal(container: &Container) -> Result<Signal> {
    match container.record().config.stop_signal.as_deref() {
        None | Some("") => Ok(Signal::TERM),
        Some(text) => Signal::parse(text),
    }
}
