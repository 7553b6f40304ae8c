//! `POST /containers/{id}/start`.

use std::sync::Arc;

use oci_spec::runtime::Spec;
use tracing::{info, warn};

use crate::{
    backend::runtime::Stdio,
    engine::{
        Engine,
        container::Container,
        containers::{delete::DeleteOptions, failure::StartFailure, run::pump},
    },
    logs::Writer,
    model::{
        Error, Result,
        container::{ContainerRecord, Health},
        id::Tenant,
        time::Timestamp,
    },
    oci,
};

impl Engine {
    /// Starts a container. `NotModified` if it runs.
    pub async fn container_start(&self, tenant: &Tenant, reference: &str) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        let engine = self.clone();
        self.run("container_start", async move {
            container.state().can_start()?;
            engine.start(&container).await
        })
        .await
    }

    /// Starts a container on a client's wish: what it did before no longer counts for its restart policy.
    pub(crate) async fn start(&self, container: &Arc<Container>) -> Result<()> {
        self.start_and_settle(container, true).await
    }

    /// Starts a container on its restart policy's wish.
    pub(crate) async fn start_again(&self, container: &Arc<Container>) -> Result<()> {
        self.start_and_settle(container, false).await
    }

    async fn start_and_settle(&self, container: &Arc<Container>, by_client: bool) -> Result<()> {
        let changing = container.lock_torn_down().await;
        let state = container.state();
        state.can_start()?;
        if container.is_being_removed() {
            return Err(Error::conflict("container is marked for removal and cannot be started"));
        }
        if self.stopping().is_cancelled() {
            return Err(Error::unavailable("the daemon is shutting down"));
        }
        if by_client {
            container.update(|record| {
                record.has_been_manually_stopped = false;
                record.restart_count = 0;
            });
        }
        let Err(failure) = self.launch(container).await else { return Ok(()) };
        let before = container.record();
        self.tear_down(container, &before).await;
        container.console.forget_stdin();
        container.update(|record| {
            record.networking.forget_run();
            record.state = state.cancel_restart().fail_start(failure.exit_code, failure.error.message());
        });
        if let Err(error) = self.store_record(container).await {
            warn!(container.id = %container.id(), "storing container {}: {error}", container.id());
        }
        drop(changing);
        if container.record().host_config.auto_remove {
            let removed = self.remove(container, DeleteOptions { force: true, volumes: true }).await;
            if let Err(error) = removed {
                warn!(container.id = %container.id(), "removing container {}: {error}", container.id());
            }
        }
        Err(failure.error)
    }

    /// The steps of a start. Each is undone by `tear_down`, whichever of them failed.
    async fn launch(&self, container: &Arc<Container>) -> Result<(), StartFailure> {
        let (spec, log) = self.prepare_task(container).await.map_err(StartFailure::before_task)?;
        self.launch_task(container, &spec, log).await.map_err(StartFailure::of_task)
    }

    /// What the runtime is to run, and the log for its output.
    async fn prepare_task(&self, container: &Arc<Container>) -> Result<(Spec, Writer)> {
        let log = container.log.writer()?;
        let prepared = self.prepare_run(container).await?;
        let record = self.with_link_variables(container.record())?;
        Ok((oci::spec(&prepared.spec_input(&record, &self.host))?, log))
    }

    async fn launch_task(&self, container: &Arc<Container>, spec: &Spec, log: Writer) -> Result<()> {
        let id = container.id();
        let runtime = &self.backends.runtime;
        let record = container.record();
        let stdio = Stdio { terminal: record.config.tty, stdin: record.config.open_stdin };
        let (pid, io) = runtime
            .create_task(id, spec, stdio)
            .await
            .map_err(|error| error.context("failed to create task for container"))?;
        let output = pump(self, container, io, log);
        if let Err(error) = runtime.start_task(id).await {
            // The pump ends when the tear-down deletes the task.
            return Err(error.context("failed to start task for container"));
        }
        let state = container.state().cancel_restart().start(pid, Timestamp::now())?;
        container.update(|record| {
            record.state = state;
            record.health = checks_health(record).then(Health::starting);
        });
        self.watch_exit(container, output);
        self.events.container(&container.record(), "start", &[]);
        info!(container.id = %id, process.pid = pid, "started container {} as process {pid}", record.name);
        self.start_health_checks(container);
        self.store_record(container).await
    }
}

/// Whether there is a health check that is not `NONE`.
pub(crate) fn checks_health(record: &ContainerRecord) -> bool {
    let test = record.config.healthcheck.as_ref().and_then(|check| check.test.as_ref());
    test.is_some_and(|test| test.first().is_some_and(|word| word != "NONE"))
}
