//! Images as mounts (`Mounts` of type `image`). Each is seen through a layer of its own, which nothing is written to: it keeps the
//! image's files while the container is there, also when the image is deleted. The layer is mounted while the container runs.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use tracing::warn;

use super::prepare::blocking;
use crate::{
    backend::runtime::NewContainer,
    engine::Engine,
    model::{
        Error, ErrorKind, Result,
        container::{ContainerRecord, MountPoint, MountedImage},
        id::{ContainerId, Tenant},
    },
    rootfs,
};

/// What is stored for a layer, in place of a container's record.
const RECORD: &[u8] = b"{\"ImageMount\":true}";

/// Whether a stored container is none, but such a layer.
pub(super) fn is_layer(record: &[u8]) -> bool {
    record == RECORD
}

fn images(points: &[MountPoint]) -> impl Iterator<Item = (&MountPoint, &MountedImage)> {
    points.iter().filter_map(|point| Some((point, point.image.as_ref()?)))
}

impl Engine {
    /// Finds the image of a mount and makes its layer. 404 if it is not there.
    pub(super) async fn resolve_image(
        &self,
        tenant: &Tenant,
        container: &ContainerId,
        point: &mut MountPoint,
    ) -> Result<()> {
        // Of another container (`VolumesFrom`) it is the image that is taken over, not the layer, which goes with it.
        let inherited = point.image.take().map(|image| image.id.to_string());
        let reference = inherited.unwrap_or_else(|| point.name.clone());
        let image = self.image_for_container(tenant, &reference, None).await?;
        let runtime = &self.backends.runtime;
        let layer = NewContainer {
            id: ContainerId::random(),
            parent: image.chain_id,
            image: String::new(),
            labels: HashMap::from([("ringer.mount".to_owned(), container.to_string())]),
            runtime: runtime.resolve_runtime("")?,
            record: RECORD.to_vec(),
        };
        runtime.create_container(&layer).await.map_err(|error| match error.kind() {
            // The image was removed meanwhile.
            ErrorKind::NotFound => Error::no_such_image(&reference).with_source(error),
            _ => error,
        })?;
        let place = runtime.state_dir(container).join(format!("image-{}", layer.id.short()));
        point.source = place.to_string_lossy().into_owned();
        point.image = Some(MountedImage { id: image.id, layer: layer.id });
        Ok(())
    }

    /// Mounts the images among a container's mounts, and puts what they are on the host into these. What a failure leaves,
    /// [`Engine::unmount_images`] takes away.
    pub(super) async fn mount_images(&self, points: &mut [MountPoint]) -> Result<()> {
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
    pub(super) async fn unmount_images(&self, record: &ContainerRecord) {
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
            if let Err(error) = self.backends.runtime.delete_container(&image.layer).await {
                warn!("removing the layer {} of an image that was mounted: {}", image.layer, error.chain());
            }
        }
    }

    /// Deletes layers that a daemon left behind which was killed.
    pub(super) async fn delete_lost_layers(&self, layers: Vec<ContainerId>) -> Result<()> {
        let records: Vec<_> = self.containers.list_all().into_iter().map(|container| container.record()).collect();
        let used: HashSet<&ContainerId> =
            records.iter().flat_map(|record| images(&record.mounts)).map(|(_, image)| &image.layer).collect();
        for layer in layers.iter().filter(|layer| !used.contains(layer)) {
            self.backends.runtime.delete_container(layer).await?;
        }
        Ok(())
    }
}
