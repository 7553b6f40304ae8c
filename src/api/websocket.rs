//! Takes a connection over for a WebSocket: messages both ways, which to a session are plain bytes.
//!
//! tokio-tungstenite frames and masks; the handshake is only an answer, so it is made here.

use axum::{
    Extension,
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::task::TaskTracker;

use super::{ApiState, compat::ApiVersion, router::Bare};
use crate::{
    edge::takeover::{Connection, Takeover},
    model::{Error, Result, limits},
};

/// Bytes that may wait for either side, and the longest message that we send.
const PIPE_BYTES: usize = 32 << 10;

/// A request that may become a WebSocket.
pub struct WebSocket {
    /// `None` if the client asked for none.
    key: Option<HeaderValue>,
    version: ApiVersion,
    takeover: Takeover,
    tasks: TaskTracker,
}

impl FromRequestParts<ApiState> for WebSocket {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self> {
        let asked =
            parts.headers.get(header::UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).cloned().filter(|_| asked);
        let version = parts.extensions.get().copied().unwrap_or(ApiVersion::NEWEST);
        let takeover = parts.extensions.remove().unwrap_or_default();
        Ok(Self { key, version, takeover, tasks: state.tasks.clone() })
    }
}

impl WebSocket {
    /// Answers and runs `serve` on a tracked task with a stream of the messages' bytes. Dropping that stream closes the
    /// WebSocket. A client that asked for none is told so.
    pub fn answer<F, S>(self, serve: S) -> Response
    where
        S: FnOnce(DuplexStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(key) = self.key else {
            return bare((StatusCode::BAD_REQUEST, Body::from("not websocket protocol")));
        };
        let binary = self.version.has_binary_websockets();
        let gone = self.takeover.client_gone();
        self.takeover.answer(&self.tasks, bare(switching(&key)), move |connection| async move {
            let (ours, theirs) = duplex(PIPE_BYTES);
            let both = async { tokio::join!(serve(theirs), carry(connection, ours, binary)) };
            tokio::select! {
                _ = both => {}
                () = gone.0.cancelled() => {}
            }
        })
    }
}

fn bare(answer: impl IntoResponse) -> Response {
    (Extension(Bare), answer).into_response()
}

fn switching(key: &HeaderValue) -> Response {
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 fits into a header");
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Copies both ways until the session has ended, which closes the WebSocket, or the client is gone.
async fn carry(connection: Connection, session: DuplexStream, binary: bool) {
    let longest = Some(limits::WEBSOCKET_MESSAGE);
    let config = WebSocketConfig::default().max_message_size(longest).max_frame_size(longest);
    let websocket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await;
    let (mut sink, mut messages) = websocket.split();
    let (mut output, mut input): (ReadHalf<_>, WriteHalf<_>) = split(session);
    let send = async {
        let mut buffer = vec![0; PIPE_BYTES];
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            if sink.send(message(&buffer[..length], binary)).await.is_err() {
                return;
            }
        }
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _client_left = sink.send(Message::Close(Some(normal))).await;
    };
    let receive = async {
        while let Some(Ok(message)) = messages.next().await {
            let written = match message {
                Message::Text(text) => input.write_all(text.as_bytes()).await,
                Message::Binary(bytes) => input.write_all(&bytes).await,
                // Answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        // The session sees the end of its input and decides.
        let _session_over = input.shutdown().await;
    };
    tokio::pin!(send, receive);
    tokio::select! {
        () = &mut send => {}
        () = &mut receive => send.await,
    }
}

/// Text must be UTF-8, so what is not is replaced in the form for old clients.
fn message(bytes: &[u8], binary: bool) -> Message {
    if binary { Message::binary(bytes.to_vec()) } else { Message::text(String::from_utf8_lossy(bytes).into_owned()) }
}
