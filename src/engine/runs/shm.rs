//! `/dev/shm` of a run, where it is not the container's private one.

use std::path::PathBuf;

use tracing::warn;

use crate::{
    engine::Engine,
    model::{
        Error, Result,
        container::{ContainerRecord, IpcMode},
        id::ContainerId,
    },
    rootfs,
    work::blocking,
};

impl Engine {
    /// `/dev/shm` where it is not the container's private one.
    pub(super) async fn prepare_shm(&self, record: &ContainerRecord) -> Result<Option<PathBuf>> {
        let name = match &record.host_config.ipc_mode {
            IpcMode::Host => return Ok(Some(PathBuf::from("/dev/shm"))),
            IpcMode::Container(name) => name,
            IpcMode::Shareable => return self.mount_own_shm(record).await.map(Some),
            IpcMode::Unset | IpcMode::None | IpcMode::Private | IpcMode::Unknown(_) => return Ok(None),
        };
        let other = self.containers.get(&record.tenant, name)?.record();
        match other.host_config.ipc_mode {
            IpcMode::Shareable => Ok(Some(self.shm_dir(&other.id))),
            IpcMode::Host => Ok(Some(PathBuf::from("/dev/shm"))),
            _ => Err(Error::invalid(format!(
                "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                other.id
            ))),
        }
    }

    async fn mount_own_shm(&self, record: &ContainerRecord) -> Result<PathBuf> {
        let dir = self.shm_dir(&record.id);
        let size = record.host_config.shm_size;
        blocking({
            let dir = dir.clone();
            move || rootfs::mount_shm(&dir, size)
        })
        .await?;
        Ok(dir)
    }

    /// Where a shareable `/dev/shm` is mounted on the host.
    pub(crate) fn shm_dir(&self, id: &ContainerId) -> PathBuf {
        self.backends.runtime.state_dir(id).join("shm")
    }

    /// Takes a shareable `/dev/shm` away.
    pub(crate) async fn release_shm(&self, record: &ContainerRecord) {
        if record.host_config.ipc_mode != IpcMode::Shareable {
            return;
        }
        let dir = self.shm_dir(&record.id);
        let released = blocking(move || rootfs::unmount_and_remove(&dir)).await;
        if let Err(error) = released {
            warn!(container.id = %record.id, "unmounting /dev/shm of container {}: {error}", record.id);
        }
    }
}
