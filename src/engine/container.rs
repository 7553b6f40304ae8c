//! A container in memory: its record as a published snapshot, its streams, and the lock its verbs take.

use std::{
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex, RwLock, watch};

use crate::{
    engine::containers::console::Console,
    logs::ContainerLog,
    model::{
        Error, Result,
        container::{ContainerRecord, ContainerState},
        id::ContainerId,
    },
};

/// What verbs tell each other about a container and nobody stores.
#[derive(Default)]
struct Notes {
    /// A `DELETE` is under way.
    removing: bool,
    /// A restart is under way: its end must not remove the container.
    auto_remove_held: bool,
    /// The latest pause of the restart policy.
    pause: Duration,
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

/// A container; shared by all verbs that work on it.
pub struct Container {
    id: ContainerId,
    snapshot: watch::Sender<Snapshot>,
    /// Taken by verbs that change the container, and while its exit is recorded.
    pub(crate) lock: Arc<Mutex<()>>,
    /// Held, longer than `lock`, while the task of an ended run is deleted: a second start waits for it, and the
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
}

impl Container {
    /// Takes a record that was just made or read, with the log that goes with it.
    pub fn new(record: ContainerRecord, log: Arc<ContainerLog>) -> Self {
        Self {
            id: record.id.clone(),
            console: Console::default(),
            log,
            notes: StdMutex::default(),
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

    /// Changes the record and publishes it. Storing it is the caller's: [`crate::engine::Engine::store_record`].
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut ContainerRecord) -> T) -> T {
        let mut result = None;
        self.snapshot.send_modify(|snapshot| result = Some(change(Arc::make_mut(&mut snapshot.record))));
        result.expect("send_modify calls its closure")
    }

    /// Changes the record if the change succeeds; otherwise nothing is published.
    pub(crate) fn try_update<T, E>(&self, change: impl FnOnce(&mut ContainerRecord) -> Result<T, E>) -> Result<T, E> {
        let mut result = None;
        self.snapshot.send_if_modified(|snapshot| {
            let mut record = (*snapshot.record).clone();
            let changed = change(&mut record);
            let success = changed.is_ok();
            if success {
                snapshot.record = Arc::new(record);
            }
            result = Some(changed);
            success
        });
        result.expect("send_if_modified calls its closure")
    }

    /// Publishes that the first process has ended.
    pub(crate) fn publish_exit(&self, change: impl FnOnce(&mut ContainerRecord)) {
        self.snapshot.send_modify(|snapshot| {
            change(Arc::make_mut(&mut snapshot.record));
            snapshot.exits += 1;
        });
    }

    /// Publishes that it is gone.
    pub(crate) fn publish_removed(&self) {
        self.snapshot.send_modify(|snapshot| snapshot.removed = true);
    }

    /// Takes the lock when the last run is torn down. Never holds the one while it waits for the other: an ended run
    /// that removes itself needs both the other way round.
    pub(crate) async fn lock_torn_down(&self) -> tokio::sync::MutexGuard<'_, ()> {
        loop {
            let changing = self.lock.lock().await;
            if self.teardown.try_lock().is_ok() {
                return changing;
            }
            drop(changing);
            drop(self.teardown.lock().await);
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a removal has begun. Conflict if one has begun before; undone when the guard is dropped unfinished.
    pub(crate) fn begin_removal(self: &Arc<Self>) -> Result<Removal> {
        let mut notes = self.notes();
        if std::mem::replace(&mut notes.removing, true) {
            return Err(Error::removal_in_progress(self.id.as_str()));
        }
        Ok(Removal(Some(self.clone())))
    }

    /// Whether a removal has begun.
    pub(crate) fn is_being_removed(&self) -> bool {
        self.notes().removing
    }

    /// Keeps the container over an end that is part of a restart.
    pub(crate) fn hold_auto_remove(&self, hold: bool) {
        self.notes().auto_remove_held = hold;
    }

    /// Whether it is kept over its end.
    pub(crate) fn is_auto_remove_held(&self) -> bool {
        self.notes().auto_remove_held
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
