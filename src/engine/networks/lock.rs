//! Daemons of one machine choose subnets one after the other: each sees the others' only once their bridges are
//! there.

use std::{fs::File, sync::Arc};

use rustix::fs::{FlockOperation, flock};

use crate::backend::network::NetworkBackend;

const FILE: &str = "/run/ringer-networks.lock";

/// Held between looking for a free subnet and taking it.
pub struct MachineLock(#[allow(dead_code, reason = "held for its drop")] Option<File>);

impl MachineLock {
    /// Waits for other daemons. Where the file cannot be made there is nobody to wait for, and in the host of a job
    /// there is no other daemon.
    pub async fn take(host: &Arc<dyn NetworkBackend>) -> Self {
        if host.namespace().is_some() {
            return Self(None);
        }
        let locked = tokio::task::spawn_blocking(|| {
            let file = File::options().create(true).truncate(false).write(true).open(FILE)?;
            flock(&file, FlockOperation::LockExclusive)?;
            std::io::Result::Ok(file)
        });
        Self(locked.await.ok().and_then(Result::ok))
    }
}
