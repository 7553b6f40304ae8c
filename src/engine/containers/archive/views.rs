//! Ways into a container's files, for short work and for as long as a client takes.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        runs::WhenGone,
    },
    model::{
        Result,
        container::{ContainerRecord, MountKind, MountPoint},
    },
    rootfs::{Attached, RootView},
    work::blocking,
    work::{Stop, Why},
};

/// How long a process may be gone before its exit is known here.
const EXIT_DELAY: Duration = Duration::from_secs(10);

/// A way into a container's files, and what must not happen meanwhile.
pub(super) struct HeldView {
    pub view: RootView,
    /// Of a container that does not run: it cannot be started while its layers are mounted here to be written. No client
    /// is waited for under it.
    turn: Option<Turn>,
}

impl HeldView {
    /// Whether it is through the process of a run.
    pub fn is_of_a_run(&self) -> bool {
        self.turn.is_none()
    }
}

/// What a view of a container that does not run is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Reading,
    Writing,
}

impl Engine {
    /// What ends reading from a container for a client, but for the client itself, to whom nothing can be sent then.
    pub(in crate::engine::containers) fn stop_of_download(&self, container: &Container) -> Stop {
        Stop::when([(container.until_removal(), Why::Removed), (self.stopping(), Why::Stopping)])
    }

    /// What ends writing into a container for a client.
    pub(super) fn stop_of_upload(&self, container: &Container, gone: CancellationToken) -> Stop {
        // What goes through the process of a run must not go on beside the next one.
        let of_this_run = container.record().state.live().map(|_| (container.until_start(), Why::Restarted));
        let others =
            [(gone, Why::ClientGone), (container.until_removal(), Why::Removed), (self.stopping(), Why::Stopping)];
        Stop::when(others.into_iter().chain(of_this_run))
    }

    /// Does something short with a container's files.
    pub(super) async fn with_view<T, F>(&self, container: &Arc<Container>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&RootView) -> Result<T> + Send + 'static,
    {
        let held = self.view_to_write(container).await?;
        blocking(move || work(&held.view)).await
    }

    /// A view that may be kept as long as a client takes: a start or a removal does not wait for it. Of a container that
    /// does not run the layers cannot be written by it, so that they may be mounted elsewhere, too.
    pub(super) async fn view_to_read(&self, container: &Arc<Container>) -> Result<RootView> {
        self.held_view(container, Purpose::Reading).await.map(|held| held.view)
    }

    /// A view that must not be kept while anybody is waited for.
    pub(super) async fn view_to_write(&self, container: &Arc<Container>) -> Result<HeldView> {
        self.held_view(container, Purpose::Writing).await
    }

    /// The files of a running container through its process, of others by mounting their layers.
    async fn held_view(&self, container: &Arc<Container>, purpose: Purpose) -> Result<HeldView> {
        loop {
            if let Some(live) = container.record().state.live() {
                let pid = live.pid;
                let opened = blocking(move || RootView::running(pid)).await;
                let lives = |record: &ContainerRecord| record.state.live().is_some_and(|live| live.pid == pid);
                match opened {
                    Ok(view) if lives(&container.record()) => return Ok(HeldView { view, turn: None }),
                    // The number may be another process's already.
                    Ok(_) => {}
                    // It has ended, which will be known here any moment.
                    Err(error) => {
                        let known = container.wait_for(|snapshot| !lives(&snapshot.record));
                        tokio::time::timeout(EXIT_DELAY, known).await.map_err(|_| error)?;
                    }
                }
                continue;
            }
            let turn = container.turn().await?;
            if turn.state().live().is_none() {
                let view = self.stopped_view(&turn, purpose).await?;
                return Ok(HeldView { view, turn: Some(turn) });
            }
        }
    }

    async fn stopped_view(&self, turn: &Turn, purpose: Purpose) -> Result<RootView> {
        let record = turn.record();
        let rootfs = self.backends.runtime.rootfs(&record.id).await?;
        let mounted = self.mount_volumes_for_view(&record).await?;
        let view = self
            .show_sources(&record, WhenGone::LeaveOut)
            .await
            .map(|points| attached(&points, &self.container_dir(&record.id)));
        let read_only = record.host_config.readonly_rootfs;
        let view = match view {
            Ok(attached) => {
                blocking(move || match purpose {
                    Purpose::Writing => RootView::stopped(&rootfs, read_only, &attached),
                    // Where a mount point is missing it is made first, as dockerd makes it.
                    Purpose::Reading => RootView::still(&rootfs, &attached).or_else(|_| {
                        drop(RootView::stopped(&rootfs, read_only, &attached)?);
                        RootView::still(&rootfs, &attached)
                    }),
                })
                .await
            }
            Err(error) => Err(error),
        };
        // The view has them in a namespace of its own by now.
        self.hide_sources(&record).await;
        self.unmount_volumes_of_view(&record, &mounted).await;
        view
    }
}

/// Binds, volumes and images of a container that does not run, and the files that a former run has left.
fn attached(points: &[MountPoint], dir: &std::path::Path) -> Vec<Attached> {
    let of_mount = |point: &MountPoint| Attached {
        source: point.source.clone().into(),
        destination: point.destination.clone(),
        read_only: !point.rw,
        recursive: !point.non_recursive,
    };
    let mut attached: Vec<Attached> =
        points.iter().filter(|point| point.kind != MountKind::Tmpfs).map(of_mount).collect();
    for (file, destination) in
        [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")]
    {
        let source = dir.join(file);
        if source.exists() && !attached.iter().any(|known| known.destination == destination) {
            attached.push(Attached { source, destination: destination.to_owned(), read_only: false, recursive: false });
        }
    }
    attached
}
