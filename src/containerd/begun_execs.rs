//! What is kept of execs between their creation and their removal.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::io::{Fifos, Hold};
use crate::model::id::{ContainerId, ExecId};

type Begun = HashMap<(ContainerId, ExecId), BegunExec>;

/// By container and exec.
#[derive(Default)]
pub(super) struct BegunExecs(Mutex<Begun>);

/// One of them.
pub(super) struct BegunExec {
    fifos: Fifos,
    hold: Option<Hold>,
    program: String,
}

impl BegunExec {
    /// Its pipes, with their writing ends, and what it runs.
    pub(super) fn new(fifos: Fifos, hold: Hold, program: &str) -> Self {
        Self { fifos, hold: Some(hold), program: program.to_owned() }
    }
}

impl BegunExecs {
    /// Remembers a new exec and keeps the writing ends of its pipes open.
    pub(super) fn keep(&self, id: &ContainerId, exec: &ExecId, begun: BegunExec) {
        self.lock().insert((id.clone(), exec.clone()), begun);
    }

    /// The shim has opened its ends, or will not: from now on the outputs end when it closes them. What the exec
    /// runs, if it is known.
    pub(super) fn release_hold(&self, id: &ContainerId, exec: &ExecId) -> Option<String> {
        let mut begun = self.lock();
        let begun = begun.get_mut(&(id.clone(), exec.clone()))?;
        begun.hold = None;
        Some(begun.program.clone())
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
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
