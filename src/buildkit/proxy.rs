//! HTTP/2 between two sockets: calls come in on one connection and go out on another, their bodies as raw frames in both directions.

use std::{future::Future, io, path::Path, sync::Arc, time::Duration};

use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    client::conn::http2::{self as client, SendRequest},
    server::conn::http2 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::grpc::{Body, Code, Status, boxed};

/// What may be on its way for one call and for all calls of a connection before its sender waits, and the largest frame: layers of
/// images go through here.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const WINDOW_BYTES: u32 = 16 << 20;
const FRAME_BYTES: u32 = 1 << 20;

/// Headers of one call. A session names there what its client serves.
const HEADERS_BYTES: u32 = 64 << 10;

/// Resets of calls that were not looked at yet.
const RESETS: usize = 64;

/// How long the other side may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection to the one who carries calls out.
pub(super) struct Upstream {
    sender: SendRequest<Body>,
    ended: CancellationToken,
    _connection: AbortOnDropHandle<()>,
}

impl Upstream {
    /// Connects to a unix socket.
    pub(super) async fn connect(socket: &Path) -> io::Result<Self> {
        let shaken = async {
            let stream = UnixStream::connect(socket).await?;
            client::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .max_frame_size(FRAME_BYTES)
                .handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)
        };
        let (sender, connection) = tokio::time::timeout(CONNECT_LIMIT, shaken).await??;
        let ended = CancellationToken::new();
        let ends = ended.clone().drop_guard();
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the one behind ended: {error}");
            }
            drop(ends);
        });
        Ok(Self { sender, ended, _connection: AbortOnDropHandle::new(connection) })
    }

    /// Whether the one behind is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Passes a call on.
    pub(super) async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme("http").authority("localhost").path_and_query(path);
        *request.uri_mut() = uri.build().expect("a path that was one already");
        match self.sender.clone().send_request(request).await {
            Ok(response) => response.map(boxed),
            Err(error) => Status::new(Code::Unavailable, format!("the builder does not answer: {error}")).into(),
        }
    }
}

/// Answers the calls of a connection by `answer`, `at_once` of them together, until one of both ends is gone.
pub(super) async fn serve<S, A, F>(stream: S, upstream: &Arc<Upstream>, at_once: u32, answer: A)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let answer = Arc::new(answer);
    let service = service_fn(move |call| {
        let answer = answer.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(call).await) }
    });
    let served = server::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(at_once)
        .max_pending_accept_reset_streams(Some(RESETS))
        .max_header_list_size(HEADERS_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = served => if let Err(error) = ended {
            tracing::debug!(%error, "connection of a client of the builder ended: {error}");
        },
        () = upstream.ended.cancelled() => {}
    }
}
