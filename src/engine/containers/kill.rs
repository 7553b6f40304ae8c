//! `POST /containers/{id}/kill`, and signals for other verbs.

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        tenants::Scope,
    },
    model::{Error, ErrorKind, Result, container::ContainerState, signal::Signal},
};

impl Engine {
    /// Sends a signal. After SIGKILL it answers when the exit is recorded: the Woodpecker agent removes without
    /// force right after.
    pub async fn container_kill(&self, scope: &Scope, reference: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal.filter(|text| !text.is_empty()).map_or(Ok(Signal::KILL), Signal::parse_known);
        let signal = signal.map_err(|error| error.context(format!("cannot kill container: {reference}")))?;
        let found = self.containers.get(scope.tenant(), reference);
        let container = found.map_err(|error| error.context(format!("cannot kill container: {reference}")))?;
        let engine = self.clone();
        let verb = async move {
            let turn = container.turn().await?;
            let exits = turn.snapshot().exits;
            engine.send_signal(&turn, signal).await?;
            drop(turn);
            if signal == Signal::KILL {
                container.wait_for(|snapshot| snapshot.is_past(exits)).await;
            }
            Ok(())
        };
        let killed = self.run("container_kill", verb).await;
        killed.map_err(|error| error.context(format!("cannot kill container: {reference}")))
    }

    /// Sends a signal to the first process and tells the restart policy to hold still.
    pub(crate) async fn send_signal(&self, turn: &Turn, signal: Signal) -> Result<()> {
        let id = turn.id();
        let not_running = || Error::not_running(id.as_str());
        let paused = match turn.state() {
            ContainerState::Running(_) => false,
            ContainerState::Paused(_) => true,
            ContainerState::Restarting(_) => {
                self.note_stop(turn);
                self.cancel_restart(turn).await;
                return Ok(());
            }
            _ => return Err(not_running()),
        };
        let ends = means_end(turn, signal);
        if ends {
            self.note_stop(turn);
        }
        let sent = self.backends.runtime.kill(id, None, signal.number(), false).await;
        sent.map_err(|error| if error.kind() == ErrorKind::NotFound { not_running() } else { error })?;
        self.events.container(&turn.record(), "kill", &[("signal", signal.number().to_string())]);
        if paused && ends {
            // A frozen process gets its signal when it thaws. It may be gone by now: SIGKILL thaws by itself.
            if let Err(error) = self.unpause(turn).await {
                tracing::debug!(container.id = %id, "thawing container {id}: {error}");
            }
        }
        Ok(())
    }

    /// Tells the restart policy that the end which comes is a client's wish; that of a daemon that ends is none.
    pub(crate) fn note_stop(&self, turn: &Turn) {
        if !self.stopping().is_cancelled() {
            turn.update(|record| record.has_been_manually_stopped = true);
        }
    }
}

/// Whether dockerd takes a signal for the wish that the container end: any, where none is named for that.
fn means_end(turn: &Turn, signal: Signal) -> bool {
    let named = turn.record().config.stop_signal.as_ref().is_some_and(|text| !text.is_empty());
    !named || signal == Signal::KILL || stop_signal(turn).is_ok_and(|named| named == signal)
}

/// The signal that asks this container to end.
pub(crate) fn stop_signal(container: &Container) -> Result<Signal> {
    match container.record().config.stop_signal.as_deref() {
        None | Some("") => Ok(Signal::TERM),
        Some(text) => Signal::parse(text),
    }
}
