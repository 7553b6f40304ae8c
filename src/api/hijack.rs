//! Takes a connection over for attach and exec: `101 UPGRADED`, then raw bytes both ways. Each side can end its
//! sending alone: docker CLI half-closes right after attach when it has no input, and goes on reading.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, Version, header, request::Parts};
use hyper::{
    ext::ReasonPhrase,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::{io::ReaderStream, task::TaskTracker};
use tracing::Instrument;

use super::{ApiState, compat::ApiVersion, extract::ClientGone};
use crate::model::Error;

/// Bytes that may wait for a client of the form without upgrade.
const PIPE_BYTES: usize = 64 << 10;

/// A request that may take its connection over.
pub struct Hijack {
    upgrade: Option<OnUpgrade>,
    version: ApiVersion,
    gone: ClientGone,
    tasks: TaskTracker,
}

impl FromRequestParts<ApiState> for Hijack {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Error> {
        let asked = parts.headers.contains_key(header::UPGRADE);
        let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| asked);
        let version = parts.extensions.get().copied().unwrap_or(ApiVersion::NEWEST);
        let gone = parts.extensions.get().cloned().unwrap_or_default();
        Ok(Self { upgrade, version, gone, tasks: state.tasks.clone() })
    }
}

impl Hijack {
    /// Cancelled when the client has closed the connection entirely, which a silent stream would not notice.
    pub fn client_gone(&self) -> ClientGone {
        self.gone.clone()
    }

    /// Answers a refusal of an attach and ends the connection with it, as dockerd does with and without an upgrade: a client
    /// may leave its request open (dockerode), and would wait for a connection on which nothing happens any more. An exec's
    /// refusal is an answer as any other, after which dockerd keeps the connection.
    pub fn refuse(self, error: Error) -> Response {
        let mut response = error.into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Answers and runs `serve` with the connection on a tracked task. Everything that can be refused must
    /// be refused before: after the head there is no status any more. The stream ends when `serve` returns;
    /// dropping it closes both directions.
    pub fn answer<F, S>(self, tty: bool, serve: S) -> Response
    where
        S: FnOnce(HijackStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let content_type = self.content_type(tty);
        match self.upgrade {
            Some(upgrade) => {
                let task = async move {
                    match upgrade.await {
                        Ok(connection) => serve(HijackStream::Connection(TokioIo::new(connection))).await,
                        Err(error) => tracing::debug!(%error, "the client left before its stream began: {error}"),
                    }
                };
                self.tasks.spawn(task.in_current_span());
                upgraded(content_type)
            }
            None => {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                self.tasks.spawn(serve(HijackStream::OutputOnly(ours)).in_current_span());
                close_delimited(content_type, theirs)
            }
        }
    }

    fn content_type(&self, tty: bool) -> HeaderValue {
        // Without an upgrade dockerd calls every stream raw.
        HeaderValue::from_static(if !tty && self.upgrade.is_some() && self.version.names_multiplexed_streams() {
            "application/vnd.docker.multiplexed-stream"
        } else {
            "application/vnd.docker.raw-stream"
        })
    }
}

fn upgraded(content_type: HeaderValue) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("tcp")),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    response
}

/// The form for clients that ask for no upgrade (curl, docker before 1.10). dockerd sends a body that neither has
/// a length nor chunks and ends with the connection; as HTTP/1.0 that is well-formed. Such a client can only read:
/// what it sends after the request cannot be told from a next request.
fn close_delimited(content_type: HeaderValue, output: DuplexStream) -> Response {
    let body = Body::from_stream(ReaderStream::new(output));
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    *response.version_mut() = Version::HTTP_10;
    response
}

/// The connection. Reading ends when the client stops sending; `shutdown` ends our sending and leaves reading.
pub enum HijackStream {
    /// Both directions.
    Connection(TokioIo<Upgraded>),
    /// Without upgrade: reading is at its end from the start.
    OutputOnly(DuplexStream),
}

impl AsyncRead for HijackStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_read(cx, buffer),
            Self::OutputOnly(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for HijackStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_write(cx, bytes),
            Self::OutputOnly(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_write_vectored(cx, parts),
            Self::OutputOnly(pipe) => Pin::new(pipe).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Connection(connection) => connection.is_write_vectored(),
            Self::OutputOnly(pipe) => pipe.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_flush(cx),
            Self::OutputOnly(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_shutdown(cx),
            Self::OutputOnly(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}
