//! `/jobs`.

use axum::{
    body::Body,
    extract::{FromRequest, Request, State},
    response::Response,
};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;

use super::body::{ExtendBody, JobAnswer, JobBody};
use crate::{
    edge::{
        answer::{Json, created},
        extract::Path,
    },
    engine::Engine,
    model::{Error, Result, job::JobReport},
};

/// No body of ours is longer.
const LIMIT: usize = 64 * 1024;

/// A body; an empty one says nothing.
pub(super) struct Told<T>(T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Told<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self> {
        let body = Limited::new(request.into_body(), LIMIT).collect().await;
        let bytes = body.map_err(|error| Error::invalid(format!("reading the body: {error}")))?.to_bytes();
        let bytes = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| Error::invalid(format!("invalid body: {error}")))
    }
}

/// `POST /jobs`.
pub(super) async fn create(State(engine): State<Engine>, Told(body): Told<JobBody>) -> Result<Response> {
    let job = engine.job_create(body.into()).await?;
    Ok(created(JobAnswer::from(job)))
}

/// `GET /jobs`.
pub(super) async fn list(State(engine): State<Engine>) -> Json<Vec<JobAnswer>> {
    Json(engine.job_list().into_iter().map(JobAnswer::from).collect())
}

/// `GET /jobs/{id}`.
pub(super) async fn inspect(State(engine): State<Engine>, Path(id): Path) -> Result<Json<JobAnswer>> {
    Ok(Json(engine.job_inspect(&id)?.into()))
}

/// `POST /jobs/{id}/extend`.
pub(super) async fn extend(
    State(engine): State<Engine>,
    Path(id): Path,
    Told(body): Told<ExtendBody>,
) -> Result<Json<JobAnswer>> {
    Ok(Json(engine.job_extend(&id, body.ttl, body.disown)?.into()))
}

/// `DELETE /jobs/{id}`.
pub(super) async fn delete(State(engine): State<Engine>, Path(id): Path) -> Result<Json<JobReport>> {
    Ok(Json(engine.job_delete(&id).await?))
}
