//! What containers do with volumes: have them made, filled, mounted while they run, and taken along at removal.

use std::{os::fd::AsFd, path::PathBuf};

use indexmap::IndexMap;
use tracing::warn;

use super::{
    LOCAL, VolumeInfo,
    local::{self, LocalMount},
};
use crate::{
    backend::runtime::RootfsMount,
    engine::{Engine, tenants::Scope},
    model::{
        Error, ErrorKind, Result,
        container::{ContainerRecord, MountKind, MountPoint},
        error::Context,
        id::{ContainerId, TenantId},
        time::Timestamp,
        volume::{self, ANONYMOUS_LABEL, Volume, VolumeRequest},
    },
    rootfs::{self, RootView},
};

/// A volume that somebody is about to use: until this is dropped it cannot be removed. Keep it until the
/// container that has it is in the table.
pub(crate) struct VolumeUse {
    engine: Engine,
    scope: Scope,
    info: VolumeInfo,
}

impl VolumeUse {
    fn new(engine: &Engine, scope: &Scope, info: VolumeInfo) -> Self {
        engine.volumes.pin(scope.tenant(), &info.volume.name);
        Self { engine: engine.clone(), scope: scope.clone(), info }
    }

    /// The volume and its folder.
    pub(crate) fn info(&self) -> VolumeInfo {
        self.info.clone()
    }
}

impl Drop for VolumeUse {
    fn drop(&mut self) {
        self.engine.volumes.unpin(self.scope.tenant(), &self.info.volume.name);
    }
}

impl Engine {
    /// The volume that `request` names, made if it is not there; without a name, a new anonymous one.
    pub(crate) async fn use_volume(&self, scope: &Scope, request: VolumeRequest) -> Result<VolumeUse> {
        let changing = self.volumes.change().await;
        let is_anonymous = request.name.is_empty();
        let name = if is_anonymous { volume::random_name() } else { request.name };
        let of_create = |error: Error| error.context(format!("create {name}"));
        if !["", LOCAL].contains(&request.driver.as_str()) {
            let driver = &request.driver;
            let text = format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found");
            return Err(of_create(Error::not_found(text)));
        }
        if let Some(info) = self.volumes.get(scope.tenant(), &name) {
            return Ok(VolumeUse::new(self, scope, info));
        }
        volume::check_name(&name).map_err(of_create)?;
        if let Some(options) = &request.driver_opts {
            local::check(options).map_err(of_create)?;
        }
        let mut labels = request.labels;
        if is_anonymous {
            labels.get_or_insert_with(IndexMap::new).insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let volume = Volume { name: name.clone(), labels, options: request.driver_opts, created: Timestamp::now() };
        let quota = scope.as_tenant().quota();
        let volume = self.volumes.create(&changing, scope.tenant(), volume, quota).await.map_err(of_create)?;
        let mountpoint = self.volumes.mountpoint(scope.tenant(), &name);
        let used = VolumeUse::new(self, scope, VolumeInfo { volume, mountpoint });
        self.volume_event(scope.tenant(), &name, "create", &[]);
        Ok(used)
    }

    /// Fills the empty ones of a new container's volumes with what its image has there. `rootfs` are the
    /// container's own mounts, of which nothing is changed.
    pub(crate) async fn populate_volumes(
        &self,
        tenant: &TenantId,
        container: &ContainerId,
        mounts: &[MountPoint],
        rootfs: Vec<RootfsMount>,
    ) -> Result<()> {
        let wanted = self.to_populate(tenant, mounts, &rootfs).await?;
        if wanted.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = wanted.iter().map(|mount| mount.name.as_str()).collect();
        let _filling = self.volumes.filling(tenant, &names).await;
        let mut mounted = Vec::new();
        let filled = async {
            let mut targets = Vec::new();
            for mount in &wanted {
                self.mount_volume(tenant, &mount.name, container).await?;
                mounted.push(&mount.name);
                targets.push(Target {
                    destination: mount.destination.clone(),
                    volume: self.volumes.mountpoint(tenant, &mount.name),
                    subpath: mount.subpath.clone(),
                });
            }
            tokio::task::spawn_blocking(move || fill(&rootfs, &targets)).await.context("filling volumes")?
        };
        let filled = filled.await;
        for name in mounted {
            self.unmount_volume(tenant, name, container).await;
        }
        filled.map_err(|error| error.context("failed to populate volume"))
    }

    /// The volumes to fill. One that something has to be mounted over, or of which a part is wanted, is among them only if the
    /// image has a folder there: as with dockerd, others are mounted at the start, which is when it is told that a server does
    /// not answer or that a part leads elsewhere.
    async fn to_populate<'m>(
        &self,
        tenant: &TenantId,
        mounts: &'m [MountPoint],
        rootfs: &[RootfsMount],
    ) -> Result<Vec<&'m MountPoint>> {
        let mount_of =
            |mount: &MountPoint| self.volumes.get(tenant, &mount.name).and_then(|info| LocalMount::of(&info.volume));
        let can_be_filled = |mount: &&MountPoint| {
            mount.kind == MountKind::Volume
                && !mount.no_copy
                && !mount_of(mount).is_some_and(|mount| mount.is_read_only())
        };
        let mut wanted: Vec<&MountPoint> = mounts.iter().filter(can_be_filled).collect();
        let may_fail = |mount: &&&MountPoint| !mount.subpath.is_empty() || mount_of(mount).is_some();
        let places: Vec<String> = wanted.iter().filter(may_fail).map(|mount| mount.destination.clone()).collect();
        if places.is_empty() {
            return Ok(wanted);
        }
        let rootfs = rootfs.to_vec();
        let look = move || {
            let view = RootView::stopped(&rootfs, true, &[])?;
            Ok::<_, Error>(places.into_iter().filter(|place| view.resolve(place).is_err()).collect::<Vec<_>>())
        };
        let missing = tokio::task::spawn_blocking(look).await.context("looking into the image")??;
        wanted.retain(|mount| !missing.contains(&mount.destination));
        Ok(wanted)
    }

    /// Mounts what a container's volumes ask for, at its start.
    pub(crate) async fn mount_volumes(&self, record: &ContainerRecord) -> Result<()> {
        let mut mounted: Vec<&MountPoint> = Vec::new();
        for mount in volume_mounts(record) {
            if let Err(error) = self.mount_volume(&record.tenant, &mount.name, &record.id).await {
                for mount in mounted {
                    self.unmount_volume(&record.tenant, &mount.name, &record.id).await;
                }
                return Err(error);
            }
            mounted.push(mount);
        }
        for mount in mounted {
            let facts = [
                ("container", record.id.as_str()),
                ("destination", &mount.destination),
                ("propagation", &mount.propagation),
                ("read/write", if mount.rw { "true" } else { "false" }),
            ];
            self.volume_event(&record.tenant, &mount.name, "mount", &facts);
        }
        Ok(())
    }

    /// Lets go of a container's volumes, after its end.
    pub(crate) async fn unmount_volumes(&self, record: &ContainerRecord) {
        for mount in volume_mounts(record) {
            self.unmount_volume(&record.tenant, &mount.name, &record.id).await;
            self.volume_event(&record.tenant, &mount.name, "unmount", &[("container", record.id.as_str())]);
        }
    }

    /// Mounts what a stopped container's volumes ask for, to look into them. Answers their names.
    pub(crate) async fn mount_volumes_for_view(&self, record: &ContainerRecord) -> Result<Vec<String>> {
        let mut mounted = Vec::new();
        for mount in volume_mounts(record) {
            // A volume that was removed by force of hand is an empty folder to look at, not an error.
            if self.volumes.get(&record.tenant, &mount.name).is_none() {
                continue;
            }
            if let Err(error) = self.mount_volume(&record.tenant, &mount.name, &record.id).await {
                self.unmount_volumes_of_view(record, &mounted).await;
                return Err(error);
            }
            mounted.push(mount.name.clone());
        }
        Ok(mounted)
    }

    /// Undoes [`Engine::mount_volumes_for_view`].
    pub(crate) async fn unmount_volumes_of_view(&self, record: &ContainerRecord, names: &[String]) {
        for name in names {
            self.unmount_volume(&record.tenant, name, &record.id).await;
        }
    }

    /// Removes the anonymous volumes of a container that is out of the table already, unless another has them.
    pub(crate) async fn remove_anonymous_volumes(&self, record: &ContainerRecord) {
        for mount in volume_mounts(record).filter(|mount| mount.anonymous) {
            if let Err(error) = self.delete_volume(&record.tenant, &mount.name, true).await {
                warn!(container.id = %record.id, volume = mount.name, "removing volume {}: {}", mount.name, error.chain());
            }
        }
    }

    async fn mount_volume(&self, tenant: &TenantId, name: &str, container: &ContainerId) -> Result<()> {
        let _mounting = self.volumes.mounting(tenant, name).await;
        let info = self.volumes.get(tenant, name).ok_or_else(|| Error::no_such_volume(name))?;
        let is_first = self.volumes.mount_for(tenant, name, container);
        let Some(mount) = LocalMount::of(&info.volume).filter(|_| is_first) else { return Ok(()) };
        let mounted = blocking(info.mountpoint, move |target| mount.mount(&target)).await;
        if mounted.is_err() {
            self.volumes.unmount_for(tenant, name, container);
        }
        mounted
    }

    async fn unmount_volume(&self, tenant: &TenantId, name: &str, container: &ContainerId) {
        let _mounting = self.volumes.mounting(tenant, name).await;
        let Some(info) = self.volumes.get(tenant, name) else { return };
        if !self.volumes.unmount_for(tenant, name, container) || LocalMount::of(&info.volume).is_none() {
            return;
        }
        let unmounted = blocking(info.mountpoint, |target| local::unmount(&target).context("unmounting")).await;
        if let Err(error) = unmounted {
            warn!(volume = name, "unmounting volume {name}: {}", error.chain());
        }
    }
}

fn volume_mounts(record: &ContainerRecord) -> impl Iterator<Item = &MountPoint> {
    record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume)
}

/// A folder to fill with what the image has at `destination`.
struct Target {
    destination: String,
    volume: PathBuf,
    subpath: String,
}

fn fill(rootfs: &[RootfsMount], targets: &[Target]) -> Result<()> {
    let mut empty = Vec::new();
    for target in targets {
        match rootfs::open_part(&target.volume, &target.subpath) {
            // Volumes that are used again need no look at the image.
            Ok(folder) if rootfs::is_empty(folder.as_fd()) => empty.push((&target.destination, folder)),
            Ok(_) => {}
            // The start tells.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if empty.is_empty() {
        return Ok(());
    }
    let view = RootView::stopped(rootfs, true, &[])?;
    empty.iter().try_for_each(|(destination, folder)| rootfs::copy_up(&view, destination, folder.as_fd()))
}

async fn blocking(target: PathBuf, action: impl FnOnce(PathBuf) -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(move || action(target)).await.context("mounting the volume")?
}
