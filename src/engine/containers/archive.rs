//! `GET`, `HEAD` and `PUT /containers/{id}/archive`: a container's files, running or not.

mod spool;
mod views;

use std::{
    io::{self, Read},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use self::spool::Spool;
use crate::{
    engine::{Engine, container::Container, tenants::Scope},
    model::{Result, error::Context},
    rootfs::{ExtractOptions, Owner, PathStat, RootView},
    work::{BodyReader, Kind, Worker, blocking},
};

/// Pieces of an archive that wait for a slow client.
const PIECES: usize = 4;

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

/// What a client puts into a container.
pub struct Upload {
    /// The archive.
    pub body: BodyStream,
    /// Cancelled when the client has left.
    pub gone: CancellationToken,
}

/// Where it goes.
#[derive(Clone)]
struct PutTarget {
    path: String,
    reference: String,
}

impl PutTarget {
    fn extract(&self, view: &RootView, body: impl Read, options: ExtractOptions) -> Result<()> {
        view.extract(&self.path, &self.reference, body, options)
    }
}

impl Engine {
    /// What is at `path`. A link at its end is itself the answer.
    pub async fn container_archive_info(&self, scope: &Scope, reference: &str, path: &str) -> Result<PathStat> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let (path, reference) = (path.to_owned(), reference.to_owned());
        self.with_view(&container, move |view| view.find(&path, &reference).map(|target| target.path_stat)).await
    }

    /// `path` as a tar.
    pub async fn container_archive(
        &self,
        scope: &Scope,
        reference: &str,
        path: &str,
    ) -> Result<(PathStat, ArchiveStream)> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let worker = Worker::find(Kind::Download, self.stop_of_download(&container)).await?;
        let view = self.view_to_read(&container).await?;
        let (path, reference) = (path.to_owned(), reference.to_owned());
        let (view, target) = blocking(move || view.find(&path, &reference).map(|target| (view, target))).await?;
        let path_stat = target.path_stat.clone();
        let (sender, receiver) = mpsc::channel(PIECES);
        let engine = self.clone();
        self.spawn("archive", async move {
            let archived = worker.run("archive", move || {
                view.archive(&target, &sender);
                Ok(())
            });
            if let Err(error) = archived.await {
                tracing::debug!(container.id = %container.id(), "an archive ended early: {error}");
            }
            engine.events.container(&container.record(), "archive-path", &[]);
        });
        Ok((path_stat, ReceiverStream::new(receiver)))
    }

    /// Unpacks a tar, that may be compressed, into the folder `path`. Ends when the client has left.
    pub async fn put_container_archive(
        &self,
        scope: &Scope,
        reference: &str,
        path: &str,
        options: PutOptions,
        upload: Upload,
    ) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let target = PutTarget { path: path.to_owned(), reference: reference.to_owned() };
        let engine = self.clone();
        self.run("put_container_archive", async move {
            let owner = engine.owner_of_copies(&container, options).await?;
            let options = ExtractOptions { keep_kinds: options.keep_kinds, owner, ..ExtractOptions::default() };
            let stop = engine.stop_of_upload(&container, upload.gone);
            let (worker, body) = Worker::receive(stop, upload.body).await?;
            engine.unpack(&container, &worker, target, body, options).await?;
            engine.events.container(&container.record(), "extract-to-dir", &[]);
            Ok(())
        })
        .await
    }

    /// A running container takes what comes as it comes. One that does not is mounted here for that, and could not be
    /// started or removed meanwhile: it waits for the whole body.
    async fn unpack(
        &self,
        container: &Arc<Container>,
        worker: &Worker,
        target: PutTarget,
        body: BodyReader<BodyStream>,
        options: ExtractOptions,
    ) -> Result<()> {
        if container.record().state.live().is_some() {
            let held = self.view_to_write(container).await?;
            if held.is_of_a_run() {
                return worker.run("unpack", move || target.extract(&held.view, body, options)).await;
            }
        }
        let taking = || "receiving the archive";
        let spool = worker.run("receive", move || Spool::begin(body).context(taking())).await?;
        if spool.is_long() {
            // What is wrong with the place is told before all of it has come.
            let target = target.clone();
            self.with_view(container, move |view| target.extract(view, io::empty(), options)).await?;
        }
        let folder = self.config.data_root.join("tmp").join("uploads");
        let body = worker.run("receive", move || spool.finish(&folder).context(taking())).await?;
        let held = self.view_to_write(container).await?;
        worker.run("unpack", move || target.extract(&held.view, body, options)).await
    }

    async fn owner_of_copies(&self, container: &Arc<Container>, options: PutOptions) -> Result<Option<Owner>> {
        let user = container.record().config.user.clone();
        if !options.owned_by_user || user.is_empty() {
            return Ok(None);
        }
        let user = self.resolve_user(container, &user).await?;
        Ok(Some(Owner { uid: user.uid, gid: user.gid }))
    }
}
