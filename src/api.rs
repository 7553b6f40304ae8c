//! Level 3: the HTTP edge. Translates requests into engine verbs and answers back; decides nothing.
//!
//! `routes` is the one table of the Docker API, `router` finds a request's route in it, `server` owns sockets
//! and connections. What a handler takes apart is in `extract`, `query` and `body`; what it answers with is in
//! `answer`, `stream` and `hijack`, which takes connections over (`takeover`); `error` maps failures to statuses and `compat` knows the API's versions.
//! The handlers are in one file per group of Docker's specification.

pub mod answer;
pub mod body;
mod build;
mod buildkit;
pub mod compat;
pub mod containers;
pub mod error;
pub mod extract;
pub mod hijack;
pub mod images;
pub mod networks;
pub mod plugins;
pub mod query;
pub mod router;
pub mod routes;
pub mod server;
pub mod stream;
pub mod swarm;
pub mod system;
pub mod takeover;
pub mod volumes;
pub mod websocket;

#[cfg(test)]
mod spec;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use http::HeaderValue;
use tokio_util::task::TaskTracker;

use self::router::Router;
use crate::engine::Engine;

/// What every handler can reach, by axum's `State`.
#[derive(Clone)]
pub struct ApiState {
    /// The verbs.
    pub engine: Engine,
    /// Tasks that outlive their request: hijacked streams. Shutdown waits for them, with a limit.
    pub tasks: TaskTracker,
}

impl ApiState {
    /// The state of a daemon whose verbs are `engine`'s.
    pub fn new(engine: Engine) -> Self {
        Self { engine, tasks: TaskTracker::new() }
    }
}

/// The whole API over `state`.
pub fn router(state: ApiState) -> Router {
    let server = HeaderValue::from_static(concat!("ringer/", env!("CARGO_PKG_VERSION"), " (linux)"));
    Router::new(routes::routes(), state, server)
}
