//! Taking up stored containers at start, and ending all at shutdown.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::join_all;
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use super::run::UNKNOWN_EXIT;
use crate::{
    backend::runtime::Exit,
    engine::{
        Engine, build,
        container::Container,
        containers::{delete::DeleteOptions, stop::StopOptions},
    },
    model::{
        Result,
        container::{ContainerRecord, ContainerState},
        id::ContainerId,
        signal::Signal,
        time::Timestamp,
    },
};

impl Engine {
    /// Stores a container's record as it now is.
    pub(crate) async fn store_record(&self, container: &Container) -> Result<()> {
        let record = serde_json::to_vec(&*container.record()).expect("a record is always valid JSON");
        self.backends.runtime.update_record(container.id(), record).await
    }

    /// Takes up stored containers. What ran when the last daemon ended without a shutdown is ended, as dockerd does
    /// without live restore; a removal that was under way is finished; restart policies are then served.
    pub(crate) async fn restore_containers(&self) -> Result<()> {
        self.tell_of_ooms();
        self.read_containers().await?;
        self.end_found_tasks().await?;
        for container in self.containers.list_all() {
            self.settle_restored(&container).await;
        }
        Ok(())
    }

    /// Tells of containers in which the kernel kills for want of memory.
    pub(crate) fn tell_of_ooms(&self) {
        let engine = self.clone();
        let mut ooms = self.backends.runtime.ooms();
        self.spawn("ooms", async move {
            let stopping = engine.stopping();
            loop {
                let id = tokio::select! {
                    id = ooms.recv() => id,
                    () = stopping.cancelled() => return,
                };
                match id {
                    Ok(id) => {
                        let found = engine.containers.list_all().into_iter().find(|container| *container.id() == id);
                        if let Some(container) = found {
                            engine.events.container(&container.record(), "oom", &[]);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    /// Reads all records. One that cannot be read is left alone and named in the log.
    async fn read_containers(&self) -> Result<()> {
        for stored in self.backends.runtime.list_containers().await? {
            match serde_json::from_slice::<ContainerRecord>(&stored.record) {
                Ok(record) => self.containers.insert(self.in_memory(record)),
                Err(_) if build::is_pad(&stored.record) => self.backends.runtime.delete_container(&stored.id).await?,
                Err(error) => {
                    warn!(container.id = %stored.id, "reading the record of container {}: {error}", stored.id);
                }
            }
        }
        Ok(())
    }

    async fn end_found_tasks(&self) -> Result<()> {
        let runtime = &self.backends.runtime;
        let found: HashSet<ContainerId> = runtime.list_tasks().await?.into_iter().map(|task| task.id).collect();
        let ending = found.iter().map(|id| async move {
            let _gone = runtime.kill(id, None, Signal::KILL.number(), true).await;
            if let Err(error) = runtime.delete_task(id).await {
                warn!(container.id = %id, "ending what the last daemon left of container {id}: {}", error.chain());
            }
        });
        join_all(ending).await;
        Ok(())
    }

    async fn settle_restored(&self, container: &Arc<Container>) {
        let record = container.record();
        match &record.state {
            ContainerState::Running(_) | ContainerState::Paused(_) => {
                info!(container.id = %record.id, "container {} ran when the last daemon ended", record.name);
                let exit = Exit { code: UNKNOWN_EXIT, at: Timestamp::now(), oom_killed: false };
                self.end_run(container, exit, None).await;
            }
            ContainerState::Removing(_) | ContainerState::Dead(_) => {
                container.update(|record| record.state = record.state.reopen_removal());
                let options = DeleteOptions { force: true, volumes: record.host_config.auto_remove };
                if let Err(error) = self.remove(container, options).await {
                    warn!(container.id = %record.id, "removing container {}: {}", record.id, error.chain());
                }
            }
            ContainerState::Restarting(_) => self.restart_later(container, std::time::Duration::ZERO),
            ContainerState::Exited(_) if self.starts_with_daemon(&record) => {
                container.update(|record| record.state = record.state.await_restart());
                self.restart_later(container, std::time::Duration::ZERO);
            }
            ContainerState::Exited(_) if record.host_config.auto_remove => self.auto_remove(container).await,
            ContainerState::Created(_) | ContainerState::Exited(_) => {}
        }
    }

    /// `always` starts with the daemon, `unless-stopped` unless a client stopped it.
    fn starts_with_daemon(&self, record: &ContainerRecord) -> bool {
        match record.host_config.restart_policy.name.as_str() {
            "always" => true,
            "unless-stopped" => !record.has_been_manually_stopped,
            _ => false,
        }
    }

    /// Ends every container, as a client's stop would, but leaves their restart policies as they are.
    pub(crate) async fn stop_all_containers(&self) {
        let running = self.containers.list_all().into_iter().filter(|container| container.state().counts_as_running());
        let stopping = running.map(|container| async move {
            let was_stopped = container.record().has_been_manually_stopped;
            if let Err(error) = self.stop(&container, &StopOptions::default()).await {
                warn!(container.id = %container.id(), "stopping container {}: {}", container.id(), error.chain());
            }
            // Behind the tear-down, which stores the record too.
            let _settled = container.lock.lock().await;
            container.update(|record| record.has_been_manually_stopped = was_stopped);
            if !container.snapshot().removed
                && let Err(error) = self.store_record(&container).await
            {
                warn!(container.id = %container.id(), "storing container {}: {error}", container.id());
            }
        });
        join_all(stopping).await;
    }
}
