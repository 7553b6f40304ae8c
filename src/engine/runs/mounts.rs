//! The mounts of a run: what a start makes ready and its end takes back.

use std::path::Path;

use crate::{
    engine::{Engine, runs::held_sources::WhenGone},
    model::{
        Error, Result,
        container::{ContainerRecord, MountKind, MountPoint, SourceRoot},
        error::Context,
    },
    rootfs::SeenPath,
};

/// The source of a bind, as it is held for a run.
pub(crate) fn seen_path(point: &MountPoint) -> SeenPath {
    SeenPath {
        path: point.source.clone(),
        create: point.create_source,
        recursive: !point.non_recursive,
        shared: matches!(point.propagation.as_str(), "shared" | "rshared"),
    }
}

impl Engine {
    /// Makes the sources of a run's mounts ready: missing folders of binds, volumes and images that have to be mounted.
    /// Returns the mounts with their sources on the host.
    pub(crate) async fn mount_run(&self, record: &ContainerRecord) -> Result<Vec<MountPoint>> {
        self.make_bind_sources(record)?;
        self.mount_volumes(record).await?;
        self.show_sources(record, WhenGone::Refuse).await
    }

    /// A container's mounts with sources that are there: its images are mounted, what was named in other
    /// containers and parts of its volumes held. What a failure
    /// leaves, [`Engine::hide_sources`] takes away. Its volumes are mounted before.
    pub(crate) async fn show_sources(&self, record: &ContainerRecord, when_gone: WhenGone) -> Result<Vec<MountPoint>> {
        let mut points = record.mounts.clone();
        self.mount_images(&mut points).await?;
        self.hold_sources(record, &mut points, when_gone).await?;
        Ok(points)
    }

    /// Undoes [`Engine::show_sources`]; goes on after failures and logs them.
    pub(crate) async fn hide_sources(&self, record: &ContainerRecord) {
        self.release_sources(record).await;
        self.unmount_images(record).await;
    }

    /// Takes back what `mount_run` did; goes on after failures and logs them.
    pub(crate) async fn release_mounts(&self, record: &ContainerRecord) {
        self.hide_sources(record).await;
        self.unmount_volumes(record).await;
    }

    /// Makes the missing folders of the machine that a container binds.
    fn make_bind_sources(&self, record: &ContainerRecord) -> Result<()> {
        let of_machine = |point: &&MountPoint| point.kind == MountKind::Bind && point.root == SourceRoot::Machine;
        for point in record.mounts.iter().filter(of_machine) {
            if Path::new(&point.source).exists() {
                continue;
            }
            if !point.create_source {
                return Err(Error::bind_source_missing(&point.source));
            }
            std::fs::create_dir_all(&point.source)
                .context(format!("error while creating mount source path '{}'", point.source))?;
        }
        Ok(())
    }
}
