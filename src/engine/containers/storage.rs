//! A container's mounts over its life: what create resolves and makes, what a removal lets go of.

use tracing::warn;

use crate::{
    backend::runtime::RootfsMount,
    engine::{Engine, containers::seat::Seat, quota::Quota, runs::seen_path, tenants::Scope, volumes::VolumeUse},
    model::{
        Error, Result,
        container::{
            ContainerCreateRequest, ContainerRecord, HostConfig, MountKind, MountPoint, SourceRoot,
            mount_spec::{VolumesFrom, WantedMount, wanted_mounts},
        },
        error::Context,
        id::{ContainerId, TenantId},
        job::DiskPlace,
        volume::VolumeRequest,
    },
    rootfs,
    work::blocking,
};

/// Mounts of a container that is being made, with a hold on their volumes until it is in the table.
pub(crate) struct ResolvedMounts {
    /// The mounts, with the folders of their volumes.
    pub points: Vec<MountPoint>,
    /// Keeps the volumes.
    pub held: Vec<VolumeUse>,
}

impl Engine {
    /// The mounts that a container asks for: it is said whose paths the sources of binds are, and those that must be there are.
    /// Nothing is made yet.
    pub(super) async fn resolve_mounts(
        &self,
        scope: &Scope,
        request: &ContainerCreateRequest,
    ) -> Result<Vec<WantedMount>> {
        let inherited = self.inherited_mounts(scope, &request.host_config)?;
        let mut wanted = wanted_mounts(&request.config, &request.host_config, inherited)?;
        let names_path = |mount: &WantedMount| mount.point.kind == MountKind::Bind && !mount.is_inherited;
        let seat = if wanted.iter().any(names_path) { self.seat(scope).await? } else { Seat::Machine };
        for mount in wanted.iter_mut().filter(|mount| mount.point.kind == MountKind::Bind) {
            if !mount.is_inherited {
                self.resolve_bind(scope, &seat, &mut mount.point).await?;
            } else if mount.point.root == SourceRoot::Machine {
                self.resolve_bind_of_machine(&mut mount.point)?;
            }
            // Else it is looked for at the start, where it was named.
        }
        for mut point in request.own_mounts.iter().cloned() {
            if point.root == SourceRoot::Machine {
                self.resolve_bind_of_machine(&mut point)?;
            }
            wanted.push(WantedMount { is_own: true, ..WantedMount::from(point) });
        }
        Ok(wanted)
    }

    /// Makes what mounts need: volumes that are missing, layers of images.
    pub(super) async fn realise_mounts(
        &self,
        scope: &Scope,
        container: &ContainerId,
        wanted: Vec<WantedMount>,
    ) -> Result<ResolvedMounts> {
        let mut resolved = ResolvedMounts { points: Vec::new(), held: Vec::new() };
        for wanted in wanted {
            if let Err(error) = self.realise_mount(scope, container, wanted, &mut resolved).await {
                self.drop_new_mounts(scope.tenant(), resolved).await;
                return Err(error);
            }
        }
        Ok(resolved)
    }

    fn inherited_mounts(&self, scope: &Scope, host_config: &HostConfig) -> Result<Vec<MountPoint>> {
        let mut inherited: Vec<MountPoint> = Vec::new();
        for text in host_config.volumes_from.iter().flatten() {
            let from = VolumesFrom::parse(text)?;
            // Not 404: the CLI would take that for a missing image, pull it and ask again.
            let other = self.containers.get(scope.tenant(), &from.container);
            let other = other.map_err(|error| Error::invalid(error.message()))?;
            for point in from.inherit(&other.record().mounts) {
                inherited.retain(|known| known.destination != point.destination);
                inherited.push(point);
            }
        }
        Ok(inherited)
    }

    async fn realise_mount(
        &self,
        scope: &Scope,
        container: &ContainerId,
        wanted: WantedMount,
        into: &mut ResolvedMounts,
    ) -> Result<()> {
        let mut point = wanted.point;
        match point.kind {
            MountKind::Bind if point.root == SourceRoot::Exact && !wanted.is_inherited => {
                let path = seen_path(&point);
                blocking(move || path.open_exactly().map(drop)).await?;
            }
            MountKind::Bind | MountKind::Tmpfs => {}
            MountKind::Image => self.resolve_image(scope, container, &mut point).await?,
            MountKind::Volume => {
                let request = VolumeRequest {
                    name: point.name.clone(),
                    driver: point.driver.clone(),
                    driver_opts: (!wanted.volume_options.is_empty()).then_some(wanted.volume_options),
                    labels: (!wanted.volume_labels.is_empty()).then_some(wanted.volume_labels),
                };
                let held = self.use_volume(scope, request).await?;
                let info = held.info();
                into.held.push(held);
                point.name.clone_from(&info.volume.name);
                point.source = info.mountpoint.to_string_lossy().into_owned();
                if point.driver.is_empty() {
                    crate::engine::volumes::LOCAL.clone_into(&mut point.driver);
                }
            }
        }
        into.points.push(point);
        Ok(())
    }

    /// Removes the anonymous volumes and the layers of images of a container that could not be made.
    pub(crate) async fn drop_new_mounts(&self, tenant: &TenantId, resolved: ResolvedMounts) {
        drop(resolved.held);
        self.delete_image_layers(&resolved.points).await;
        for point in resolved.points.iter().filter(|point| point.anonymous) {
            if let Err(error) = self.delete_volume(tenant, &point.name, true).await {
                warn!(volume = point.name, "removing volume {}: {}", point.name, error.chain());
            }
        }
    }

    /// Puts into a new container's root what Docker has there: `/.dockerenv`, `/etc/mtab`, the working folder. It counts for its
    /// tenant's quota, as all that the container will write.
    pub(crate) async fn prepare_rootfs(&self, scope: &Scope, record: &ContainerRecord) -> Result<()> {
        let path = record.config.working_dir.clone();
        let rootfs = self.backends.runtime.rootfs(&record.id).await?;
        let quota = scope.as_tenant().quota();
        let prepare = move || {
            quota.map_or(Ok(()), |quota| count_layer(&quota, &rootfs))?;
            rootfs::prepare(&rootfs, &path)
        };
        blocking(prepare).await
    }

    /// Fills empty volumes of a container that was just made from its image.
    pub(crate) async fn fill_volumes(&self, record: &ContainerRecord) -> Result<()> {
        if !record.mounts.iter().any(|point| point.kind == MountKind::Volume && !point.no_copy) {
            return Ok(());
        }
        let rootfs = self.backends.runtime.rootfs(&record.id).await?;
        self.populate_volumes(&record.tenant, &record.id, &record.mounts, rootfs).await
    }

    /// Lets go of a removed container's volumes; with `anonymous`, removes those that were made for it alone.
    pub(crate) async fn release_volumes(&self, record: &ContainerRecord, anonymous: bool) {
        if anonymous {
            self.remove_anonymous_volumes(record).await;
        }
    }
}

/// The kernel writes into both folders, and moves files from one into the other.
fn count_layer(quota: &Quota, rootfs: &[RootfsMount]) -> Result<()> {
    let folders = RootfsMount::own_folders(rootfs).into_iter().flat_map(|(files, work)| [Some(files), work]).flatten();
    for folder in folders {
        quota.count(DiskPlace::Layers, &folder).context("counting what a container will write")?;
    }
    Ok(())
}
