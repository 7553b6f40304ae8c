//! What a job takes of the disk: the limit that no cgroup has. Where a file system can, it refuses more; in any case it is looked at now
//! and then.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{
    backend::runtime::RootfsMount,
    engine::{
        Engine,
        quota::{self, Places, Quota},
    },
    model::{
        ErrorKind, Result,
        error::Context,
        id::{ContainerId, TenantId},
        job::{DiskPlace, JobLimits, JobRecord, ProjectId},
    },
    rootfs,
    work::blocking,
};

/// From one look to the next: at least, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// So many times as long as a look took nobody looks again, up to the longest pause: a job of many files costs a twentieth of a processor.
const REST: u32 = 20;

/// Of a job's limit, what it may be seen to take beyond it where the kernel refuses more: logs and names are counted here alone, and what
/// was refused ends no job.
const BEYOND_QUOTA: u64 = 10;

/// What a look has found, by the folder of a volume or a log, or by the container's id.
#[derive(Default)]
struct Looked(HashMap<PathBuf, u64>);

impl Engine {
    /// A project for a new job that has such limits; `None` where no file system limits any, or none can be had.
    pub(super) async fn choose_project(&self, limits: &JobLimits) -> Option<ProjectId> {
        limits.disk?;
        let (projects, places) = (self.backends.projects.clone(), self.places_on_disk());
        let choose = move || quota::choose_project(&*projects, &places).context("choosing a project for a job");
        blocking(choose).await.unwrap_or_else(|error| {
            warn!("the disk of a job is watched alone: {}", error.chain());
            None
        })
    }

    /// Has file systems keep a job's limit, those that can now.
    pub(super) async fn set_quota(&self, record: &JobRecord) -> Result<Option<Arc<Quota>>> {
        let (Some(project), Some(most)) = (record.project, record.limits.disk) else { return Ok(None) };
        let (projects, places) = (self.backends.projects.clone(), self.places_on_disk());
        let set = move || Ok(Some(Arc::new(Quota::set(projects, project, most, &places))));
        blocking(set).await
    }

    fn places_on_disk(&self) -> Places {
        let layers = self.backends.runtime.info().layers.clone();
        let layers = layers.map(|folder| (DiskPlace::Layers, folder));
        layers.into_iter().chain([(DiskPlace::Volumes, self.config.data_root.clone())]).collect()
    }

    /// Where file systems keep the limit of a job.
    pub(super) fn disk_quota(&self, job: &TenantId) -> Vec<DiskPlace> {
        let quota = self.tenants.get(job).ok().and_then(|tenant| tenant.quota());
        quota.map(|quota| quota.places().collect()).unwrap_or_default()
    }

    /// Returns when a job is seen to take more of the disk than it may; never if it has no such limit.
    pub(super) async fn took_too_much_disk(&self, record: &JobRecord) {
        let Some(limit) = record.limits.disk else { return std::future::pending().await };
        let most = most_seen(limit, !self.disk_quota(&record.id).is_empty());
        let mut last = Looked::default();
        loop {
            let begun = Instant::now();
            last = self.look_at_disk(&record.id, most, &last).await;
            let taken = last.taken();
            if taken > most {
                let name = &record.name;
                warn!(job.id = %record.id, bytes = taken, limit, "job {name} takes more of the disk than its {limit} bytes");
                return;
            }
            tokio::time::sleep(pause_after(begun.elapsed())).await;
        }
    }

    /// Its containers, their logs and its volumes, also those of its runner. More than `most` are not counted to their end.
    async fn look_at_disk(&self, job: &TenantId, most: u64, last: &Looked) -> Looked {
        let mut look = Looked::default();
        for tenant in [job.clone(), job.of_runner()] {
            let mut folders = self.volume_folders(&tenant);
            for container in self.containers.list(&tenant) {
                let measured = self.room_of_layer(container.id(), look.left_of(most)).await;
                look.add(Path::new(container.id().as_str()), measured, last);
                folders.push(container.log.folder().to_owned());
            }
            for folder in folders {
                let measured = room_of_folder(folder.clone(), look.left_of(most)).await;
                look.add(&folder, measured, last);
            }
        }
        look
    }

    /// What a container's own files take. containerd's walk goes by paths, and ends where the container removes a file or has one too deep.
    pub(super) async fn room_of_layer(&self, id: &ContainerId, most: u64) -> Result<u64> {
        let runtime = &self.backends.runtime;
        match RootfsMount::own_folders(&runtime.rootfs(id).await?) {
            Some((folder, _)) => room_of_folder(folder, most).await,
            // What lies on a device only containerd can tell.
            None => runtime.usage(id).await,
        }
    }

    /// Those whose content lies on our disk; what is mounted in a volume with options is somebody else's.
    fn volume_folders(&self, tenant: &TenantId) -> Vec<PathBuf> {
        let volumes = self.volumes.list(tenant).into_iter();
        let plain = volumes.filter(|info| info.volume.is_plain());
        plain.map(|info| info.mountpoint).collect()
    }
}

impl Looked {
    fn taken(&self) -> u64 {
        self.0.values().fold(0, |taken, bytes| taken.saturating_add(*bytes))
    }

    fn left_of(&self, most: u64) -> u64 {
        most.saturating_sub(self.taken())
    }

    /// What cannot be measured takes what it took at the last look.
    fn add(&mut self, of: &Path, measured: Result<u64>, last: &Self) {
        let bytes = match measured {
            Ok(bytes) => bytes,
            // What was removed meanwhile takes nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                debug!("what {} takes of the disk is not known: {}", of.display(), error.chain());
                last.0.get(of).copied().unwrap_or(0)
            }
        };
        self.0.insert(of.to_owned(), bytes);
    }
}

fn pause_after(look: Duration) -> Duration {
    look.saturating_mul(REST).clamp(PAUSES.0, PAUSES.1)
}

fn most_seen(limit: u64, is_kept: bool) -> u64 {
    if is_kept { limit.saturating_add(limit / BEYOND_QUOTA) } else { limit }
}

async fn room_of_folder(folder: PathBuf, most: u64) -> Result<u64> {
    let measure = move || match rootfs::room_up_to(&folder, most) {
        // What was removed meanwhile takes nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        measured => measured.context("measuring"),
    };
    blocking(measure).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Error;

    #[test]
    fn what_the_kernel_refuses_ends_no_job_and_what_it_does_not_see_does() {
        assert_eq!((most_seen(100, false), most_seen(100, true)), (100, 110));
        assert_eq!(most_seen(u64::MAX, true), u64::MAX);
    }

    #[test]
    fn what_cannot_be_measured_takes_what_it_took() {
        let (mut last, mut look) = (Looked::default(), Looked::default());
        let [kept, gone, fresh] = ["kept", "gone", "fresh"].map(Path::new);
        last.add(kept, Ok(5), &Looked::default());
        last.add(gone, Ok(7), &Looked::default());
        look.add(kept, Err(Error::system("no such device")), &last);
        look.add(gone, Err(Error::not_found("no such container")), &last);
        look.add(fresh, Ok(2), &last);
        assert_eq!((look.taken(), look.left_of(10), look.left_of(3)), (7, 3, 0));
    }

    #[tokio::test]
    async fn folder_that_is_gone_takes_nothing_and_another_fault_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(room_of_folder(folder.path().join("gone"), 10).await.unwrap(), 0);
        assert!(room_of_folder(file, 10).await.is_err());
    }

    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let pauses = [0, 1, 2, 3600].map(|seconds| pause_after(Duration::from_secs(seconds)).as_secs());
        assert_eq!(pauses, [2, 20, 40, 60]);
    }
}
