//! Images as mounts (`Mounts` of type `image`). Each is seen through a layer of its own, which nothing is written to: it keeps the
//! image's files while the container is there, also when the image is deleted. The layer is mounted while the container runs.

use std::{collections::HashSet, path::Path};

use tracing::warn;

use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, ErrorKind, Result,
        container::{ContainerRecord, MountPoint, MountedImage},
        id::ContainerId,
        layer::LayerRecord,
    },
    rootfs,
    work::blocking,
};

fn images(points: &[MountPoint]) -> impl Iterator<Item = (&MountPoint, &MountedImage)> {
    points.iter().filter_map(|point| Some((point, point.image.as_ref()?)))
}

impl Engine {
    /// Finds the image of a mount and makes its layer. 404 if it is not there.
    pub(super) async fn resolve_image(
        &self,
        scope: &Scope,
        container: &ContainerId,
        point: &mut MountPoint,
    ) -> Result<()> {
        // Of another container (`VolumesFrom`) it is the image that is taken over, not the layer, which goes with it.
        let inherited = point.image.take().map(|image| image.id.to_string());
        let reference = inherited.unwrap_or_else(|| point.name.clone());
        let image = self.image_for_container(scope, &reference, None).await?;
        let layer = LayerRecord::ImageMount { container: Some(container.clone()) };
        let layer =
            self.create_layer(scope.tenant(), &layer, image.chain_id).await.map_err(|error| match error.kind() {
                // The image was removed meanwhile.
                ErrorKind::NotFound => Error::no_such_image(&reference).with_source(error),
                _ => error,
            })?;
        let place = self.backends.runtime.state_dir(container).join(format!("image-{}", layer.short()));
        point.source = place.to_string_lossy().into_owned();
        point.image = Some(MountedImage { id: image.id, layer });
        Ok(())
    }

    /// Mounts the images among a container's mounts, and puts what they are on the host into these. What a failure leaves,
    /// [`Engine::unmount_images`] takes away.
    pub(crate) async fn mount_images(&self, points: &mut [MountPoint]) -> Result<()> {
        for point in points {
            let Some(image) = &point.image else { continue };
            let layers = self.backends.runtime.rootfs(&image.layer).await?;
            let (place, subpath) = (point.source.clone(), point.subpath.clone());
            let source = blocking(move || {
                let place = Path::new(&place);
                rootfs::mount_image(&layers, place)?;
                rootfs::path_in_image(place, &subpath)
            });
            point.source = source.await?.to_string_lossy().into_owned();
        }
        Ok(())
    }

    /// Unmounts the images of a container; goes on after failures and logs them.
    pub(crate) async fn unmount_images(&self, record: &ContainerRecord) {
        for (point, _) in images(&record.mounts) {
            let place = point.source.clone();
            if let Err(error) = blocking(move || rootfs::unmount_and_remove(Path::new(&place))).await {
                warn!(container.id = %record.id, "unmounting the image {}: {}", point.name, error.chain());
            }
        }
    }

    /// Deletes the layers of mounts whose container is gone.
    pub(super) async fn delete_image_layers(&self, points: &[MountPoint]) {
        for (_, image) in images(points) {
            self.delete_layer(&image.layer).await;
        }
    }

    /// Deletes layers of mounts that a daemon left behind which was killed. Those of containers whose records could not be
    /// read (`unread`) are left alone with them.
    pub(crate) async fn delete_lost_layers(
        &self,
        layers: Vec<(ContainerId, Option<ContainerId>)>,
        unread: &[ContainerId],
    ) -> Result<()> {
        let records: Vec<_> = self.containers.list_all().into_iter().map(|container| container.record()).collect();
        let used: HashSet<&ContainerId> =
            records.iter().flat_map(|record| images(&record.mounts)).map(|(_, image)| &image.layer).collect();
        for (layer, container) in layers {
            let is_of_unread = match &container {
                Some(container) => unread.contains(container),
                None => !unread.is_empty(),
            };
            if !used.contains(&layer) && !is_of_unread {
                self.backends.runtime.delete_container(&layer).await?;
            }
        }
        Ok(())
    }
}
