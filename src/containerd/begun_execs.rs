//! What is kept of execs between their creation and their removal.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::io::{Fifos, Hold};
use crate::model::id::{ContainerId, ExecId};

type Execs = HashMap<(ContainerId, ExecId), BegunExec>;

/// Execs of one container that start at once with a containerd whose shim stands still if there are many. Of 1.6.20 on two cores, 40 that
/// begin together take 31.6 s without a bound and an idle processor for most of it; 2.7 s with a bound of four, 2.2 s of eight, 2.5 s of
/// sixteen. 25 at once stall now and then, so that eight leaves room for slower machines.
const AT_ONCE: usize = 8;

/// By container and exec.
pub(super) struct BegunExecs {
    execs: Mutex<Execs>,
    /// Of containers whose execs wait for each other's start; `None` with a containerd that has no need of it.
    starts: Option<Mutex<HashMap<ContainerId, Arc<Semaphore>>>>,
}

/// Held while an exec is being started.
pub(super) type Starting = Option<OwnedSemaphorePermit>;

/// What its start has to know.
#[derive(Default)]
pub(super) struct Begun {
    /// What it runs.
    pub(super) program: String,
    /// Whether its input is to be closed.
    pub(super) has_empty_stdin: bool,
}

/// One of them.
pub(super) struct BegunExec {
    fifos: Fifos,
    hold: Option<Hold>,
    starting: Starting,
    program: String,
}

impl BegunExecs {
    /// For the execs of a containerd of this version.
    pub(super) fn of(version: &str) -> Self {
        let stalls = version.trim_start_matches('v').starts_with("1.6.");
        Self { execs: Mutex::default(), starts: stalls.then(Mutex::default) }
    }

    /// Waits until an exec of this container may be started.
    pub(super) async fn may_start(&self, id: &ContainerId) -> Starting {
        let starts = {
            let mut starts = self.starts.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
            starts.entry(id.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
        };
        // It is never closed.
        starts.acquire_owned().await.ok()
    }
}

impl BegunExec {
    /// Its pipes, with their writing ends, and what it runs.
    pub(super) fn new(fifos: Fifos, hold: Hold, starting: Starting, program: &str) -> Self {
        Self { fifos, hold: Some(hold), starting, program: program.to_owned() }
    }
}

impl BegunExecs {
    /// Remembers a new exec and keeps the writing ends of its pipes open.
    pub(super) fn keep(&self, id: &ContainerId, exec: &ExecId, begun: BegunExec) {
        self.lock().insert((id.clone(), exec.clone()), begun);
    }

    /// The shim has opened its ends, or will not: from now on the outputs end when it closes them.
    pub(super) fn release_hold(&self, id: &ContainerId, exec: &ExecId) -> Option<Begun> {
        let mut execs = self.lock();
        let begun = execs.get_mut(&(id.clone(), exec.clone()))?;
        begun.hold = None;
        begun.starting = None;
        Some(Begun { program: begun.program.clone(), has_empty_stdin: begun.fifos.has_empty_stdin() })
    }

    /// Takes the pipes' names away.
    pub(super) fn remove(&self, id: &ContainerId, exec: &ExecId) {
        let removed = self.lock().remove(&(id.clone(), exec.clone()));
        if let Some(begun) = removed {
            begun.fifos.remove();
        }
    }

    /// Forgets all execs of a container whose folder of pipes is gone.
    pub(super) fn forget_container(&self, id: &ContainerId) {
        self.lock().retain(|(container, _), _| container != id);
        if let Some(starts) = &self.starts {
            starts.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Execs> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn starts_wait_for_each_other_where_the_shim_stalls() {
        let (one, other) = (ContainerId::random(), ContainerId::random());
        let execs = BegunExecs::of("1.6.20~ds1");
        let mut starting = Vec::new();
        for _ in 0..AT_ONCE {
            starting.push(execs.may_start(&one).await);
        }
        assert!(execs.may_start(&other).await.is_some(), "each container has its own shim");
        {
            let mut next = std::pin::pin!(execs.may_start(&one));
            assert!(futures_util::poll!(next.as_mut()).is_pending());
            starting.pop();
            assert!(next.await.is_some());
        }
        assert!(BegunExecs::of("1.7.24").may_start(&one).await.is_none());
        assert!(BegunExecs::of("v2.1.9").may_start(&one).await.is_none());
    }
}
