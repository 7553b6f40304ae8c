//! Level 3: our own API beside Docker's, on the admin socket: jobs, and launches of runners. Translates, decides nothing.
//!
//! HTTP and JSON; errors are `{"message": …}`, as in Docker's API. Described in `api-spec/admin.json`.

mod body;
mod jobs;
mod launches;
#[cfg(test)]
mod spec;

use std::sync::Arc;

use axum::{body::Body, extract::FromRef, response::IntoResponse};
use http::{Method, Request, StatusCode};

use crate::{
    edge::{
        error,
        route::{self, Answer, Route, Table},
        server::Api,
    },
    engine::Engine,
    supervisor::Supervisor,
};

pub use self::body::{ExtendBody, ForgeAnswer, JobAnswer, JobBody, LaunchAnswer};

/// What the calls work on.
#[derive(Clone)]
pub struct AdminState {
    /// The engine.
    pub engine: Engine,
    /// What launches runners, if this daemon does.
    pub supervisor: Option<Supervisor>,
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
        Route::new(Method::GET, "/launches", "LaunchList").to(launches::list),
        Route::new(Method::GET, "/launches/{id}/log", "LaunchLog").to(launches::log),
        Route::new(Method::GET, "/forges", "ForgeList").to(launches::forges),
        Route::new(Method::POST, "/drain", "Drain").to(launches::drain),
    ]
}

struct Admin(Table<AdminState>);

impl Api for Admin {
    fn answer(&self, request: Request<Body>) -> Answer {
        let table = self.0.clone();
        Box::pin(async move {
            let path = route::decoded(request.uri().path()).map(|path| path.into_owned());
            let found = path.as_deref().and_then(|path| table.find(request.method(), path));
            match found {
                Some((route, name)) => table.call(route, name, request).await,
                None => error::message(StatusCode::NOT_FOUND, "page not found").into_response(),
            }
        })
    }
}

/// The API over the verbs of an engine and a supervisor.
pub fn api(state: AdminState) -> Arc<dyn Api> {
    Arc::new(Admin(Table::new(routes(), state)))
}
