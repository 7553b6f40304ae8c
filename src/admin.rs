//! Level 3: our own API beside Docker's, on the admin socket: jobs, and launches of runners. Translates, decides nothing.
//!
//! HTTP and JSON; errors are `{"message": …}`, as in Docker's API. Described in `api-spec/admin.json`.

mod body;
mod jobs;
mod launches;
mod overview;
#[cfg(test)]
mod spec;

use std::sync::Arc;

use axum::{
    extract::{FromRef, State},
    response::Response,
};
use http::Method;
use prometheus_client::registry::Registry;

use crate::{
    edge::{
        measure,
        route::{Route, Table},
        server::Api,
    },
    engine::Engine,
    supervisor::Supervisor,
};

pub use self::body::{
    ContainerAnswer, EventAnswer, ExtendBody, ForgeAnswer, JobAnswer, JobBody, LaunchAnswer, LeftAlone, PurgeAnswer,
    ReachAnswer, RunnerImage,
};

/// What the calls work on.
#[derive(Clone)]
pub struct AdminState {
    /// The engine.
    pub engine: Engine,
    /// What launches runners, if this daemon does.
    pub supervisor: Option<Supervisor>,
    /// What is counted.
    pub registry: Arc<Registry>,
}

impl FromRef<AdminState> for Engine {
    fn from_ref(state: &AdminState) -> Self {
        state.engine.clone()
    }
}

/// All calls of the API.
pub fn routes() -> Vec<Route<AdminState>> {
    vec![
        Route::new(Method::POST, "/jobs", "JobCreate").to(jobs::create),
        Route::new(Method::GET, "/jobs", "JobList").to(jobs::list),
        Route::new(Method::POST, "/jobs/{id}/extend", "JobExtend").to(jobs::extend),
        Route::new(Method::GET, "/jobs/{id}", "JobInspect").to(jobs::inspect),
        Route::new(Method::DELETE, "/jobs/{id}", "JobDelete").to(jobs::delete),
        Route::new(Method::GET, "/containers", "ContainerList").to(overview::containers),
        Route::new(Method::GET, "/events", "EventFollow").to(overview::events),
        Route::new(Method::GET, "/launches", "LaunchList").to(launches::list),
        Route::new(Method::GET, "/launches/{id}/log", "LaunchLog").to(launches::log),
        Route::new(Method::GET, "/forges", "ForgeList").to(launches::forges),
        Route::new(Method::POST, "/forges/{name}/reach", "ForgeReach").to(launches::reach),
        Route::new(Method::POST, "/drain", "Drain").to(launches::drain),
        Route::new(Method::POST, "/uncordon", "Uncordon").to(launches::uncordon),
        Route::new(Method::POST, "/purge", "Purge").to(launches::purge),
        Route::new(Method::GET, "/metrics", "Metrics").to(metrics),
    ]
}

/// The API over the verbs of an engine and a supervisor.
pub fn api(state: AdminState) -> Arc<dyn Api> {
    Arc::new(Table::new(routes(), state))
}

/// `GET /metrics`.
async fn metrics(State(state): State<AdminState>) -> Response {
    measure::answer(&state.registry)
}
