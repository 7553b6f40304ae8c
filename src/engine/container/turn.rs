//! The turn of a container: nobody changes or stores its record without it.

use std::{ops::Deref, sync::Arc};

use tokio::sync::OwnedMutexGuard;

use super::{Container, Removal};
use crate::{
    backend::runtime::Runtime,
    model::{Error, Result, container::ContainerRecord, record},
};

/// Held by the one who changes a container. A verb that changes something looks at the state only through it, since
/// what it saw before may have changed while it waited.
///
/// Never held while a process is waited for: the recording of its end takes a turn. Taken before
/// [`Container::exec_starts`], never while that is held.
pub(crate) struct Turn {
    container: Arc<Container>,
    _held: OwnedMutexGuard<()>,
}

impl Deref for Turn {
    type Target = Arc<Container>;

    fn deref(&self) -> &Arc<Container> {
        &self.container
    }
}

impl Container {
    /// Waits for the turn. An error if the container is gone by then.
    pub(crate) async fn turn(self: &Arc<Self>) -> Result<Turn> {
        // Who waits for the turn of one that goes need not wait for its rest to be taken away.
        let held = tokio::select! {
            held = self.lock.clone().lock_owned() => held,
            _ = self.wait_for(|snapshot| snapshot.removed) => return Err(self.is_gone()),
        };
        match self.snapshot().removed {
            true => Err(self.is_gone()),
            false => Ok(Turn { container: self.clone(), _held: held }),
        }
    }

    /// The same, when the last run is torn down. Never holds the one lock while it waits for the other: an ended run
    /// that removes itself needs both the other way round.
    pub(crate) async fn turn_torn_down(self: &Arc<Self>) -> Result<Turn> {
        loop {
            let turn = self.turn().await?;
            if self.teardown.try_lock().is_ok() {
                return Ok(turn);
            }
            drop(turn);
            drop(self.teardown.lock().await);
        }
    }

    fn is_gone(&self) -> Error {
        Error::no_such_container(self.id.as_str())
    }
}

impl Turn {
    /// Changes the record and publishes it.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut ContainerRecord) -> T) -> T {
        let mut result = None;
        self.container.snapshot.send_modify(|snapshot| result = Some(change(Arc::make_mut(&mut snapshot.record))));
        result.expect("send_modify calls its closure")
    }

    /// Changes the record if the change succeeds; otherwise nothing is published.
    pub(crate) fn try_update<T, E>(&self, change: impl FnOnce(&mut ContainerRecord) -> Result<T, E>) -> Result<T, E> {
        let mut result = None;
        self.container.snapshot.send_if_modified(|snapshot| {
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
        self.container.snapshot.send_modify(|snapshot| {
            change(Arc::make_mut(&mut snapshot.record));
            snapshot.exits += 1;
        });
    }

    /// Says that a removal has begun. Conflict if one has begun before; undone when the guard is dropped unfinished.
    pub(crate) fn begin_removal(&self, named: &str) -> Result<Removal> {
        let mut notes = self.container.notes();
        if std::mem::replace(&mut notes.removing, true) {
            return Err(Error::removal_in_progress(named));
        }
        Ok(Removal(Some(self.container.clone())))
    }

    /// Publishes that it is gone: nobody gets its turn any more.
    pub(crate) fn publish_removed(self) {
        self.container.snapshot.send_modify(|snapshot| snapshot.removed = true);
    }

    /// Before a client adds so many bytes to the record: Conflict if its tenant has no room for them.
    pub(crate) fn make_room(&self, more: usize) -> Result<()> {
        self.place().check(more)
    }

    /// Stores the record as it now is.
    pub(crate) async fn store(&self, runtime: &dyn Runtime) -> Result<()> {
        let json = record::write(&*self.record());
        self.place().set(record::weigh(&json));
        runtime.update_record(self.id(), json).await
    }

    /// Lets others have their turn.
    pub(crate) fn release(self) -> Arc<Container> {
        self.container.clone()
    }
}
