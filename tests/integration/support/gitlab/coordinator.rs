//! The runners' side of the stand-in (`lib/api/ci/runner.rb`).

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    RUNNER_TOKEN, Shared,
    rest::{refused, told},
    world::{Job, RUNNER},
};

fn read(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

/// `POST /runners/verify`.
pub async fn verify(State(shared): State<Shared>, body: Bytes) -> Response {
    let body = read(&body);
    if body["token"] != RUNNER_TOKEN {
        return refused(StatusCode::FORBIDDEN, "403 Forbidden");
    }
    if let Some(system_id) = body["system_id"].as_str() {
        shared.world().managers.insert(system_id.to_owned());
    }
    told(StatusCode::OK, &json!({"id": RUNNER, "token": RUNNER_TOKEN, "token_expires_at": null}))
}

/// `POST /jobs/request`.
pub async fn request(State(shared): State<Shared>, body: Bytes) -> Response {
    let body = read(&body);
    if body["token"] != RUNNER_TOKEN {
        return refused(StatusCode::FORBIDDEN, "403 Forbidden");
    }
    let Some(system_id) = body["system_id"].as_str() else {
        return refused(StatusCode::BAD_REQUEST, "system_id is missing");
    };
    let mut world = shared.world();
    world.managers.insert(system_id.to_owned());
    match world.give(system_id, &body["info"]["features"]) {
        Some(job) => told(StatusCode::CREATED, &job),
        None => (StatusCode::NO_CONTENT, [("X-GitLab-Last-Update", "1")]).into_response(),
    }
}

/// Only by the job's own token, and only until it has ended.
fn with_job(
    shared: &Shared,
    id: i64,
    headers: &HeaderMap,
    body: &Value,
    answer: impl FnOnce(&mut Job) -> Response,
) -> Response {
    let mut world = shared.world();
    let given = headers.get("job-token").and_then(|value| value.to_str().ok()).or(body["token"].as_str());
    match world.job_mut(id) {
        None => refused(StatusCode::NOT_FOUND, "404 Not Found"),
        Some(job) if given != Some(&job.token()) => refused(StatusCode::FORBIDDEN, "403 Forbidden"),
        Some(job) if job.has_ended() => (
            [("Job-Status", job.status)],
            refused(StatusCode::FORBIDDEN, "403 Forbidden - Job is not processing on runner"),
        )
            .into_response(),
        Some(job) => answer(job),
    }
}

/// `PUT /jobs/:id`.
pub async fn update(State(shared): State<Shared>, Path(id): Path<i64>, headers: HeaderMap, body: Bytes) -> Response {
    let body = read(&body);
    with_job(&shared, id, &headers, &body, |job| {
        let status = match (body["state"].as_str().unwrap_or_default(), job.status) {
            ("pending", "pending") => StatusCode::OK,
            ("pending", _) => StatusCode::BAD_REQUEST,
            ("running", "pending") => {
                job.status = "running";
                StatusCode::OK
            }
            ("running", _) => StatusCode::OK,
            ("success" | "failed", "pending") => StatusCode::CONFLICT,
            (state @ ("success" | "failed"), _) => finish(job, state, &body),
            _ => StatusCode::BAD_REQUEST,
        };
        (status, [("Job-Status", job.status), ("X-GitLab-Trace-Update-Interval", "3")], status.as_str().to_owned())
            .into_response()
    })
}

/// The log has to be there whole (`update_build_state_service.rb`).
fn finish(job: &mut Job, state: &str, body: &Value) -> StatusCode {
    if body["output"]["bytesize"].as_u64().is_some_and(|size| size != job.trace.len() as u64) {
        return StatusCode::PRECONDITION_FAILED;
    }
    job.reason = body["failure_reason"].as_str().unwrap_or_default().to_owned();
    job.status = match (job.status, state) {
        ("canceling", _) => "canceled",
        (_, "success") => "success",
        _ => "failed",
    };
    StatusCode::OK
}

/// `PATCH /jobs/:id/trace`.
pub async fn trace(State(shared): State<Shared>, Path(id): Path<i64>, headers: HeaderMap, body: Bytes) -> Response {
    with_job(&shared, id, &headers, &Value::Null, |job| {
        let range = headers.get("content-range").and_then(|value| value.to_str().ok());
        let Some(start) = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok()) else {
            return refused(StatusCode::BAD_REQUEST, "400 Bad request - Missing header Content-Range");
        };
        let status = if start == job.trace.len() {
            job.trace.extend_from_slice(&body);
            StatusCode::ACCEPTED
        } else {
            StatusCode::RANGE_NOT_SATISFIABLE
        };
        let range = format!("0-{}", job.trace.len());
        (status, [("Job-Status", job.status), ("Range", range.as_str()), ("X-GitLab-Trace-Update-Interval", "3")])
            .into_response()
    })
}
