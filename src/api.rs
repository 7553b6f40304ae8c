//! Level 3: the HTTP edge. Translates requests into engine verbs and answers back; decides nothing.
//!
//! `routes` is the one table of the Docker API, `router` what stands around it. What a handler takes apart is in
//! `extract`, `query` and `body`; what it answers with is in `answer`, `stream` and `hijack`, which takes connections
//! over; `compat` knows the API's versions. Sockets, connections and statuses are `edge`'s.
//! The handlers are in one file per group of Docker's specification.

pub mod body;
mod build;
mod buildkit;
pub mod compat;
pub mod containers;
pub mod extract;
pub mod hijack;
pub mod images;
pub mod networks;
pub mod plugins;
pub mod query;
pub mod router;
pub mod routes;
pub mod stream;
pub mod swarm;
pub mod system;
pub mod volumes;
pub mod websocket;

#[cfg(test)]
mod spec;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Request};
use tokio_util::task::TaskTracker;

pub use self::containers::create::create_request;
use self::router::Router;
pub use crate::edge::answer;
use crate::{
    buildkit::BuildKit,
    edge::{route::Answer, server::Api},
    engine::Engine,
    model::id::TenantId,
};

/// What every handler can reach, by axum's `State`.
#[derive(Clone)]
pub struct ApiState {
    /// The verbs.
    pub engine: Engine,
    /// Who builds with BuildKit, if it is here.
    pub buildkit: Option<Arc<BuildKit>>,
    /// Tasks that outlive their request: hijacked streams. Shutdown waits for them, with a limit.
    pub tasks: TaskTracker,
}

impl ApiState {
    /// The state of a daemon whose verbs are `engine`'s.
    pub fn new(engine: Engine) -> Self {
        Self { engine, buildkit: None, tasks: TaskTracker::new() }
    }

    /// With BuildKit.
    #[must_use]
    pub fn building_with(mut self, buildkit: Option<Arc<BuildKit>>) -> Self {
        self.buildkit = buildkit;
        self
    }
}

/// The whole API over `state`.
pub fn router(state: ApiState) -> Router {
    let server = HeaderValue::from_static(concat!("ringer/", env!("CARGO_PKG_VERSION"), " (linux)"));
    Router::new(routes::routes(), state, server)
}

/// The API as one tenant has it: the tenant of a listener.
struct OfTenant {
    router: Router,
    tenant: TenantId,
}

impl Api for OfTenant {
    fn answer(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(self.tenant.clone());
        let router = self.router.clone();
        Box::pin(async move { router.oneshot(request).await })
    }
}

/// The API for a listener through which everything is `tenant`'s.
pub fn for_tenant(router: &Router, tenant: TenantId) -> Arc<dyn Api> {
    Arc::new(OfTenant { router: router.clone(), tenant })
}
