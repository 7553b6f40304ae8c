//! Level 3: what anybody may see of `ringer run` and `ringer serve`, on a listener of its own (`[http] listen`, `--http-host`), and the webhooks
//! of forges. Nothing else can be done here: what administrators do is on the admin socket.

mod page;
mod webhook;

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::Method;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use crate::{
    edge::{
        measure::{self, Measures},
        route::{Route, Table},
        server::Api,
    },
    engine::Engine,
    supervisor::Supervisor,
};

/// What the calls work on.
#[derive(Clone)]
pub struct WebState {
    /// Who knows what jobs are called.
    pub engine: Engine,
    /// Whose webhooks these are; `ringer serve` has none.
    pub supervisor: Option<Supervisor>,
    /// What is counted.
    pub registry: Arc<Registry>,
    /// Who remembers what was refused.
    pub measures: Arc<Measures>,
    bodies: Arc<Semaphore>,
}

impl WebState {
    /// Over an engine, its supervisor and the numbers of all parts.
    pub fn new(
        engine: Engine,
        supervisor: Option<Supervisor>,
        registry: Arc<Registry>,
        measures: Arc<Measures>,
    ) -> Self {
        Self { engine, supervisor, registry, measures, bodies: Arc::new(Semaphore::new(webhook::AT_ONCE)) }
    }
}

/// All calls.
fn routes() -> Vec<Route<WebState>> {
    vec![
        Route::new(Method::GET, "/", "Page").to(page::show),
        Route::new(Method::GET, "/healthz", "Health").to(health),
        Route::new(Method::GET, "/metrics", "Metrics").to(metrics),
        Route::new(Method::POST, "/webhook/{forge}", "Webhook").to(webhook::take),
    ]
}

/// The API of the listener.
pub fn api(state: WebState) -> Arc<dyn Api> {
    Arc::new(Table::new(routes(), state))
}

/// `GET /healthz`: whoever reads the answer reaches a daemon that serves.
async fn health() -> &'static str {
    "ok\n"
}

/// `GET /metrics`.
async fn metrics(State(state): State<WebState>) -> Response {
    measure::answer(&state.registry)
}
