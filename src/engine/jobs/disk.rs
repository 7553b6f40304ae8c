//! What a job takes of the disk, looked at now and then: the limit that no cgroup has.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    engine::Engine,
    model::{error::Context, id::TenantId, job::JobRecord},
    rootfs,
    work::blocking,
};

/// From one look to the next at the least.
const PAUSE: Duration = Duration::from_secs(2);

/// So many times as long as a look took nobody looks again: a job of very many files costs a twentieth of a processor at most.
const REST: u32 = 20;

impl Engine {
    /// Returns when a job is seen to take more of the disk than it may; never if it has no such limit.
    pub(super) async fn is_over_its_disk(&self, record: &JobRecord) {
        let Some(most) = record.limits.disk else { return std::future::pending().await };
        loop {
            let begun = Instant::now();
            let taken = self.room_of_job(&record.id, most).await;
            if taken > most {
                let name = &record.name;
                warn!(job.id = %record.id, bytes = taken, limit = most, "job {name} takes more of the disk than its {most} bytes");
                return;
            }
            tokio::time::sleep(PAUSE.max(begun.elapsed() * REST)).await;
        }
    }

    /// Bytes that its containers, their logs and its volumes take, also those of its runner. More than `most` are not counted to their end.
    async fn room_of_job(&self, job: &TenantId, most: u64) -> u64 {
        let mut taken: u64 = 0;
        for tenant in [job.clone(), job.of_runner()] {
            let mut folders = self.volume_folders(&tenant);
            for container in self.containers.list(&tenant) {
                // What was removed meanwhile takes nothing.
                taken = taken.saturating_add(self.backends.runtime.usage(container.id()).await.unwrap_or(0));
                folders.push(container.log.folder().to_owned());
            }
            for folder in folders {
                let left = most.saturating_sub(taken);
                taken = taken.saturating_add(room_of(folder, left).await);
            }
        }
        taken
    }

    /// Those whose content lies on our disk; what is mounted in a volume with options is somebody else's.
    fn volume_folders(&self, tenant: &TenantId) -> Vec<PathBuf> {
        let volumes = self.volumes.list(tenant).into_iter();
        let plain = volumes.filter(|info| info.volume.options.as_ref().is_none_or(indexmap::IndexMap::is_empty));
        plain.map(|info| info.mountpoint).collect()
    }
}

async fn room_of(folder: PathBuf, most: u64) -> u64 {
    let measured = blocking(move || rootfs::room_up_to(&folder, most).context("measuring")).await;
    // What was removed meanwhile takes nothing.
    measured.unwrap_or(0)
}
