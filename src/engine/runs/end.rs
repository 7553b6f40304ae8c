//! The end of a run: the recorded exit and the tear-down behind it.

use std::sync::Arc;

use tokio::{
    task::JoinHandle,
    time::{Duration, timeout},
};
use tracing::{info, warn};

use crate::{
    backend::runtime::Exit,
    engine::{
        Engine,
        container::{Container, UNKNOWN_EXIT},
    },
    model::{
        ErrorKind,
        container::{ContainerRecord, ContainerState, Ended, HealthStatus},
        time::Timestamp,
    },
};

/// How long output may go on after the first process has ended, as with dockerd: children that left its pid namespace
/// hold it open, or a client reads too slowly.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

impl Engine {
    /// Waits for the end of a run on a task, records it, and tears the run down.
    pub(crate) fn watch_exit(&self, container: &Arc<Container>, output: JoinHandle<()>) {
        let engine = self.clone();
        let container = container.clone();
        self.spawn("run", async move {
            let exit = match engine.backends.runtime.wait(container.id(), None).await {
                Ok(exit) => exit,
                Err(error) => {
                    if error.kind() != ErrorKind::NotFound {
                        warn!(container.id = %container.id(), "waiting for container {}: {error}", container.id());
                    }
                    Exit { code: UNKNOWN_EXIT, at: Timestamp::now(), oom_killed: false }
                }
            };
            engine.end_run(&container, exit, Some(output)).await;
        });
    }

    /// Records an exit, answers who waits for it, and takes away what the run had. Nobody but a second start waits for
    /// the task's deletion, which takes the runtime its time.
    pub(crate) async fn end_run(&self, container: &Arc<Container>, exit: Exit, output: Option<JoinHandle<()>>) {
        // Nobody removes what runs.
        let Ok(turn) = container.turn().await else { return };
        let restart = self.restart_after(&turn, &exit);
        let started_at = turn.state().live().map(|live| live.started_at).unwrap_or_default();
        self.stop_health_checks(container);
        let before = turn.record();
        // The output is whole before the exit is known: who waits and then reads the log misses nothing.
        if let Some(output) = output
            && timeout(OUTPUT_PATIENCE, output).await.is_err()
        {
            warn!(container.id = %container.id(), "output of container {} is held open after its end", container.id());
        }
        // Ports and addresses are free when `wait` answers: the next container may want them at once.
        self.release_network(&before).await;
        turn.publish_exit(|record| {
            record_exit(record, &exit);
            if restart.is_some() {
                record.state = record.state.await_restart();
            }
        });
        container.console.forget_stdin();
        container.console.detach_all();
        self.execs.forget_unstarted(&before.tenant, container.id());
        info!(container.id = %container.id(), exit.code = exit.code, "container {} ended with {}", before.name, exit.code);
        let lasted = (exit.at.unix() - started_at.unix()).max(0);
        let facts = [("execDuration", lasted.to_string()), ("exitCode", exit.code.to_string())];
        self.events.container(&before, "die", &facts);
        if let Err(error) = turn.store(&*self.backends.runtime).await {
            warn!(container.id = %container.id(), "storing the exit of container {}: {error}", container.id());
        }
        self.release_mounts(&before).await;
        self.release_shm(&before).await;
        let tearing_down = container.teardown.lock().await;
        drop(turn);
        if restart.is_none() && before.host_config.auto_remove {
            self.auto_remove(container).await;
        }
        self.delete_task(container).await;
        drop(tearing_down);
        if let Some(pause) = restart {
            self.restart_later(container, pause);
        }
    }

    /// Takes away all that a start has set up. Goes on after a failure; what is gone already is no failure.
    pub(crate) async fn tear_down(&self, container: &Arc<Container>, before: &ContainerRecord) {
        self.release_network(before).await;
        self.delete_task(container).await;
        self.release_mounts(before).await;
        self.release_shm(before).await;
    }

    async fn delete_task(&self, container: &Container) {
        let id = container.id();
        if let Err(error) = self.backends.runtime.delete_task(id).await
            && error.kind() != ErrorKind::NotFound
        {
            warn!(container.id = %id, "deleting the task of container {id}: {}", error.chain());
        }
    }
}

fn record_exit(record: &mut ContainerRecord, exit: &Exit) {
    record.state = match &record.state {
        ContainerState::Running(_) | ContainerState::Paused(_) => {
            record.state.exit(exit.code, exit.at, exit.oom_killed)
        }
        other => {
            let started_at = other.ended().map(|ended| ended.started_at).unwrap_or_default();
            ContainerState::Exited(Ended {
                started_at,
                finished_at: exit.at,
                exit_code: exit.code,
                oom_killed: exit.oom_killed,
                error: String::new(),
            })
        }
    };
    record.networking.forget_run();
    if let Some(health) = &mut record.health {
        health.status = HealthStatus::Unhealthy;
    }
}
