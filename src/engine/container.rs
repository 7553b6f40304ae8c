//! A container in memory: its record as a published snapshot, its streams, and the turn its verbs take.

pub mod console;
pub mod exec;
mod outcome;
mod turn;

use std::{
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex, RwLock, watch};
use tokio_util::sync::CancellationToken;

pub use self::outcome::WaitOutcome;
pub(crate) use self::outcome::{KILLED_EXIT, UNKNOWN_EXIT};
pub(crate) use self::turn::Turn;

use self::console::Console;
use crate::{
    engine::room::Place,
    logs::ContainerLog,
    model::{
        container::{ContainerRecord, ContainerState},
        id::ContainerId,
    },
};

/// What verbs tell each other about a container and nobody stores.
#[derive(Default)]
struct Notes {
    /// A `DELETE` is under way.
    removing: bool,
    /// Restarts that are under way: their ends must not remove the container.
    restarts: usize,
    /// The latest pause of the restart policy.
    pause: Duration,
    /// Removals that are tried, with those that wait for their turn.
    removals: usize,
    /// Cancelled while there are any, and once it is removed.
    until_removal: CancellationToken,
    /// Cancelled when the next start begins.
    until_start: CancellationToken,
    /// The task that runs health checks.
    health: Option<tokio::task::AbortHandle>,
}

/// What is known of a container at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The record.
    pub record: Arc<ContainerRecord>,
    /// How often its first process has ended since the daemon started: tells one exit from the next.
    pub exits: u64,
    /// It is gone: the name is free and nothing can be done with it any more.
    pub removed: bool,
}

impl Snapshot {
    /// Whether the run is over that was under way when so many had ended.
    pub(crate) fn is_past(&self, exits: u64) -> bool {
        self.exits > exits || !self.record.state.is_running() || self.removed
    }
}

/// A container; shared by all verbs that work on it.
pub struct Container {
    id: ContainerId,
    snapshot: watch::Sender<Snapshot>,
    /// Whose turn it is: [`Turn`].
    lock: Arc<Mutex<()>>,
    /// Held, longer than the turn, while the task of an ended run is deleted: a second start waits for it, and the
    /// end of a removal that is answered already.
    pub(crate) teardown: Arc<Mutex<()>>,
    /// Read while an exec is being started, written while it is frozen: a half-made exec in a frozen container holds
    /// up its shim, and with it the thaw.
    pub(crate) exec_starts: RwLock<()>,
    /// Its streams.
    pub(crate) console: Console,
    /// Its log.
    pub(crate) log: Arc<ContainerLog>,
    notes: StdMutex<Notes>,
    /// What its record takes of its tenant's room.
    place: StdMutex<Place>,
}

impl Container {
    /// Takes a record that was just made or read, with its place and the log that goes with it.
    pub fn new(record: ContainerRecord, place: Place, log: Arc<ContainerLog>) -> Self {
        Self {
            id: record.id.clone(),
            console: Console::default(),
            log,
            notes: StdMutex::default(),
            place: StdMutex::new(place),
            snapshot: watch::Sender::new(Snapshot { record: Arc::new(record), exits: 0, removed: false }),
            lock: Arc::default(),
            teardown: Arc::default(),
            exec_starts: RwLock::default(),
        }
    }

    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The record as it is now.
    pub fn record(&self) -> Arc<ContainerRecord> {
        self.snapshot.borrow().record.clone()
    }

    /// The state as it is now.
    pub fn state(&self) -> ContainerState {
        self.snapshot.borrow().record.state.clone()
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// A view that can wait for a condition.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For long work on its files, which ends when it is removed.
    pub(crate) fn until_removal(&self) -> CancellationToken {
        self.notes().until_removal.clone()
    }

    /// For long work on the files of one run, which ends when the next begins.
    pub(crate) fn until_start(&self) -> CancellationToken {
        self.notes().until_start.clone()
    }

    /// Ends long work on its files, and keeps other from beginning as long as what this returns is held. Before the turn
    /// of a removal is waited for: the work may have it.
    pub(crate) fn end_work(self: &Arc<Self>) -> WorkEnded {
        let mut notes = self.notes();
        notes.until_removal.cancel();
        notes.removals += 1;
        WorkEnded(self.clone())
    }

    /// Ends what still writes through the process of an earlier run.
    pub(crate) fn end_work_on_earlier_runs(&self) {
        std::mem::take(&mut self.notes().until_start).cancel();
    }

    /// Whether a removal has begun.
    pub(crate) fn is_being_removed(&self) -> bool {
        self.notes().removing
    }

    /// Keeps the container over an end that is part of a restart, as long as what this returns is held.
    pub(crate) fn hold_auto_remove(self: &Arc<Self>) -> AutoRemoveHeld {
        self.notes().restarts += 1;
        AutoRemoveHeld(self.clone())
    }

    /// Whether it is kept over its end.
    pub(crate) fn is_auto_remove_held(&self) -> bool {
        self.notes().restarts > 0
    }

    /// Chooses the next pause of the restart policy from the latest one.
    pub(crate) fn next_pause(&self, choose: impl FnOnce(Duration) -> Duration) -> Duration {
        let mut notes = self.notes();
        notes.pause = choose(notes.pause);
        notes.pause
    }

    /// Remembers the task that runs health checks; the one before is ended.
    pub(crate) fn set_health_task(&self, task: Option<tokio::task::AbortHandle>) {
        if let Some(before) = std::mem::replace(&mut self.notes().health, task) {
            before.abort();
        }
    }

    /// Waits until `condition` holds; returns what then is.
    pub(crate) async fn wait_for(&self, condition: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let mut watch = self.watch();
        let snapshot = watch.wait_for(condition).await.expect("the container keeps its sender");
        snapshot.clone()
    }
}

/// A removal that is under way.
pub(crate) struct Removal(Option<Arc<Container>>);

impl Removal {
    /// It is done; there is no way back.
    pub(crate) fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(container) = &self.0 {
            container.notes().removing = false;
        }
    }
}

/// A restart that is under way.
pub(crate) struct AutoRemoveHeld(Arc<Container>);

impl Drop for AutoRemoveHeld {
    fn drop(&mut self) {
        self.0.notes().restarts -= 1;
    }
}

/// A removal that is tried.
pub(crate) struct WorkEnded(Arc<Container>);

impl Drop for WorkEnded {
    fn drop(&mut self) {
        let is_removed = self.0.snapshot.borrow().removed;
        let mut notes = self.0.notes();
        notes.removals -= 1;
        if notes.removals == 0 && !is_removed {
            notes.until_removal = CancellationToken::new();
        }
    }
}
