//! A connection that a handler takes over from HTTP: hijacked streams, WebSockets, HTTP/2. The handler's answer becomes
//! the head, the server takes hyper's connection apart, and what is left of it are bytes both ways. hyper's own upgrades
//! need an `Upgrade` of the client, which dockerd does not.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::response::Response;
use bytes::{Buf, Bytes};
use hyper::ext::ReasonPhrase;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::extract::ClientGone;

/// How long a client may take to close a connection on which all is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it may still send until then: all of a large input that its process did not want.
const FORGOTTEN_BYTES: u64 = 256 << 20;

/// On a request of a connection that can be taken over.
#[derive(Clone, Debug, Default)]
pub struct Takeover {
    gone: ClientGone,
}

impl Takeover {
    /// `gone` is cancelled when the client has closed both directions.
    pub fn new(gone: ClientGone) -> Self {
        Self { gone }
    }

    /// Is cancelled when the client has closed the connection entirely, which a silent stream would not notice.
    pub fn client_gone(&self) -> ClientGone {
        self.gone.clone()
    }

    /// Sends the head of `answer` and runs `serve` with the connection on a tracked task.
    pub fn answer<S, F>(self, tasks: &TaskTracker, mut answer: Response, serve: S) -> Response
    where
        S: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (taker, taken) = oneshot::channel();
        let task = async move {
            match taken.await {
                Ok(connection) => serve(connection).await,
                Err(_) => tracing::debug!("the client left before its stream began"),
            }
        };
        tasks.spawn(task.in_current_span());
        answer.extensions_mut().insert(Taker(Arc::new(Mutex::new(Some(taker)))));
        answer
    }
}

/// On an answer after which the connection is somebody's. Extensions must be able to be cloned.
#[derive(Clone)]
struct Taker(Arc<Mutex<Option<oneshot::Sender<Connection>>>>);

/// An answer whose connection is to be handed over.
pub(super) struct Taken {
    head: Vec<u8>,
    taker: oneshot::Sender<Connection>,
}

impl Taken {
    /// An answer that HTTP is to send, or what is to be done in its place.
    pub fn unless(mut answer: Response) -> Result<Response, Self> {
        let taker = answer.extensions_mut().remove::<Taker>();
        match taker.and_then(|taker| taker.0.lock().unwrap_or_else(PoisonError::into_inner).take()) {
            Some(taker) => Err(Self { head: head(&answer), taker }),
            None => Ok(answer),
        }
    }

    /// Hands the connection over without a head.
    pub fn pass_on(self, stream: impl Stream + 'static) {
        // Nobody takes it when the daemon ends.
        drop(self.taker.send(Connection { stream: Some(Box::new(stream)), read: Bytes::new() }));
    }

    /// Sends the head and hands the connection over. `read` are the bytes behind the request that were read with it.
    pub async fn hand_over(self, mut stream: impl Stream + 'static, read: Bytes) {
        match stream.write_all(&self.head).await {
            // Nobody takes it when the daemon ends.
            Ok(()) => drop(self.taker.send(Connection { stream: Some(Box::new(stream)), read })),
            Err(error) => tracing::debug!(%error, "the client left before its stream began: {error}"),
        }
    }
}

/// As dockerd writes it: HTTP/1.1 whatever the client speaks, without a date.
fn head(answer: &Response) -> Vec<u8> {
    let status = answer.status();
    let reason = match answer.extensions().get::<ReasonPhrase>() {
        Some(reason) => reason.as_bytes(),
        None => status.canonical_reason().unwrap_or_default().as_bytes(),
    };
    let mut head = format!("HTTP/1.1 {} ", status.as_u16()).into_bytes();
    head.extend_from_slice(reason);
    for (name, value) in answer.headers() {
        head.extend_from_slice(b"\r\n");
        head.extend(title_case(name.as_str()));
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}

fn title_case(name: &str) -> Vec<u8> {
    let mut begins = true;
    let cased = name.bytes().map(|byte| {
        let byte_as_it_stands = if begins { byte.to_ascii_uppercase() } else { byte };
        begins = byte == b'-';
        byte_as_it_stands
    });
    cased.collect()
}

/// What a connection is made of: a socket, or TLS on one.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that was taken over. Reading ends when the client stops sending; `shutdown` ends our sending and
/// leaves reading.
///
/// Dropping it does not close it at once: a client that still sends would be told "connection reset", and might lose what
/// it has not read yet. As with dockerd the client closes; until then what it sends is read and forgotten.
pub struct Connection {
    stream: Option<Box<dyn Stream>>,
    read: Bytes,
}

impl Connection {
    fn stream(&mut self) -> Pin<&mut dyn Stream> {
        Pin::new(self.stream.as_mut().expect("it is there until it is dropped"))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // On no tracked task: the end of the daemon does not wait for it.
            runtime.spawn(tokio::time::timeout(PATIENCE, see_off(stream)));
        }
    }
}

async fn see_off(mut stream: Box<dyn Stream>) -> io::Result<u64> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(FORGOTTEN_BYTES), &mut tokio::io::sink()).await
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return self.stream().poll_read(cx, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
