//! What is told of a container that has ended, also when it is gone.

use super::Snapshot;

/// Exit code of a container whose exit nobody saw, as dockerd says.
pub(crate) const UNKNOWN_EXIT: i64 = 255;

/// Exit code of a process that went down with its container.
pub(crate) const KILLED_EXIT: i64 = 137;

/// How the container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitOutcome {
    /// Exit code.
    pub status_code: i64,
    /// Why it could not be started, if that is how it ended.
    pub error: Option<String>,
}

impl WaitOutcome {
    /// From a container as it is.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let ended = snapshot.record.state.ended();
        // Why a container with AutoRemove could not be started is told by the start; docker CLI would print it twice.
        let error = ended.map(|ended| ended.error.clone()).filter(|error| !error.is_empty() && !snapshot.removed);
        Self { status_code: ended.map_or(0, |ended| ended.exit_code), error }
    }
}
