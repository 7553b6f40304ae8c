//! Taking up stored containers when the daemon starts.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream};
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use super::restart::wants_restart;
use crate::{
    backend::runtime::Exit,
    engine::{
        Engine,
        container::{Container, UNKNOWN_EXIT},
        networks::links_of,
    },
    model::{
        Result,
        container::{ContainerRecord, ContainerState, RestartMode, SourceRoot},
        id::ContainerId,
        layer::LayerRecord,
        record::{self, Record, Unread},
        time::Timestamp,
    },
};

/// Containers that are settled at once; each costs some calls that wait for the disk.
const AT_ONCE: usize = 16;

/// How long, and how far apart, tasks are looked for that a dead daemon began.
const LATE: Duration = Duration::from_secs(15);
const LATE_PAUSE: Duration = Duration::from_millis(500);

impl Engine {
    /// Takes up stored containers. What ran when the last daemon ended without a shutdown is ended, as dockerd does
    /// without live restore.
    pub(crate) async fn take_up_containers(&self) -> Result<()> {
        self.tell_of_ooms();
        self.read_containers().await?;
        self.end_found_tasks().await
    }

    /// Finishes what was under way. What starts with the daemon counts as restarting from then on, and is started
    /// while clients are served already.
    pub(crate) async fn settle_containers(&self) {
        let (starting, others): (Vec<_>, Vec<_>) =
            self.containers.list_all().into_iter().partition(|container| match &container.record().state {
                ContainerState::Exited(ended) => starts_with_daemon(&container.record(), ended.exit_code),
                _ => false,
            });
        for container in &starting {
            self.log_unread(container);
            if let Ok(turn) = container.turn().await {
                turn.update(|record| record.state = record.state.await_restart());
            }
        }
        let settling = stream::iter(others).for_each_concurrent(AT_ONCE, |container| async move {
            self.log_unread(&container);
            self.settle_restored(&container).await;
        });
        settling.await;
        let engine = self.clone();
        self.spawn("starts", async move { engine.start_in_order(starting).await });
        let engine = self.clone();
        self.spawn("late tasks", async move { engine.end_late_tasks().await });
    }

    /// Ends tasks that come after the first look: a containerd that outlives its daemon goes on with the starts that were under way.
    async fn end_late_tasks(&self) {
        let (deadline, mut before) = (Instant::now() + LATE, HashSet::new());
        let stopping = self.stopping();
        while Instant::now() < deadline {
            tokio::select! {
                () = tokio::time::sleep(LATE_PAUSE) => {}
                () = stopping.cancelled() => return,
            }
            let Ok(begun) = self.backends.runtime.list_begun().await else { continue };
            // What is seen once may be about to go by itself.
            join_all(begun.intersection(&before).map(|id| self.end_late_task(id))).await;
            before = begun;
        }
    }

    async fn end_late_task(&self, id: &ContainerId) {
        let container = self.containers.list_all().into_iter().find(|container| container.id() == id);
        // Nobody starts it while its turn is held, and an ended run takes its task away by itself.
        let turn = match &container {
            Some(container) if container.state().live().is_some() => return,
            Some(container) => match (container.turn().await, container.teardown.try_lock()) {
                (Ok(turn), Ok(torn_down)) if turn.state().live().is_none() => Some((turn, torn_down)),
                _ => return,
            },
            None => None,
        };
        if let Err(error) = self.backends.runtime.end_begun(id).await {
            warn!(container.id = %id, "ending what the last daemon left of container {id}: {}", error.chain());
        }
        drop(turn);
    }

    /// Adds to the log what a container wrote while no daemon read it, and the beginning of a line that waited for its end.
    fn log_unread(&self, container: &Container) {
        let unread = self.backends.runtime.take_unread(container.id());
        if unread.is_empty() && !container.log.has_unfinished() {
            return;
        }
        match container.log.writer() {
            Ok(mut log) => {
                for (stream, bytes) in unread {
                    log.write(stream, &bytes);
                }
                log.finish();
            }
            Err(error) => warn!(container.id = %container.id(), "opening the log of {}: {error}", container.id()),
        }
    }

    async fn start_in_order(&self, mut starting: Vec<Arc<Container>>) {
        while !starting.is_empty() {
            let (later, now): (Vec<_>, Vec<_>) =
                starting.iter().cloned().partition(|container| self.needs_one_of(&container.record(), &starting));
            // Containers that need each other can never start: let them say so.
            let (now, later) = if now.is_empty() { (later, now) } else { (now, later) };
            join_all(now.iter().map(|container| async move {
                if let Err(error) = self.start_with_daemon(container).await {
                    warn!(container.id = %container.id(), "starting container {}: {}", container.id(), error.chain());
                }
            }))
            .await;
            starting = later;
        }
    }

    /// Whether a container uses what another one that is still to start has: its namespaces, its address for a link, or its files.
    fn needs_one_of(&self, record: &ContainerRecord, starting: &[Arc<Container>]) -> bool {
        let config = &record.host_config;
        let joined = [config.network_mode.container(), config.pid_mode.container(), config.ipc_mode.container()];
        let joined = joined.into_iter().flatten().map(str::to_owned);
        let linked = links_of(record).into_iter().map(|link| link.target);
        let starts = |id: &ContainerId| starting.iter().any(|other| other.id() == id);
        let named_in = record.mounts.iter().any(|point| match &point.root {
            SourceRoot::Container(id) => starts(id),
            SourceRoot::Machine | SourceRoot::Exact | SourceRoot::Socket => false,
        });
        let is_starting =
            |name: String| self.containers.get(&record.tenant, &name).is_ok_and(|needed| starts(needed.id()));
        named_in || joined.chain(linked).any(is_starting)
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
        let (mut layers, mut unread) = (Vec::new(), Vec::new());
        for stored in self.backends.runtime.list_containers().await? {
            match read(&stored.record) {
                Ok(Stored::Container(record)) => {
                    let place = self.rooms.hold(&record.tenant, record::weigh(&stored.record));
                    self.containers.insert(self.in_memory(*record, place));
                }
                Ok(Stored::Layer(LayerRecord::Build)) => self.backends.runtime.delete_container(&stored.id).await?,
                Ok(Stored::Layer(LayerRecord::ImageMount { container })) => layers.push((stored.id, container)),
                Err(error) => {
                    warn!(container.id = %stored.id, "reading the record of container {}: {error}", stored.id);
                    unread.push(stored.id);
                }
            }
        }
        self.delete_lost_layers(layers, &unread).await
    }

    async fn end_found_tasks(&self) -> Result<()> {
        let runtime = &self.backends.runtime;
        let found: HashSet<ContainerId> = runtime.list_tasks().await?.into_iter().map(|task| task.id).collect();
        let ending = found.iter().map(|id| async move {
            if let Err(error) = runtime.end_found_task(id).await {
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
                self.end_restored(container).await;
            }
            ContainerState::Removing(_) | ContainerState::Dead(_) => self.resume_removal(container).await,
            ContainerState::Restarting(_) => self.restart_later(container, Duration::ZERO),
            ContainerState::Exited(_) if record.host_config.auto_remove => self.auto_remove(container).await,
            ContainerState::Created(_) | ContainerState::Exited(_) => {}
        }
    }

    /// Returns when the exit is published. Storing it and releasing mounts waits for the disk and the kernel: that goes on in
    /// the container's turn, for which verbs wait, while clients are served.
    async fn end_restored(&self, container: &Arc<Container>) {
        let exit = Exit { code: UNKNOWN_EXIT, at: Timestamp::now(), oom_killed: false };
        let (engine, ending) = (self.clone(), container.clone());
        let ended = self.spawn_joined("settle", async move { engine.end_run(&ending, exit, None).await });
        tokio::select! {
            _ = container.wait_for(|now| now.record.state.live().is_none()) => {}
            _ = ended => {}
        }
    }
}

/// As dockerd: by the restart policy alone. Of those that a client stopped only `unless-stopped` stay down.
fn starts_with_daemon(record: &ContainerRecord, exit_code: i64) -> bool {
    let stays =
        record.host_config.restart_policy.name == RestartMode::UnlessStopped && record.has_been_manually_stopped;
    wants_restart(record, exit_code) && !stays
}

/// What the runtime has a record of.
enum Stored {
    Container(Box<ContainerRecord>),
    Layer(LayerRecord),
}

fn read(json: &[u8]) -> Result<Stored, Unread> {
    if let Some(layer) = LayerRecord::of_0_1(json) {
        return Ok(Stored::Layer(layer));
    }
    match record::read(json) {
        Err(Unread::Other(kind)) if kind == LayerRecord::KIND => record::read(json).map(Stored::Layer),
        record => record.map(|record| Stored::Container(Box::new(record))),
    }
}
