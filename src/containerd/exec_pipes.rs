//! Pipes of execs between their creation and their removal.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::io::{Fifos, Hold};
use crate::model::id::{ContainerId, ExecId};

type Pipes = HashMap<(ContainerId, ExecId), (Fifos, Option<Hold>)>;

/// By container and exec.
#[derive(Default)]
pub(super) struct ExecPipes(Mutex<Pipes>);

impl ExecPipes {
    /// Remembers the pipes of a new exec and keeps their writing ends open.
    pub(super) fn keep(&self, id: &ContainerId, exec: &ExecId, fifos: Fifos, hold: Hold) {
        self.lock().insert((id.clone(), exec.clone()), (fifos, Some(hold)));
    }

    /// The shim has opened its ends, or will not: from now on the outputs end when it closes them.
    pub(super) fn release_hold(&self, id: &ContainerId, exec: &ExecId) {
        if let Some((_, hold)) = self.lock().get_mut(&(id.clone(), exec.clone())) {
            *hold = None;
        }
    }

    /// Takes the pipes' names away.
    pub(super) fn remove(&self, id: &ContainerId, exec: &ExecId) {
        let removed = self.lock().remove(&(id.clone(), exec.clone()));
        if let Some((fifos, _)) = removed {
            fifos.remove();
        }
    }

    /// Forgets all execs of a container whose folder of pipes is gone.
    pub(super) fn forget_container(&self, id: &ContainerId) {
        self.lock().retain(|(container, _), _| container != id);
    }

    fn lock(&self) -> MutexGuard<'_, Pipes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
