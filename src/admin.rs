//! Level 3: our own API beside Docker's, on the admin socket: jobs. Translates, decides nothing.
//!
//! HTTP and JSON; errors are `{"message": …}`, as in Docker's API. Described in `api-spec/admin.json`.

mod body;
mod jobs;
#[cfg(test)]
mod spec;

use std::sync::Arc;

use axum::{body::Body, response::IntoResponse};
use http::{Method, Request, StatusCode};

use crate::{
    edge::{
        error,
        route::{self, Answer, Route, Table},
        server::Api,
    },
    engine::Engine,
};

pub use self::body::{ExtendBody, JobAnswer, JobBody};

/// All calls of the API.
pub fn routes() -> Vec<Route<Engine>> {
    vec![
        Route::new(Method::POST, "/jobs", "JobCreate").to(jobs::create),
        Route::new(Method::GET, "/jobs", "JobList").to(jobs::list),
        Route::new(Method::POST, "/jobs/{id}/extend", "JobExtend").to(jobs::extend),
        Route::new(Method::GET, "/jobs/{id}", "JobInspect").to(jobs::inspect),
        Route::new(Method::DELETE, "/jobs/{id}", "JobDelete").to(jobs::delete),
    ]
}

struct Admin(Table<Engine>);

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

/// The API over an engine's verbs.
pub fn api(engine: Engine) -> Arc<dyn Api> {
    Arc::new(Admin(Table::new(routes(), engine)))
}
