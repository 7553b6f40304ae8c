//! Sources of mounts that are opened when a container starts and held while it runs: parts of volumes (`VolumeOptions.Subpath`),
//! binds of paths that a client named as its container sees them, the tenant's socket. What was opened is mounted below the container's own state, and
//! the runtime mounts that, whatever the links on the way say by then.

use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use crate::{
    engine::{Engine, runs::mounts::seen_path},
    model::{
        Error, Result,
        container::{ContainerRecord, MountKind, MountPoint, ReadOnlyDepth, SourceRoot},
        id::ContainerId,
    },
    rootfs,
    work::blocking,
};

/// What becomes of a path in a container that does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenGone {
    /// It is an error.
    Refuse,
    /// Nothing is held; what is mounted is not there.
    LeaveOut,
}

/// What of a mount is held.
enum Held<'p> {
    PartOfVolume,
    PathIn(&'p ContainerId),
    OwnSocket,
    ExactPath,
}

impl Held<'_> {
    fn of(point: &MountPoint) -> Option<Held<'_>> {
        match (point.kind, &point.root) {
            (MountKind::Volume, _) if !point.subpath.is_empty() => Some(Held::PartOfVolume),
            (MountKind::Bind, SourceRoot::Container(container)) => Some(Held::PathIn(container)),
            (MountKind::Bind, SourceRoot::Socket) => Some(Held::OwnSocket),
            (MountKind::Bind, SourceRoot::Exact) => Some(Held::ExactPath),
            _ => None,
        }
    }
}

impl Engine {
    /// Where the mount with this number in a container's list is held.
    fn held_place(&self, record: &ContainerRecord, number: usize) -> PathBuf {
        let kind = match record.mounts[number].kind {
            MountKind::Volume => "volume",
            MountKind::Bind | MountKind::Image | MountKind::Tmpfs => "bind",
        };
        self.backends.runtime.state_dir(&record.id).join(format!("{kind}-{number}"))
    }

    /// Holds what is to be held of a container's mounts, and puts where into `points`, which are these. What a failure leaves,
    /// [`Engine::release_sources`] takes away.
    pub(super) async fn hold_sources(
        &self,
        record: &ContainerRecord,
        points: &mut [MountPoint],
        when_gone: WhenGone,
    ) -> Result<()> {
        for (number, point) in points.iter_mut().enumerate() {
            let place = self.held_place(record, number);
            match Held::of(point) {
                None => continue,
                Some(Held::PartOfVolume) => {
                    let (volume, subpath, place) = (point.source.clone(), point.subpath.clone(), place.clone());
                    blocking(move || rootfs::hold_part(Path::new(&volume), &subpath, &place)).await?;
                }
                Some(Held::OwnSocket) => self.hold_own_socket(&record.tenant, place.clone()).await?,
                Some(Held::ExactPath) => {
                    let (path, place) = (seen_path(point), place.clone());
                    blocking(move || path.hold_exactly(&place)).await?;
                }
                Some(Held::PathIn(container)) => match self.hold_path_in(&container.clone(), point, &place).await {
                    Err(error) if when_gone == WhenGone::LeaveOut => debug!("{}", error.chain()),
                    held => held?,
                },
            }
            point.source = place.to_string_lossy().into_owned();
        }
        Ok(())
    }

    async fn hold_path_in(&self, container: &ContainerId, point: &mut MountPoint, place: &Path) -> Result<()> {
        let (engine, container, place) = (self.clone(), container.clone(), place.to_owned());
        let path = seen_path(point);
        let held = blocking(move || {
            let gone = || Error::bind_source_gone(&path.path, &container);
            let process = engine.first_process(&container).ok_or_else(gone)?;
            path.hold(&process, &place)
        });
        if held.await? && point.rw {
            // What lies below is as it was copied, but crun makes a bind writable that is not said to be otherwise.
            (point.rw, point.read_only_depth) = (false, ReadOnlyDepth::Shallow);
        }
        Ok(())
    }

    /// Lets go of them; goes on after failures and logs them.
    pub(super) async fn release_sources(&self, record: &ContainerRecord) {
        for (number, point) in record.mounts.iter().enumerate().filter(|(_, point)| Held::of(point).is_some()) {
            let place = self.held_place(record, number);
            if let Err(error) = blocking(move || rootfs::unmount_and_remove(&place)).await {
                let (source, at) = (&point.source, &point.destination);
                warn!(container.id = %record.id, "unmounting {source}, held for {at}: {}", error.chain());
            }
        }
    }
}
