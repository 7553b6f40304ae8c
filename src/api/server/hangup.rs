//! Notices clients that close a connection while nothing is sent to them. HTTP alone cannot: with half-closes
//! allowed an end of input says nothing, and a silent stream of events writes nothing that could fail. The kernel
//! tells both apart: EPOLLHUP comes only when both directions are closed. One epoll for all connections.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use rustix::event::{Timespec, epoll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::UnixStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::extract::ClientGone;

/// Connections looked at in one go.
const BATCH: usize = 64;

/// The watch over all connections of a server; ends when this is dropped.
pub struct Hangups {
    watch: Arc<Watch>,
    _stop: DropGuard,
}

struct Watch {
    epoll: AsyncFd<OwnedFd>,
    clients: Mutex<Clients>,
}

/// By a number of our own, since numbers of descriptors are used again too soon.
#[derive(Default)]
struct Clients {
    last: u64,
    gone: HashMap<u64, CancellationToken>,
}

impl Watch {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hangups {
    /// Starts the watching task.
    pub fn start() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor stays open and the same until the AsyncFd that owns it is dropped.
        let epoll = unsafe { AsyncFd::register(epoll)? };
        let watch = Arc::new(Watch { epoll, clients: Mutex::default() });
        let stop = CancellationToken::new();
        tokio::spawn(run(watch.clone(), stop.clone()));
        Ok(Arc::new(Self { watch, _stop: stop.drop_guard() }))
    }

    /// Cancels `gone` when the other end closes both directions.
    pub fn watch(&self, stream: UnixStream, gone: &ClientGone) -> io::Result<Watched> {
        let key = {
            let mut clients = self.watch.clients();
            clients.last += 1;
            let key = clients.last;
            clients.gone.insert(key, gone.0.clone());
            key
        };
        let watched = Watched { stream, key, watch: self.watch.clone() };
        // No flags but one-shot: errors and hang-ups are always reported.
        epoll::add(
            &self.watch.epoll,
            watched.stream.as_fd(),
            epoll::EventData::new_u64(key),
            epoll::EventFlags::ONESHOT,
        )?;
        Ok(watched)
    }
}

async fn run(watch: Arc<Watch>, stop: CancellationToken) {
    loop {
        let ready = tokio::select! {
            () = stop.cancelled() => return,
            ready = watch.epoll.readable() => ready,
        };
        let Ok(mut ready) = ready else { return };
        match left(&watch.epoll) {
            Ok(keys) if keys.is_empty() => ready.clear_ready(),
            Ok(keys) => {
                let mut clients = watch.clients();
                keys.iter().filter_map(|key| clients.gone.remove(key)).for_each(|gone| gone.cancel());
            }
            Err(error) => return tracing::error!(%error, "watching connections: {error}"),
        }
    }
}

/// Those who left since the last call.
fn left(epoll: &AsyncFd<OwnedFd>) -> io::Result<Vec<u64>> {
    let mut events = Vec::with_capacity(BATCH);
    epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()))?;
    Ok(events.iter().map(|event: &epoll::Event| event.data.u64()).collect())
}

/// A connection under watch. The kernel forgets it when the descriptor is closed, we when this is dropped.
pub struct Watched {
    stream: UnixStream,
    key: u64,
    watch: Arc<Watch>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.clients().gone.remove(&self.key);
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn half_close_is_no_hangup_but_close_is() {
        let hangups = Hangups::start().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let gone = ClientGone::default();
        let mut watched = hangups.watch(ours, &gone).unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(watched.read(&mut [0; 1]).await.unwrap(), 0);
        watched.write_all(b"x").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        assert!(!gone.0.is_cancelled());
        drop(theirs);
        tokio::time::timeout(Duration::from_secs(10), gone.0.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn closed_connections_are_forgotten() {
        let hangups = Hangups::start().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        drop(hangups.watch(ours, &ClientGone::default()).unwrap());
        assert!(hangups.watch.clients().gone.is_empty());
    }
}
