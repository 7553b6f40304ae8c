//! A container's mounts over its life: what create resolves, what a start mounts and an end takes back.

use crate::{
    engine::Engine,
    model::{
        Error, Result,
        container::{Config, ContainerRecord, HostConfig, MountPoint},
        id::{ContainerId, Tenant},
    },
};

impl Engine {
    /// Binds, volumes and tmpfs that a container asks for. Volumes that are missing are made.
    pub(crate) async fn resolve_mounts(
        &self,
        _tenant: &Tenant,
        _id: &ContainerId,
        config: &Config,
        host_config: &HostConfig,
    ) -> Result<Vec<MountPoint>> {
        let asked = config.volumes.as_ref().is_some_and(|volumes| !volumes.is_empty())
            || host_config.binds.as_ref().is_some_and(|binds| !binds.is_empty())
            || host_config.mounts.as_ref().is_some_and(|mounts| !mounts.is_empty())
            || host_config.tmpfs.as_ref().is_some_and(|tmpfs| !tmpfs.is_empty());
        if asked {
            return Err(Error::not_implemented("mounts are not implemented by ringer"));
        }
        Ok(Vec::new())
    }

    /// Makes the sources of a run's mounts ready: missing folders of binds, volumes that have to be mounted.
    /// Returns the mounts with their sources on the host.
    pub(crate) async fn mount_run(&self, record: &ContainerRecord) -> Result<Vec<MountPoint>> {
        Ok(record.mounts.clone())
    }

    /// Takes back what `mount_run` did; goes on after failures and logs them.
    pub(crate) async fn release_mounts(&self, _record: &ContainerRecord) {}

    /// Fills empty volumes of a container that was just made from its image.
    pub(crate) async fn fill_volumes(&self, _record: &ContainerRecord) -> Result<()> {
        Ok(())
    }

    /// Lets go of a removed container's volumes; with `anonymous`, removes those that were made for it alone.
    pub(crate) async fn release_volumes(&self, _record: &ContainerRecord, _anonymous: bool) {}
}
