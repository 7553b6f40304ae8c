//! How long containerd may take for an answer, by the kind of the call: the one place that says so.
//!
//! dockerd waits for ever, and a client of it learns nothing of a containerd that hangs. The limit is gRPC's own
//! (`grpc-timeout`), so that containerd gives a call up as well, and passes it on to the shim.

use std::{error::Error as _, time::Duration};

use containerd_client::tonic::{Code, Status, TimeoutExpired};

/// Look-ups in containerd's database, and what a shim does by itself.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Changes in the database: they wait for each other, and one that commits a layer measures it meanwhile.
pub(super) const CHANGE: Duration = Duration::from_secs(60);

/// A signal. What follows then is the signal by the process's number.
pub(super) const SIGNAL: Duration = Duration::from_secs(3);

/// What the OCI runtime does: making, starting and deleting processes.
pub(super) const RUNTIME: Duration = Duration::from_secs(120);

/// What grows with the files of a layer, or waits for the garbage collector.
pub(super) const DISK: Duration = Duration::from_secs(600);

/// The limit of a call. None for streams and for what lasts as long as a process or a layer does: those end with the
/// one who waits for them.
pub(super) fn limit_of(service: &str, method: &str) -> Option<Duration> {
    match (service.rsplit('.').next()?, method) {
        ("Tasks", "Wait")
        | ("Events" | "Diff", _)
        | ("Content", "Read" | "Write" | "List")
        | ("Containers", "ListStream")
        | ("Snapshots", "List") => None,
        ("Tasks", "Kill") => Some(SIGNAL),
        ("Tasks", "Create" | "Start" | "Exec" | "Delete" | "DeleteProcess") => Some(RUNTIME),
        ("Snapshots", "Prepare" | "View" | "Commit" | "Remove" | "Usage") | ("Images" | "Leases", "Delete") => {
            Some(DISK)
        }
        ("Containers" | "Images" | "Leases" | "Content", "Create" | "Update" | "Delete" | "AddResource" | "Abort") => {
            Some(CHANGE)
        }
        _ => Some(ANSWER),
    }
}

/// Whether a call ended because its limit was over, here or at containerd.
pub(super) fn is_over_limit(status: &Status) -> bool {
    if status.code() == Code::DeadlineExceeded {
        return true;
    }
    // An answer of containerd's that overtakes the end of our own waiting: some versions tell the limit in Go's words alone.
    if status.code() == Code::Unknown && status.message().trim_end_matches(": unknown") == "context deadline exceeded" {
        return true;
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_known_by_its_code_or_by_gos_words() {
        for text in ["context deadline exceeded", "context deadline exceeded: unknown"] {
            assert!(is_over_limit(&Status::unknown(text)));
        }
        assert!(is_over_limit(&Status::deadline_exceeded("")));
        assert!(!is_over_limit(&Status::unknown("runc did not start: context deadline exceeded")));
    }

    #[test]
    fn calls_have_limits_and_streams_have_none() {
        assert_eq!(limit_of("containerd.services.tasks.v1.Tasks", "Kill"), Some(SIGNAL));
        assert_eq!(limit_of("containerd.services.images.v1.Images", "List"), Some(ANSWER));
        assert_eq!(limit_of("containerd.services.containers.v1.Containers", "Update"), Some(CHANGE));
        assert_eq!(limit_of("containerd.services.leases.v1.Leases", "Delete"), Some(DISK));
        assert_eq!(limit_of("containerd.services.tasks.v1.Tasks", "Wait"), None);
        assert_eq!(limit_of("containerd.services.content.v1.Content", "Write"), None);
    }
}
