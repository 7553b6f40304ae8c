//! What is kept of execs between their creation and their removal.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::io::{Fifos, Hold};
use crate::model::id::{ContainerId, ExecId};

type Execs = HashMap<(ContainerId, ExecId), BegunExec>;

/// By container and exec.
#[derive(Default)]
pub(super) struct BegunExecs(Mutex<Execs>);

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

    /// The shim has opened its ends, or will not: from now on the outputs end when it closes them.
    pub(super) fn release_hold(&self, id: &ContainerId, exec: &ExecId) -> Option<Begun> {
        let mut execs = self.lock();
        let begun = execs.get_mut(&(id.clone(), exec.clone()))?;
        begun.hold = None;
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
    }

    fn lock(&self) -> MutexGuard<'_, Execs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
