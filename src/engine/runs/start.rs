//! From a container that does not run to one that does.

use std::sync::Arc;

use oci_spec::runtime::Spec;
use tracing::{info, warn};

use crate::{
    backend::runtime::Stdio,
    engine::{
        Engine,
        container::{Container, Turn},
        runs::{failure::StartFailure, streams::pump},
    },
    logs::Writer,
    model::{
        Error, Result,
        container::{ContainerRecord, ContainerState, Health},
        time::Timestamp,
    },
    oci,
};

impl Engine {
    /// Starts a container on a client's wish: what it did before no longer counts for its restart policy.
    pub(crate) async fn start(&self, container: &Arc<Container>) -> Result<()> {
        let turn = container.turn_torn_down().await?;
        if matches!(turn.state(), ContainerState::Restarting(_)) {
            // It counts as running.
            return Err(Error::not_modified("container is already running"));
        }
        self.check_start(&turn)?;
        turn.update(|record| {
            record.has_been_manually_stopped = false;
            record.restart_count = 0;
        });
        self.start_and_settle(turn).await
    }

    /// Starts a container on its restart policy's wish, unless that was called off or a client was faster.
    pub(crate) async fn start_again(&self, container: &Arc<Container>) -> Result<()> {
        let turn = container.turn_torn_down().await?;
        if !matches!(turn.state(), ContainerState::Restarting(_)) {
            return Ok(());
        }
        self.check_start(&turn)?;
        turn.update(|record| record.restart_count += 1);
        self.start_and_settle(turn).await
    }

    /// Starts a container that starts with the daemon, unless a client called that off.
    pub(crate) async fn start_with_daemon(&self, container: &Arc<Container>) -> Result<()> {
        let turn = container.turn_torn_down().await?;
        if !matches!(turn.state(), ContainerState::Restarting(_)) {
            return Ok(());
        }
        self.check_start(&turn)?;
        turn.update(|record| {
            record.has_been_manually_stopped = false;
            record.restart_count = 0;
        });
        self.start_and_settle(turn).await
    }

    fn check_start(&self, turn: &Turn) -> Result<()> {
        turn.state().can_start()?;
        if turn.is_being_removed() {
            return Err(Error::marked_for_removal());
        }
        if self.stopping().is_cancelled() {
            return Err(Error::unavailable("the daemon is shutting down"));
        }
        Ok(())
    }

    async fn start_and_settle(&self, turn: Turn) -> Result<()> {
        let state = turn.state();
        turn.end_work_on_earlier_runs();
        let Err(failure) = self.launch(&turn).await else { return Ok(()) };
        let before = turn.record();
        self.tear_down(&turn, &before).await;
        turn.console.forget_stdin();
        turn.update(|record| {
            record.networking.forget_run();
            record.state = state.cancel_restart().fail_start(failure.exit_code, failure.error.message());
        });
        if let Err(error) = turn.store(&*self.backends.runtime).await {
            warn!(container.id = %turn.id(), "storing container {}: {error}", turn.id());
        }
        let container = turn.release();
        if container.record().host_config.auto_remove {
            self.remove_at_end(&container).await;
        }
        Err(failure.error)
    }

    /// The steps of a start. Each is undone by `tear_down`, whichever of them failed.
    async fn launch(&self, turn: &Turn) -> Result<(), StartFailure> {
        let (spec, log) = self.prepare_task(turn).await.map_err(StartFailure::before_task)?;
        self.launch_task(turn, &spec, log).await.map_err(StartFailure::of_task)
    }

    /// What the runtime is to run, and the log for its output.
    async fn prepare_task(&self, turn: &Turn) -> Result<(Spec, Writer)> {
        let log = turn.log.writer()?;
        let prepared = self.prepare_run(turn).await?;
        let record = self.with_given_variables(turn.record())?;
        Ok((oci::spec(&prepared.spec_input(&record, &self.host))?, log))
    }

    async fn launch_task(&self, turn: &Turn, spec: &Spec, log: Writer) -> Result<()> {
        let id = turn.id();
        let runtime = &self.backends.runtime;
        let record = turn.record();
        let stdio = Stdio { terminal: record.config.tty, stdin: record.config.open_stdin };
        let (pid, io) = runtime
            .create_task(id, spec, stdio)
            .await
            .map_err(|error| error.context("failed to create task for container"))?;
        let output = pump(self, turn, io, log);
        if let Err(error) = runtime.start_task(id).await {
            // The pump ends when the tear-down deletes the task.
            return Err(error.context("failed to start task for container"));
        }
        let state = turn.state().cancel_restart().start(pid, Timestamp::now())?;
        turn.update(|record| {
            record.state = state;
            // What former runs' checks said is kept, as with dockerd.
            let log = record.health.take().map(|health| health.log).unwrap_or_default();
            record.health = checks_health(record).then(|| Health { log, ..Health::starting() });
        });
        self.watch_exit(turn, output);
        self.events.container(&turn.record(), "start", &[]);
        info!(container.id = %id, process.pid = pid, "started container {} as process {pid}", record.name);
        self.start_health_checks(turn);
        turn.store(&**runtime).await
    }
}

/// Whether there is a health check that is not `NONE`.
pub(crate) fn checks_health(record: &ContainerRecord) -> bool {
    let test = record.config.healthcheck.as_ref().and_then(|check| check.test.as_ref());
    test.is_some_and(|test| test.first().is_some_and(|word| word != "NONE"))
}
