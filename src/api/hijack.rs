//! Takes a connection over for attach and exec: `101 UPGRADED`, then raw bytes both ways. Each side can end its
//! sending alone: docker CLI half-closes right after attach when it has no input, and goes on reading. A client that
//! asks for no upgrade (curl, what is behind a proxy that strips the header) gets `200 OK` and the same bytes.

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use hyper::ext::ReasonPhrase;
use tokio_util::task::TaskTracker;

use super::{ApiState, compat::ApiVersion, extract::ClientGone};
use crate::{
    edge::takeover::{Connection, Takeover},
    model::Error,
};

/// A request that may take its connection over.
pub struct Hijack {
    /// Whether the client asked for an upgrade, to whatever.
    upgrades: bool,
    version: ApiVersion,
    takeover: Takeover,
    tasks: TaskTracker,
}

impl FromRequestParts<ApiState> for Hijack {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Error> {
        let upgrades = parts.headers.contains_key(header::UPGRADE);
        let version = parts.extensions.get().copied().unwrap_or(ApiVersion::NEWEST);
        let takeover = parts.extensions.remove().unwrap_or_default();
        Ok(Self { upgrades, version, takeover, tasks: state.tasks.clone() })
    }
}

impl Hijack {
    /// Cancelled when the client has closed the connection entirely, which a silent stream would not notice.
    pub fn client_gone(&self) -> ClientGone {
        self.takeover.client_gone()
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
    /// be refused before: after the head there is no status any more. The stream ends when `serve` returns.
    pub fn answer<F, S>(self, tty: bool, serve: S) -> Response
    where
        S: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let content_type = self.content_type(tty);
        let head = if self.upgrades { upgraded(content_type) } else { plain(content_type) };
        self.takeover.answer(&self.tasks, head, serve)
    }

    fn content_type(&self, tty: bool) -> HeaderValue {
        // Without an upgrade dockerd calls every stream raw.
        HeaderValue::from_static(if !tty && self.upgrades && self.version.names_multiplexed_streams() {
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

/// A body that has neither a length nor chunks and ends with the connection. The client's bytes behind its request are
/// input: a next request there is none.
fn plain(content_type: HeaderValue) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, content_type)]).into_response()
}
