//! Starting a container again after its end, as its restart policy says.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use crate::{
    backend::runtime::Exit,
    engine::{
        Engine,
        container::{Container, Turn},
    },
    model::container::{ContainerRecord, ContainerState, RestartMode},
};

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A run of this length makes the pauses short again.
const STEADY: Duration = Duration::from_secs(10);

impl Engine {
    /// Whether and after which pause the container is to be started again.
    pub(crate) fn restart_after(&self, turn: &Turn, exit: &Exit) -> Option<Duration> {
        let record = turn.record();
        if self.stopping().is_cancelled() || record.has_been_manually_stopped || turn.is_being_removed() {
            return None;
        }
        if !wants_restart(&record, exit.code) {
            return None;
        }
        let lasted = record.state.live().map(|live| live.started_at.elapsed()).unwrap_or_default();
        Some(turn.next_pause(|last| {
            if lasted >= STEADY || last.is_zero() { FIRST_PAUSE } else { (last * 2).min(LONGEST_PAUSE) }
        }))
    }

    /// Starts the container after a pause, unless somebody calls it off.
    pub(crate) fn restart_later(&self, container: &Arc<Container>, pause: Duration) {
        let engine = self.clone();
        let container = container.clone();
        self.spawn("restart", async move {
            let stopping = engine.stopping();
            let called_off =
                container.wait_for(|snapshot| !matches!(snapshot.record.state, ContainerState::Restarting(_)));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = called_off => return,
                () = stopping.cancelled() => {
                    if let Ok(turn) = container.turn().await {
                        engine.cancel_restart(&turn).await;
                    }
                    return;
                }
            }
            if let Err(error) = engine.start_again(&container).await {
                warn!(container.id = %container.id(), "starting container {} again: {}", container.id(), error.chain());
            }
        });
    }

    /// Calls off a start that the restart policy has planned.
    pub(crate) async fn cancel_restart(&self, turn: &Turn) {
        turn.update(|record| record.state = record.state.cancel_restart());
        if let Err(error) = turn.store(&*self.backends.runtime).await {
            warn!(container.id = %turn.id(), "storing container {}: {error}", turn.id());
        }
    }
}

/// Whether a policy asks for a start after an end with this code.
pub(super) fn wants_restart(record: &ContainerRecord, exit_code: i64) -> bool {
    let policy = &record.host_config.restart_policy;
    match policy.name {
        RestartMode::Always | RestartMode::UnlessStopped => true,
        RestartMode::OnFailure => {
            let limit = u64::try_from(policy.maximum_retry_count).unwrap_or(0);
            exit_code != 0 && (limit == 0 || record.restart_count < limit)
        }
        RestartMode::Unset | RestartMode::No | RestartMode::Unknown(_) => false,
    }
}
