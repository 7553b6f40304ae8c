//! `/containers` and `/events`: what all tenants have and do.

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::{HeaderValue, header};

use super::body::{ContainerAnswer, EventAnswer};
use crate::{edge::answer::Json, engine::Engine};

/// `GET /containers`.
pub(super) async fn containers(State(engine): State<Engine>) -> Json<Vec<ContainerAnswer>> {
    Json(engine.all_containers().into_iter().map(ContainerAnswer::from).collect())
}

/// `GET /events`.
pub(super) async fn events(State(engine): State<Engine>) -> Response {
    let lines = engine.all_events().map(|event| {
        let mut line = serde_json::to_vec(&EventAnswer::from(event))?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    let mut answer = Body::from_stream(lines).into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer
}
