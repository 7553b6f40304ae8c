//! Parts of volumes as mounts (`VolumeOptions.Subpath`). A part is opened when the container starts and mounted below the container's
//! own state, so that the runtime mounts what was opened, whatever the volume's links say by then.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::{
    engine::Engine,
    model::{
        Result,
        container::{ContainerRecord, MountKind, MountPoint},
    },
    rootfs,
    work::blocking,
};

fn is_part(point: &MountPoint) -> bool {
    point.kind == MountKind::Volume && !point.subpath.is_empty()
}

impl Engine {
    /// Where the mount with this number in a container's list is held.
    fn part_place(&self, record: &ContainerRecord, number: usize) -> PathBuf {
        self.backends.runtime.state_dir(&record.id).join(format!("volume-{number}"))
    }

    /// Holds the parts of volumes that a container mounts, and puts where into `points`, its mounts. What a failure leaves,
    /// [`Engine::release_volume_parts`] takes away.
    pub(super) async fn hold_volume_parts(&self, record: &ContainerRecord, points: &mut [MountPoint]) -> Result<()> {
        for (number, point) in points.iter_mut().enumerate().filter(|(_, point)| is_part(point)) {
            let (place, subpath) = (self.part_place(record, number), point.subpath.clone());
            let volume = std::mem::replace(&mut point.source, place.to_string_lossy().into_owned());
            blocking(move || rootfs::hold_part(Path::new(&volume), &subpath, &place)).await?;
        }
        Ok(())
    }

    /// Lets go of them; goes on after failures and logs them.
    pub(super) async fn release_volume_parts(&self, record: &ContainerRecord) {
        for (number, point) in record.mounts.iter().enumerate().filter(|(_, point)| is_part(point)) {
            let place = self.part_place(record, number);
            if let Err(error) = blocking(move || rootfs::unmount_and_remove(&place)).await {
                let (subpath, name) = (&point.subpath, &point.name);
                warn!(container.id = %record.id, "unmounting {subpath} of volume {name}: {}", error.chain());
            }
        }
    }
}
