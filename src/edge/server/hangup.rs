//! Notices clients that close a connection while nothing is sent to them. HTTP alone cannot: with half-closes
//! allowed an end of input says nothing, and a silent stream of events writes nothing that could fail. For a unix socket
//! the kernel tells both apart: EPOLLHUP comes only when the client has closed both directions. With tcp both are one
//! FIN; a client that has left is known by its RST, after the next write or keep-alive. One epoll for all connections.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use rustix::event::{Timespec, epoll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::{TcpStream, UnixStream},
    sync::OwnedSemaphorePermit,
};
use tokio_util::{
    either::Either,
    sync::{CancellationToken, DropGuard},
};

use crate::edge::extract::ClientGone;

/// A connection as it was accepted.
pub type Socket = Either<UnixStream, TcpStream>;

/// What becomes of a client.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// Cancelled when it has closed both directions.
    pub gone: ClientGone,
    /// Cancelled when it sends no more, if that is seen: a tcp client that has left may look like this for minutes.
    pub silent: ClientGone,
}

impl Fate {
    /// The client counts as gone, whatever it does.
    pub fn leave(&self) {
        self.gone.0.cancel();
        self.silent.0.cancel();
    }

    fn learn(&self, flags: epoll::EventFlags) {
        if !flags.difference(epoll::EventFlags::RDHUP).is_empty() {
            self.gone.0.cancel();
        }
        self.silent.0.cancel();
    }
}

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
    fates: HashMap<u64, Fate>,
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

    /// Tells `fate` what the other end does.
    pub fn watch(&self, socket: Socket, fate: &Fate) -> io::Result<Watched> {
        let key = {
            let mut clients = self.watch.clients();
            clients.last += 1;
            let key = clients.last;
            clients.fates.insert(key, fate.clone());
            key
        };
        // Errors and hang-ups are always reported. The end of a tcp client's sending comes before its hang-up, so
        // there can be two reports.
        let flags = match &socket {
            Either::Left(_) => epoll::EventFlags::ONESHOT,
            Either::Right(_) => epoll::EventFlags::RDHUP | epoll::EventFlags::ET,
        };
        let watched = Watched { socket, key, watch: self.watch.clone(), _place: None };
        epoll::add(&self.watch.epoll, watched.as_fd(), epoll::EventData::new_u64(key), flags)?;
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
        match news(&watch.epoll) {
            Ok(news) if news.is_empty() => ready.clear_ready(),
            Ok(news) => {
                let clients = watch.clients();
                for (key, flags) in news {
                    if let Some(fate) = clients.fates.get(&key) {
                        fate.learn(flags);
                    }
                }
            }
            Err(error) => return tracing::error!(%error, "watching connections: {error}"),
        }
    }
}

/// What happened to whom since the last call.
fn news(epoll: &AsyncFd<OwnedFd>) -> io::Result<Vec<(u64, epoll::EventFlags)>> {
    let mut events = Vec::with_capacity(BATCH);
    epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()))?;
    // The kernel packs events, so their fields cannot be borrowed.
    Ok(events.iter().map(|event: &epoll::Event| (event.data.u64(), event.flags)).collect())
}

/// A connection under watch. The kernel forgets it when the descriptor is closed, we when this is dropped.
pub struct Watched {
    socket: Socket,
    key: u64,
    watch: Arc<Watch>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Watched {
    /// Holds a place among the connections of its listener, also when it has been taken over.
    pub fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self._place = Some(place);
        self
    }

    /// The tcp socket, if it is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.socket {
            Either::Left(_) => None,
            Either::Right(tcp) => Some(tcp),
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Either::Left(unix) => unix.as_fd(),
            Either::Right(tcp) => tcp.as_fd(),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.clients().fates.remove(&self.key);
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn half_close_is_no_hangup_but_close_is() {
        let hangups = Hangups::start().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fate = Fate::default();
        let mut watched = hangups.watch(Either::Left(ours), &fate).unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(watched.read(&mut [0; 1]).await.unwrap(), 0);
        watched.write_all(b"x").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        assert!(!fate.gone.0.is_cancelled());
        drop(theirs);
        tokio::time::timeout(LIMIT, fate.gone.0.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn tcp_tells_silence_before_the_end() {
        let hangups = Hangups::start().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let fate = Fate::default();
        let mut watched = hangups.watch(Either::Right(listener.accept().await.unwrap().0), &fate).unwrap();
        theirs.shutdown().await.unwrap();
        tokio::time::timeout(LIMIT, fate.silent.0.cancelled()).await.unwrap();
        watched.write_all(b"x").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        assert!(!fate.gone.0.is_cancelled());
        drop(theirs);
        let write_on = async { while watched.write_all(b"x").await.is_ok() {} };
        tokio::time::timeout(LIMIT, async { tokio::join!(write_on, fate.gone.0.cancelled()) }).await.unwrap();
    }

    #[tokio::test]
    async fn closed_connections_are_forgotten() {
        let hangups = Hangups::start().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        drop(hangups.watch(Either::Left(ours), &Fate::default()).unwrap());
        assert!(hangups.watch.clients().fates.is_empty());
    }
}
