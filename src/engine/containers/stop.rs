//! `POST /containers/{id}/stop` and `/restart`.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tracing::warn;

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        containers::kill::stop_signal,
        tenants::Scope,
    },
    model::{Error, ErrorKind, Result, signal::Signal},
};

/// Seconds between the stop signal and SIGKILL where nobody says otherwise.
const DEFAULT_STOP_TIMEOUT: i64 = 10;

/// Seconds in which a container that could not be asked may end by itself, as with dockerd.
const UNASKED_PATIENCE: i64 = 2;

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
    pub async fn container_stop(&self, scope: &Scope, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let engine = self.clone();
        self.run("container_stop", async move { engine.stop(&container, &options).await }).await
    }

    /// Stops the container if it runs, and starts it.
    pub async fn container_restart(&self, scope: &Scope, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let engine = self.clone();
        self.run("container_restart", async move {
            // The container outlives its own AutoRemove here, as with dockerd.
            let _kept = container.hold_auto_remove();
            let restarted = async {
                unless_so_already(engine.stop(&container, &options).await)?;
                // Another restart may have been faster.
                unless_so_already(engine.start(&container).await)
            }
            .await;
            let removed = |error: Error| match error.kind() {
                // It was there when it was looked up. dockerd's status is that of an error of its own.
                ErrorKind::NotFound => Error::system(Error::marked_for_removal().message()),
                ErrorKind::Conflict if container.is_being_removed() => Error::system(error.message()),
                _ => error,
            };
            restarted.map_err(|error| {
                removed(error).context(format!("Cannot restart container {}", container.record().name))
            })?;
            engine.events.container(&container.record(), "restart", &[]);
            Ok(())
        })
        .await
    }

    /// Stops and waits until the exit is recorded. `NotModified` if it does not run.
    pub(crate) async fn stop(&self, container: &Arc<Container>, options: &StopOptions) -> Result<()> {
        let turn = container.turn().await?;
        if !turn.state().counts_as_running() {
            return Err(Error::not_modified("container is already stopped"));
        }
        let signal = match options.signal.as_deref() {
            None | Some("") => stop_signal(&turn),
            Some(text) => Ok(Signal::parse(text)?),
        };
        let mut timeout = options.timeout.or(turn.record().config.stop_timeout).unwrap_or(DEFAULT_STOP_TIMEOUT);
        let exits = turn.snapshot().exits;
        self.note_stop(&turn);
        let sent = match signal {
            Ok(signal) => self.send_signal(&turn, signal).await,
            Err(unsendable) => Err(unsendable),
        };
        match sent {
            Ok(()) => {}
            // Its process has ended already, which is about to be recorded.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => {
                warn!(container.id = %turn.id(), "asking container {} to end: {}", turn.id(), error.chain());
                timeout = UNASKED_PATIENCE;
                self.cancel_restart(&turn).await;
            }
        }
        drop(turn);
        let ended = container.wait_for(|snapshot| snapshot.is_past(exits));
        match u64::try_from(timeout) {
            Ok(seconds) => {
                if tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_err() {
                    self.kill_run(container, exits).await?;
                }
            }
            Err(_) => {
                ended.await;
            }
        }
        self.events.container(&container.record(), "stop", &[]);
        Ok(())
    }

    /// Kills the run that was under way when so many had ended, if it still is.
    async fn kill_run(&self, container: &Arc<Container>, exits: u64) -> Result<()> {
        match container.turn().await {
            Ok(turn) if !turn.snapshot().is_past(exits) => self.kill_and_wait(turn).await,
            // Ended or gone meanwhile.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Sends SIGKILL until the exit is recorded.
    pub(crate) async fn kill_and_wait(&self, turn: Turn) -> Result<()> {
        let exits = turn.snapshot().exits;
        match self.send_signal(&turn, Signal::KILL).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            sent => sent?,
        }
        let container = turn.release();
        let ended = || container.wait_for(|snapshot| snapshot.is_past(exits));
        if tokio::time::timeout(KILL_PATIENCE, ended()).await.is_err() {
            self.backends.runtime.kill(container.id(), None, Signal::KILL.number(), true).await?;
            tokio::time::timeout(KILL_PATIENCE, ended())
                .await
                .map_err(|_| Error::system(format!("container {} did not end after SIGKILL", container.id())))?;
        }
        Ok(())
    }

    /// Ends every container, as a client's stop would, but leaves their restart policies as they are.
    pub(crate) async fn stop_all_containers(&self) {
        let running = self.containers.list_all().into_iter().filter(|container| container.state().counts_as_running());
        let stopping = running.map(|container| async move {
            match self.stop(&container, &StopOptions::default()).await {
                Err(error) if error.kind() != ErrorKind::NotModified => {
                    warn!(container.id = %container.id(), "stopping container {}: {}", container.id(), error.chain());
                }
                // Ended by itself meanwhile.
                Ok(()) | Err(_) => {}
            }
        });
        join_all(stopping).await;
    }
}

/// That the container was as it should be is no failure of a restart.
fn unless_so_already(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotModified => Ok(()),
        other => other,
    }
}
