//! `POST /containers/{id}/stop` and `/restart`.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{Engine, container::Container, containers::kill::stop_signal},
    model::{Error, ErrorKind, Result, container::ContainerState, id::Tenant, signal::Signal},
};

/// Seconds between the stop signal and SIGKILL where nobody says otherwise.
const DEFAULT_STOP_TIMEOUT: i64 = 10;

/// How long SIGKILL may take before we send it again, by another way.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How a client wants a container stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Instead of the container's own.
    pub signal: Option<String>,
    /// Seconds; negative waits for ever, `None` is the container's own.
    pub timeout: Option<i64>,
}

impl Engine {
    /// Asks the container to end, then makes it. `NotModified` if it does not run.
    pub async fn container_stop(&self, tenant: &Tenant, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        if !container.state().counts_as_running() {
            return Err(Error::not_modified("container is already stopped"));
        }
        let engine = self.clone();
        self.run("container_stop", async move {
            engine.stop(&container, &options).await?;
            Ok(())
        })
        .await
    }

    /// Stops the container if it runs, and starts it.
    pub async fn container_restart(&self, tenant: &Tenant, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        let engine = self.clone();
        self.run("container_restart", async move {
            // The container outlives its own AutoRemove here, as with dockerd.
            container.hold_auto_remove(true);
            let restarted = async {
                if container.state().counts_as_running() {
                    engine.stop(&container, &options).await?;
                }
                engine.start(&container).await
            }
            .await;
            container.hold_auto_remove(false);
            restarted
                .map_err(|error| error.context(format!("Cannot restart container {}", container.record().name)))?;
            engine.events.container(&container.record(), "restart", &[]);
            Ok(())
        })
        .await
    }

    /// Stops and waits until the exit is recorded.
    pub(crate) async fn stop(&self, container: &Arc<Container>, options: &StopOptions) -> Result<()> {
        let signal = match options.signal.as_deref() {
            None | Some("") => stop_signal(container)?,
            Some(text) => Signal::parse(text)?,
        };
        container.update(|record| record.has_been_manually_stopped = true);
        if matches!(container.state(), ContainerState::Restarting(_)) {
            self.cancel_restart(container).await;
        }
        match self.send_signal(container, signal).await {
            Err(error) if error.kind() == ErrorKind::Conflict && !container.state().is_running() => {}
            sent => sent?,
        }
        let timeout = options.timeout.or(container.record().config.stop_timeout).unwrap_or(DEFAULT_STOP_TIMEOUT);
        let ended = container.wait_for(|snapshot| !snapshot.record.state.is_running());
        match u64::try_from(timeout) {
            Ok(seconds) => {
                if tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_err() {
                    self.kill_and_wait(container).await?;
                }
            }
            Err(_) => {
                ended.await;
            }
        }
        self.events.container(&container.record(), "stop", &[]);
        Ok(())
    }

    /// Sends SIGKILL until the exit is recorded.
    pub(crate) async fn kill_and_wait(&self, container: &Arc<Container>) -> Result<()> {
        match self.send_signal(container, Signal::KILL).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            sent => sent?,
        }
        let ended = || container.wait_for(|snapshot| !snapshot.record.state.is_running());
        if tokio::time::timeout(KILL_PATIENCE, ended()).await.is_err() {
            self.backends.runtime.kill(container.id(), None, Signal::KILL.number(), true).await?;
            tokio::time::timeout(KILL_PATIENCE, ended())
                .await
                .map_err(|_| Error::system(format!("container {} did not end after SIGKILL", container.id())))?;
        }
        Ok(())
    }
}
