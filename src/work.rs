//! Long work that blocks and that a client pays out or takes in: unpacking uploads, packing downloads, making layers.
//!
//! It runs on threads of its own, with so many places per kind, and never on the runtime's blocking pool: whatever
//! clients do with their sockets, the short work that starts, stops and creates containers finds a thread there. All
//! of it ends with whom it is for ([`Stop`]), waits for a silent client only so long ([`Patience`]), and leaves the
//! machine room on its disks ([`copy`]).

mod body;
mod carried;
mod copy;
mod short;
mod stop;

use std::{cell::RefCell, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

pub use self::{
    body::BodyReader,
    carried::{Carried, Place},
    copy::{Disk, check, copy, send},
    short::blocking,
    stop::{Stop, Why},
};
use crate::model::{Error, Result, error::Context};

/// Uploads at once: archives into containers, contexts of builds, images. Each holds a thread and some buffers.
const UPLOADS: usize = 256;
/// Downloads at once: archives of containers.
const DOWNLOADS: usize = 256;
/// Layers at once that are written or compared and packed; only disk and processor hold them up.
const LAYERS: usize = 32;

/// A client that neither sends nor takes anything for so long has lost its turn. dockerd waits for ever.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// The same while others wait for a place.
const IDLE_WHEN_CROWDED: Duration = Duration::from_secs(30);
/// How often it is looked whether others wait.
const LOOK: Duration = Duration::from_secs(5);

/// What places are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client sends.
    Upload,
    /// A client takes.
    Download,
    /// No client's socket has a part in it.
    Layer,
}

impl Kind {
    fn places(self) -> &'static Arc<Semaphore> {
        use std::sync::LazyLock;
        static PLACES: LazyLock<[Arc<Semaphore>; 3]> =
            LazyLock::new(|| [UPLOADS, DOWNLOADS, LAYERS].map(|places| Arc::new(Semaphore::new(places))));
        &PLACES[self as usize]
    }

    fn is_crowded(self) -> bool {
        self.places().available_permits() == 0
    }
}

/// How long a silent client is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    kind: Kind,
    idle: Duration,
    crowded: Duration,
    look: Duration,
}

impl Patience {
    fn of(kind: Kind) -> Self {
        Self { kind, idle: IDLE, crowded: IDLE_WHEN_CROWDED, look: LOOK }
    }

    /// Ends when the client has been waited for long enough.
    async fn end(self) {
        let begin = Instant::now();
        loop {
            tokio::time::sleep(self.look).await;
            let limit = if self.kind.is_crowded() { self.crowded } else { self.idle };
            if begin.elapsed() >= limit {
                return;
            }
        }
    }
}

/// What a thread of ours knows of the work it does.
#[derive(Clone)]
struct Doing {
    stop: Stop,
    patience: Patience,
    handle: Handle,
}

thread_local! {
    static DOING: RefCell<Option<Doing>> = const { RefCell::new(None) };
}

/// Of the work that this thread does, if it is one of ours.
fn doing() -> Option<Doing> {
    DOING.with_borrow(Clone::clone)
}

/// A place among those who do work of a kind.
pub struct Worker {
    doing: Doing,
    place: Arc<OwnedSemaphorePermit>,
}

impl Worker {
    /// Waits for a place, at most as long as the work is wanted.
    pub async fn find(kind: Kind, stop: Stop) -> Result<Self> {
        let place = tokio::select! {
            place = kind.places().clone().acquire_owned() => place.context("waiting for a place")?,
            why = stop.told() => return Err(why.error()),
        };
        let doing = Doing { stop, patience: Patience::of(kind), handle: Handle::current() };
        Ok(Self { doing, place: Arc::new(place) })
    }

    /// Waits for the beginning of a body, then for a place: who sends nothing takes none.
    pub async fn receive<S>(stop: Stop, mut body: S) -> Result<(Self, BodyReader<S>)>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let first = tokio::select! {
            why = stop.told() => return Err(why.error()),
            () = Patience::of(Kind::Upload).end() => return Err(Why::Idle.error()),
            first = body.next() => first,
        };
        let first = first.transpose().context("reading the body")?.unwrap_or_default();
        let worker = Self::find(Kind::Upload, stop).await?;
        let body = BodyReader::new(first, body, worker.doing.clone());
        Ok((worker, body))
    }

    /// Does `work` on a thread of its own. It is told to stop when this is dropped; its place is free when it has.
    pub async fn run<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let (doing, place) = (self.doing.clone(), self.place.clone());
        let span = tracing::Span::current();
        let thread = move || {
            DOING.set(Some(doing));
            let done = span.in_scope(work);
            drop(place);
            let _nobody_waits = sender.send(done);
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(thread);
        thread.map_err(|error| Error::unavailable(format!("starting a thread: {error}")).with_source(error))?;
        let abandoned = self.doing.stop.end_when_dropped(Why::Abandoned);
        let done = receiver.await;
        abandoned.disarm();
        let done = done.map_err(|panic| Error::system(format!("{name} failed")).with_source(panic))?;
        // Whatever it broke off with, this is why.
        done.map_err(|error| self.doing.stop.why().map_or(error, Why::error))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures_util::stream;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(LIMIT, work).await.expect("it ends in time")
    }

    fn silent() -> impl Stream<Item = io::Result<Bytes>> + Unpin + Send + 'static {
        stream::iter([Ok(Bytes::from_static(b"head"))]).chain(stream::pending())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn silent_client_is_told_why_it_has_lost_its_turn() {
        let mut worker = Worker::find(Kind::Upload, Stop::never()).await.unwrap();
        worker.doing.patience.idle = Duration::from_millis(20);
        worker.doing.patience.look = Duration::from_millis(5);
        let mut body = BodyReader::new(Bytes::new(), silent(), worker.doing.clone());
        let read = worker.run("test", move || body.read_to_end(&mut Vec::new()).context("reading"));
        let error = in_time(read).await.unwrap_err();
        assert!(error.message().contains("nothing came"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_ends_with_whom_it_is_for() {
        let gone = CancellationToken::new();
        let worker = Worker::find(Kind::Upload, Stop::when([(gone.clone(), Why::Removed)])).await.unwrap();
        let mut body = BodyReader::new(Bytes::new(), silent(), worker.doing.clone());
        let reading = worker.run("test", move || body.read_to_end(&mut Vec::new()).context("reading"));
        let cancel = async { gone.cancel() };
        let (read, ()) = in_time(async { tokio::join!(reading, cancel) }).await;
        assert_eq!(read.unwrap_err().message(), Why::Removed.error().message());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn endless_copy_ends_when_nobody_waits_for_it() {
        let (ended, end) = oneshot::channel();
        let worker = Worker::find(Kind::Layer, Stop::never()).await.unwrap();
        let copying = worker.run("test", move || {
            let copied = copy(&mut io::repeat(0), &mut io::sink());
            ended.send(copied.is_err()).unwrap();
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), copying).await.is_err());
        assert!(in_time(end).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn taker_that_does_not_take_does_not_keep_a_thread() {
        let gone = CancellationToken::new();
        let worker = Worker::find(Kind::Download, Stop::when([(gone.clone(), Why::Removed)])).await.unwrap();
        let (sender, _receiver) = tokio::sync::mpsc::channel(1);
        let sending = worker.run("test", move || {
            while send(&sender, ()).is_ok() {}
            Ok(())
        });
        let cancel = async { gone.cancel() };
        in_time(async { tokio::join!(sending, cancel) }).await.0.unwrap();
    }
}
