//! Daemons of one machine choose subnets one after the other: each sees the others' only once their bridges are
//! there.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};

const FILE: &str = "/run/ringer-networks.lock";

/// Held between looking for a free subnet and taking it.
pub struct MachineLock(#[allow(dead_code, reason = "held for its drop")] Option<File>);

impl MachineLock {
    /// Waits for other daemons. Where the file cannot be made there is nobody to wait for.
    pub async fn take() -> Self {
        let locked = tokio::task::spawn_blocking(|| {
            let file = File::options().create(true).truncate(false).write(true).open(FILE)?;
            flock(&file, FlockOperation::LockExclusive)?;
            std::io::Result::Ok(file)
        });
        Self(locked.await.ok().and_then(Result::ok))
    }
}
