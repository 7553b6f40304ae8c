//! Images as mounts (`Mounts` of type `image`). Each is seen through a layer of its own, which nothing is written to: it keeps the
//! image's files while the container is there, also when the image is deleted. The layer is mounted while the container runs. One may
//! also come when it runs already.

use std::{collections::HashSet, path::Path, sync::Arc};

use tracing::warn;

use crate::{
    engine::{Engine, container::Container, tenants::Scope},
    model::{
        Error, ErrorKind, Result,
        container::{ContainerRecord, MountKind, MountPoint, MountedImage},
        id::ContainerId,
        layer::LayerRecord,
        reference::Digest,
    },
    processes::Process,
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

    /// Shows an image of the tenant `of` in a container that runs, read-only at `place`, which is made where it is missing: the first of
    /// `parts` that is there, folders of the image. From then on it is one of the container's mounts. Answers the image's id.
    pub async fn container_show_image(
        &self,
        scope: &Scope,
        reference: &str,
        of: &Scope,
        image: &str,
        parts: &[&str],
        place: &str,
    ) -> Result<Digest> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let parts: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
        let point = MountPoint {
            kind: MountKind::Image,
            name: image.to_owned(),
            destination: place.to_owned(),
            ..MountPoint::default()
        };
        let (engine, of) = (self.clone(), of.clone());
        self.run("container_show_image", async move { engine.show_image(&of, &container, point, &parts).await }).await
    }

    async fn show_image(
        &self,
        scope: &Scope,
        container: &Arc<Container>,
        mut point: MountPoint,
        parts: &[String],
    ) -> Result<Digest> {
        // May unpack it, for which no end of a run is to wait; that of this one waits for the rest.
        self.image_for_container(scope, &point.name, None).await?;
        let turn = container.turn().await?;
        let (engine, id) = (self.clone(), turn.id().clone());
        let process =
            blocking(move || engine.first_process(&id).ok_or_else(|| Error::not_running(id.as_str()))).await?;
        self.resolve_image(scope, turn.id(), &mut point).await?;
        let id = point.image.as_ref().map(|image| image.id.clone()).expect("it was resolved");
        let before = turn.record();
        let shown = async {
            self.show_in_run(process, &mut point, parts).await?;
            turn.update(|record| record.mounts.push(point.clone()));
            turn.store(&*self.backends.runtime).await
        };
        let shown = shown.await;
        if shown.is_err() {
            turn.update(|record| record.mounts.clone_from(&before.mounts));
            let undone = ContainerRecord { mounts: vec![point], ..ContainerRecord::clone(&before) };
            self.unmount_images(&undone).await;
            self.delete_image_layers(&undone.mounts).await;
        }
        shown.map(|()| id)
    }

    /// Notes which part it was.
    async fn show_in_run(&self, process: Process, point: &mut MountPoint, parts: &[String]) -> Result<()> {
        let mut missing = Error::invalid("no part of the image is asked for");
        for part in parts {
            point.subpath.clone_from(part);
            let mut seen = [point.clone()];
            match self.mount_images(&mut seen).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    missing = error;
                    continue;
                }
                mounted => mounted?,
            }
            let [MountPoint { source, destination, .. }] = seen;
            return blocking(move || rootfs::mount_into(&process, Path::new(&source), &destination)).await;
        }
        Err(missing)
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
