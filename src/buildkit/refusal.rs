//! What a client of BuildKit is told when nobody builds for it. It is let in for that: one that is not (buildx) makes itself a builder,
//! which is a privileged container whose images never arrive.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::grpc::{Body, Status};
use crate::model::Error;

/// The longest that a connection lives. Every call is answered at once, and a client that wants more comes again.
const LIFE: Duration = Duration::from_secs(60);

/// Calls of one connection at once, and resets of calls that were not looked at yet.
const CALLS: u32 = 16;

/// Headers of one call.
const HEADERS_BYTES: u32 = 16 << 10;

/// What may come for a call before it must wait, and for all calls of a connection: nothing of it is read.
const WINDOW_BYTES: u32 = 64 << 10;

/// Answers every call of a connection with why there is nothing behind it.
pub async fn refuse<S>(stream: S, why: Error)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let status = Status::from(why);
    let answer = move |call: Request<Incoming>| {
        tracing::debug!("{} refused", call.uri().path());
        let answer: Response<Body> = status.clone().into();
        async move { Ok::<_, Infallible>(answer) }
    };
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS)
        .max_pending_accept_reset_streams(Some(CALLS as usize))
        .max_header_list_size(HEADERS_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Ok(Err(error)) = tokio::time::timeout(LIFE, serving).await {
        tracing::debug!(%error, "connection of a BuildKit client ended: {error}");
    }
}
