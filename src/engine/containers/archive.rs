//! `GET`, `HEAD` and `PUT /containers/{id}/archive`: a container's files, running or not.

use std::{
    io::{self, Read},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        containers::prepare::blocking,
    },
    model::{
        Result,
        container::{ContainerRecord, MountKind, MountPoint},
        id::Tenant,
    },
    rootfs::{Attached, ExtractOptions, Owner, PathStat, RootView},
};

/// Pieces of an archive that wait for a slow client.
const PIECES: usize = 4;
/// How long a process may be gone before its exit is known here.
const EXIT_DELAY: Duration = Duration::from_secs(10);

/// An archive under way.
pub type ArchiveStream = ReceiverStream<Result<Bytes>>;

/// A body as it comes in.
pub type BodyStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How `PUT` unpacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// `noOverwriteDirNonDir`.
    pub keep_kinds: bool,
    /// `copyUIDGID`: everything belongs to the container's user.
    pub owned_by_user: bool,
}

/// A way into a container's files, and what must not happen meanwhile.
struct HeldView {
    view: RootView,
    /// Of a container that does not run: it cannot be started while its layers are mounted here.
    _turn: Option<Turn>,
    /// Its volumes whose options are mounted for this view.
    mounted: Vec<String>,
}

impl Engine {
    /// What is at `path`. A link at its end is itself the answer.
    pub async fn container_archive_info(&self, tenant: &Tenant, reference: &str, path: &str) -> Result<PathStat> {
        let container = self.containers.get(tenant, reference)?;
        let (path, reference) = (path.to_owned(), reference.to_owned());
        self.with_view(&container, move |view| view.find(&path, &reference).map(|target| target.path_stat)).await
    }

    /// `path` as a tar.
    pub async fn container_archive(
        &self,
        tenant: &Tenant,
        reference: &str,
        path: &str,
    ) -> Result<(PathStat, ArchiveStream)> {
        let container = self.containers.get(tenant, reference)?;
        let held = self.view(&container).await?;
        let (path, reference) = (path.to_owned(), reference.to_owned());
        let (held, found) = unblocked(held, move |view| view.find(&path, &reference)).await?;
        let target = match found {
            Ok(target) => target,
            Err(error) => {
                self.let_go(&container, held).await;
                return Err(error);
            }
        };
        let path_stat = target.path_stat.clone();
        let (sender, receiver) = mpsc::channel(PIECES);
        let engine = self.clone();
        self.spawn("archive", async move {
            if let Ok((held, ())) = unblocked(held, move |view| view.archive(&target, &sender)).await {
                engine.let_go(&container, held).await;
            }
            engine.events.container(&container.record(), "archive-path", &[]);
        });
        Ok((path_stat, ReceiverStream::new(receiver)))
    }

    /// Unpacks a tar, that may be compressed, into the folder `path`.
    pub async fn put_container_archive(
        &self,
        tenant: &Tenant,
        reference: &str,
        path: &str,
        options: PutOptions,
        body: BodyStream,
    ) -> Result<()> {
        let container = self.containers.get(tenant, reference)?;
        let (path, reference) = (path.to_owned(), reference.to_owned());
        let engine = self.clone();
        self.run("put_container_archive", async move {
            let owner = engine.owner_of_copies(&container, options).await?;
            let options = ExtractOptions { keep_kinds: options.keep_kinds, owner, ..ExtractOptions::default() };
            let body = BodyReader { body, rest: Bytes::new(), handle: Handle::current() };
            engine.with_view(&container, move |view| view.extract(&path, &reference, body, options)).await?;
            engine.events.container(&container.record(), "extract-to-dir", &[]);
            Ok(())
        })
        .await
    }

    async fn owner_of_copies(&self, container: &Arc<Container>, options: PutOptions) -> Result<Option<Owner>> {
        let user = container.record().config.user.clone();
        if !options.owned_by_user || user.is_empty() {
            return Ok(None);
        }
        let user = self.resolve_user(container, &user).await?;
        Ok(Some(Owner { uid: user.uid, gid: user.gid }))
    }

    /// Does something with a container's files.
    async fn with_view<T, F>(&self, container: &Arc<Container>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&RootView) -> Result<T> + Send + 'static,
    {
        let held = self.view(container).await?;
        let (held, result) = unblocked(held, work).await?;
        self.let_go(container, held).await;
        result
    }

    /// The files of a running container through its process, of others by mounting their layers.
    async fn view(&self, container: &Arc<Container>) -> Result<HeldView> {
        loop {
            if let Some(live) = container.record().state.live() {
                let pid = live.pid;
                let opened = blocking(move || RootView::running(pid)).await;
                let lives = |record: &ContainerRecord| record.state.live().is_some_and(|live| live.pid == pid);
                match opened {
                    Ok(view) if lives(&container.record()) => {
                        return Ok(HeldView { view, _turn: None, mounted: Vec::new() });
                    }
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
                return self.stopped_view(turn).await;
            }
        }
    }

    async fn stopped_view(&self, turn: Turn) -> Result<HeldView> {
        let record = turn.record();
        let rootfs = self.backends.runtime.rootfs(&record.id).await?;
        let mounted = self.mount_volumes_for_view(&record).await?;
        let view = self.show_sources(&record).await.map(|points| attached(&points, &self.container_dir(&record.id)));
        let read_only = record.host_config.readonly_rootfs;
        let view = match view {
            Ok(attached) => blocking(move || RootView::stopped(&rootfs, read_only, &attached)).await,
            Err(error) => Err(error),
        };
        // The view has them in a namespace of its own by now.
        self.hide_sources(&record).await;
        match view {
            Ok(view) => Ok(HeldView { view, _turn: Some(turn), mounted }),
            Err(error) => {
                self.unmount_volumes_of_view(&record, &mounted).await;
                Err(error)
            }
        }
    }

    async fn let_go(&self, container: &Container, held: HeldView) {
        let HeldView { view, _turn, mounted } = held;
        drop(view);
        self.unmount_volumes_of_view(&container.record(), &mounted).await;
    }
}

/// Binds, volumes and images of a container that does not run, and the files that a former run has left.
fn attached(points: &[MountPoint], dir: &Path) -> Vec<Attached> {
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

/// Works on a view where blocking is fine, and hands it back.
async fn unblocked<T, F>(held: HeldView, work: F) -> Result<(HeldView, T)>
where
    T: Send + 'static,
    F: FnOnce(&RootView) -> T + Send + 'static,
{
    blocking(move || {
        let result = work(&held.view);
        Ok((held, result))
    })
    .await
}

/// A body for code that blocks.
struct BodyReader {
    body: BodyStream,
    rest: Bytes,
    handle: Handle,
}

impl Read for BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.handle.block_on(self.body.next()) {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(into.len());
        self.rest.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
