//! BuildKit's two doors, `/grpc` and `/session`. There is no BuildKit yet, and that is said behind the doors: a client that
//! is not let in (buildx) makes itself a builder, which is a privileged container whose images never arrive.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;

use super::{ApiState, router::Bare};
use crate::{
    edge::takeover::{Connection, Takeover},
    model::{Error, Result},
};

/// The longest that a connection lives. Every call is answered at once, and a client that wants more comes again.
const LIFE: Duration = Duration::from_secs(60);

/// Calls of one connection at once, and resets of calls that were not looked at yet.
const CALLS: u32 = 16;

/// Headers of one call.
const HEADERS_BYTES: u32 = 16 << 10;

/// What may come for a call before it must wait, and for all calls of a connection: nothing of it is read.
const WINDOW_BYTES: u32 = 64 << 10;

/// What a session may send to nobody.
const SESSION_BYTES: u64 = 1 << 20;

/// gRPC's number for what is not there: a client does not try again.
const UNIMPLEMENTED: &str = "12";

/// `POST /grpc`: HTTP/2 on the connection, and one answer to every call.
pub async fn grpc(State(api): State<ApiState>, mut request: Request<Body>) -> Result<Response> {
    // A 500 in dockerd too.
    let takeover = upgrade(&mut request).map_err(Error::system)?;
    Ok(switch(&api, takeover, serve_calls))
}

/// `POST /session`: here the client would serve, and is never called. It leaves when its build has failed.
pub async fn session(State(api): State<ApiState>, mut request: Request<Body>) -> Result<Response> {
    let takeover = upgrade(&mut request).map_err(Error::invalid)?;
    Ok(switch(&api, takeover, |connection| async move {
        let mut sent = connection.take(SESSION_BYTES);
        let _client_left = tokio::io::copy(&mut sent, &mut tokio::io::sink()).await;
    }))
}

/// What the client asked for, or why it gets nothing, in dockerd's words.
fn upgrade(request: &mut Request<Body>) -> Result<Takeover, String> {
    match request.headers().get(header::UPGRADE) {
        Some(protocol) if protocol != "h2c" => {
            Err(format!("protocol {} not supported", String::from_utf8_lossy(protocol.as_bytes())))
        }
        Some(_) => Ok(request.extensions_mut().remove().unwrap_or_default()),
        None => Err("no upgrade proto in request".to_owned()),
    }
}

/// Answers 101 and serves the connection on a tracked task, until the client goes or its time is over.
fn switch<S, F>(api: &ApiState, takeover: Takeover, serve: S) -> Response
where
    S: FnOnce(Connection) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let headers =
        [(header::CONNECTION, HeaderValue::from_static("Upgrade")), (header::UPGRADE, HeaderValue::from_static("h2c"))];
    let head = (Extension(Bare), (StatusCode::SWITCHING_PROTOCOLS, headers)).into_response();
    let gone = takeover.client_gone();
    takeover.answer(&api.tasks, head, move |connection| async move {
        tokio::select! {
            _ = tokio::time::timeout(LIFE, serve(connection)) => {}
            () = gone.0.cancelled() => {}
        }
    })
}

async fn serve_calls(connection: Connection) {
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS)
        .max_pending_accept_reset_streams(Some(CALLS as usize))
        .max_header_list_size(HEADERS_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_connection(
            TokioIo::new(connection),
            service_fn(async |call: Request<Incoming>| Ok::<_, Infallible>(refusal(call.uri().path()))),
        )
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection of a BuildKit client ended: {error}");
    }
}

/// The status of a call, in headers alone: gRPC's short form of an error.
fn refusal(call: &str) -> http::Response<Body> {
    let error = Error::no_buildkit();
    tracing::debug!("{call} refused: {}", error.message());
    let message = HeaderValue::from_str(error.message()).expect("the text is plain ASCII");
    let mut response = http::Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(UNIMPLEMENTED));
    headers.insert("grpc-message", message);
    response
}
