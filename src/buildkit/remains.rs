//! Where a tenant's builder is, and what there is of it: also when it does not run any more, or did in an earlier life of the daemon.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BUILDKITD, Options,
    containers::name_of,
    leftover::{Left, unmount_below},
};
use crate::{
    backend::{builds, runtime::Runtime},
    model::{
        Error, Result,
        error::Context,
        id::{ContainerId, TenantId},
    },
    processes::mounts,
};

/// The database of a buildkitd's history, below its root.
const HISTORY: &str = "history.db";

/// Ours beside BuildKit's: the size of a cache that outlives its tenant.
const SIZE: &str = "ringer-size";

/// Where its files are.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// Its cache.
    pub(super) root: PathBuf,
    /// Sockets, configuration and log.
    pub(super) run: PathBuf,
}

impl Folders {
    pub(super) fn of(options: &Options, slot: &str) -> Self {
        let below = |root: &Path| root.join("buildkit").join(slot);
        Self { root: below(&options.data_root), run: below(&options.exec_root) }
    }

    /// Where buildkitd serves.
    pub(super) fn socket(&self) -> PathBuf {
        self.run.join("buildkitd.sock")
    }

    /// What it takes for containerd.
    pub(super) fn facade(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// Its network plugins and their configuration.
    pub(super) fn plugins(&self) -> PathBuf {
        self.run.join("cni")
    }

    /// All its sockets.
    fn sockets(&self) -> [PathBuf; 3] {
        [self.socket(), self.facade(), self.traces()]
    }

    /// Where steps that tell of themselves find it.
    pub(super) fn traces(&self) -> PathBuf {
        self.run.join("otel.sock")
    }

    fn remove(&self) -> Result<()> {
        // What is still mounted somewhere below would be emptied.
        if let Some(mounted) = mounts::mounted_below(&self.root).first() {
            return Err(Error::unavailable(format!("{} is still mounted", mounted.display())));
        }
        // The cache goes last: by it we know that there is something.
        [&self.run, &self.root].into_iter().try_for_each(|folder| match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(format!("removing {}", folder.display()))
            }
            _ => Ok(()),
        })
    }

    pub(super) fn log(&self) -> PathBuf {
        self.run.join("log")
    }

    /// Whether there is anything.
    fn exist(&self) -> bool {
        self.root.exists() || self.run.exists()
    }

    /// What it writes and mounts for the time of a step.
    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// One tenant's.
pub(super) struct Remains {
    pub(super) tenant: TenantId,
    /// What it works on.
    cache: TenantId,
    pub(super) folders: Folders,
    options: Arc<Options>,
    runtime: Arc<dyn Runtime>,
}

impl Remains {
    pub(super) fn of(options: &Arc<Options>, runtime: &Arc<dyn Runtime>, tenant: &TenantId, cache: &TenantId) -> Self {
        let folders = Folders::of(options, cache.as_str());
        Self {
            tenant: tenant.clone(),
            cache: cache.clone(),
            folders,
            options: options.clone(),
            runtime: runtime.clone(),
        }
    }

    /// Its namespace in containerd.
    pub(super) fn namespace(&self) -> String {
        builds::namespace(&self.options.place.namespace, &self.cache)
    }

    /// Opens the cgroup of its buildkitd, which is called as a container's.
    pub(super) fn open_cgroup(&self) -> Result<Vec<File>> {
        self.runtime.open_cgroup(&self.tenant, &Self::cgroup())
    }

    fn cgroup() -> ContainerId {
        name_of(BUILDKITD)
    }

    /// Takes away what a buildkitd left that was killed. The cache stays.
    pub(super) async fn tidy(&self) -> Result<Left> {
        // Programs that it had started.
        self.runtime.end_cgroup(&self.tenant, &Self::cgroup()).await?;
        let left = Left::of(&self.options.place, &self.namespace()).await?;
        left.end_containers().await?;
        unmount_below(&self.folders.root).await;
        let _not_there = fs::remove_dir_all(self.folders.temporary());
        for socket in self.folders.sockets() {
            let _not_there = fs::remove_file(socket);
        }
        Ok(left)
    }

    /// Notes how many bytes the cache takes; nobody knows while a builder works on it.
    pub(super) fn note_size(&self, bytes: Option<u64>) -> Result<()> {
        let path = self.folders.root.join(SIZE);
        let noted = match bytes {
            Some(bytes) => fs::write(path, bytes.to_string()),
            None => fs::remove_file(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        noted.context("noting the size of a build cache")
    }

    /// How many bytes the cache takes: as many as it may at most, if its last builder could not say.
    fn size(&self) -> u64 {
        let noted = fs::read_to_string(self.folders.root.join(SIZE)).ok();
        noted.and_then(|noted| noted.parse().ok()).unwrap_or_else(|| super::config::most(&self.options))
    }

    /// Whether the cache is another one than the tenant's own.
    pub(super) fn is_lent(&self) -> bool {
        self.cache != self.tenant
    }

    /// Takes away what tells of builds: their history, with logs and names. The cache stays, and takes so many bytes. Nothing of it runs.
    pub(super) async fn give_back(&self) -> Result<u64> {
        if !self.folders.exist() {
            return Ok(0);
        }
        self.tidy().await?.remove_history().await?;
        for path in [self.folders.root.join(HISTORY), self.folders.log()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context(format!("removing {}", path.display()));
                }
                _ => {}
            }
        }
        let _not_there = fs::remove_dir_all(&self.folders.run);
        Ok(self.size())
    }

    /// Takes everything away. Nothing of it runs.
    pub(super) async fn remove(&self) -> Result<()> {
        if !self.folders.exist() {
            return Ok(());
        }
        self.tidy().await?.remove_namespaces().await?;
        for folder in &self.options.place.folders {
            let _in_use_or_not_there = fs::remove_dir(folder.join(self.namespace()));
        }
        let folders = self.folders.clone();
        let removed = tokio::task::spawn_blocking(move || folders.remove());
        removed.await.context("removing the folders of a builder")?
    }
}
