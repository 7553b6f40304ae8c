//! Handlers for the daemon itself.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};

/// `GET /_ping`
pub async fn system_ping() -> Response {
    ping("OK")
}

/// `HEAD /_ping`
pub async fn system_ping_head() -> Response {
    ping("")
}

/// Version negotiation of every Go client reads these headers. `Builder-Version` 1 sends `docker build` to the
/// classic builder, since there is no BuildKit here yet.
fn ping(body: &'static str) -> Response {
    let headers = [
        (HeaderName::from_static("builder-version"), HeaderValue::from_static("1")),
        (HeaderName::from_static("swarm"), HeaderValue::from_static("inactive")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    (headers, body).into_response()
}
