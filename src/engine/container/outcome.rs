//! What is told of a container that has ended, also when it is gone.

use super::Snapshot;

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
