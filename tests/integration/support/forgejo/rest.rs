//! The API of the stand-in (`routers/api/v1`), as far as the supervisor asks it.

use axum::{
    body::Bytes,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    NARROW_TOKEN, REGISTRATION_TOKEN, Shared, TOKEN, USER,
    messages::Runner,
    world::{Job, Row, World},
};

fn told(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json;charset=utf-8")], body.to_string()).into_response()
}

fn refused(status: StatusCode, message: &str) -> Response {
    told(status, &json!({"message": message, "url": "/api/swagger"}))
}

/// Faults that a test has asked for come before everything, and what is asked is written down.
pub async fn watch(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let fault = shared.world().calls.ask(request.method(), &path);
    match fault {
        Some(status) => refused(status, "as a test has asked"),
        None => next.run(request).await,
    }
}

/// Nobody is served without a token, and nobody with one that lacks the scope.
pub async fn authorize(headers: HeaderMap, request: Request, next: Next) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = given.strip_prefix("token ").or(given.strip_prefix("Bearer ")).unwrap_or_default();
    let needs_more = !request.uri().path().ends_with("/user");
    match token {
        TOKEN => next.run(request).await,
        NARROW_TOKEN if !needs_more => next.run(request).await,
        NARROW_TOKEN => refused(
            StatusCode::FORBIDDEN,
            "token does not have at least one of required scope(s): [write:admin], token scope: read:user",
        ),
        "" => refused(StatusCode::UNAUTHORIZED, "token is required"),
        _ => refused(StatusCode::UNAUTHORIZED, "invalid username, password or token"),
    }
}

pub async fn version(State(shared): State<Shared>) -> Response {
    let version = if shared.world().is_old { "12.0.4+gitea-1.22.0" } else { "15.0.5+gitea-1.22.0" };
    told(StatusCode::OK, &json!({"version": version}))
}

/// `GET /settings/api`.
pub async fn limits() -> Response {
    told(StatusCode::OK, &json!({"max_response_items": 50, "default_paging_num": 30}))
}

pub async fn user() -> Response {
    told(StatusCode::OK, &json!({"id": 1, "login": USER, "is_admin": true}))
}

pub async fn repository(State(shared): State<Shared>, Path(id): Path<usize>) -> Response {
    let world = shared.world();
    match id.checked_sub(1).and_then(|index| world.repositories.get(index)) {
        Some(name) => told(StatusCode::OK, &json!({"id": id, "full_name": name})),
        None => no_target(),
    }
}

/// `GET /repos/{owner}/{repo}/actions/tasks`.
pub async fn tasks(State(shared): State<Shared>, Path((owner, name)): Path<(String, String)>) -> Response {
    let world = shared.world();
    let scope = format!("repos/{owner}/{name}");
    let jobs = world.jobs.iter().rev().filter(|job| world.is_of(job, &scope));
    let tasks: Vec<Value> = jobs
        .filter_map(|job| job.task.map(|task| json!({"id": task, "name": job.name, "status": job.status})))
        .collect();
    told(StatusCode::OK, &json!({"total_count": tasks.len(), "workflow_runs": tasks}))
}

fn described(job: &Job) -> Value {
    json!({
        "id": job.id, "run_id": job.run(), "attempt": 1, "handle": job.handle, "repo_id": job.repository + 1, "owner_id": 1,
        "name": job.name, "needs": null, "runs_on": job.runs_on, "task_id": job.task.unwrap_or(0), "status": job.status,
    })
}

fn no_target() -> Response {
    refused(StatusCode::NOT_FOUND, "The target couldn't be found.")
}

fn with_job(shared: &Shared, owner: &str, name: &str, run: i64, answer: impl FnOnce(&Job) -> Value) -> Response {
    let world = shared.world();
    let scope = format!("repos/{owner}/{name}");
    match world.jobs.iter().find(|job| job.run() == run && world.is_of(job, &scope)) {
        Some(job) => told(StatusCode::OK, &answer(job)),
        None => no_target(),
    }
}

/// `GET /repos/{owner}/{repo}/actions/runs/{run}`. The page has the number of the run in its repository.
pub async fn run(State(shared): State<Shared>, Path((owner, name, run)): Path<(String, String, i64)>) -> Response {
    let is_private = !shared.world().public.contains(&format!("{owner}/{name}"));
    with_job(&shared, &owner, &name, run, |job| {
        let page = format!("{}/{owner}/{name}/actions/runs/{}", shared.url, job.id);
        let pull = job.git_ref.strip_prefix("refs/pull/").and_then(|rest| rest.strip_suffix("/head"));
        let event = if job.is_of_fork || pull.is_some() { "pull_request" } else { "push" };
        // `PrettyRef` of `models/actions/run.go`.
        let short = job.git_ref.splitn(3, '/').last().unwrap_or_default();
        let pretty = pull.map_or_else(|| short.to_owned(), |number| format!("#{number}"));
        let payload = json!({"ref": job.git_ref}).to_string();
        json!({
            "id": run, "index_in_repo": job.id, "html_url": page, "status": job.status, "event": event, "trigger_event": event,
            "is_fork_pull_request": job.is_of_fork, "prettyref": pretty, "event_payload": payload, "repository": {"private": is_private, "internal": false},
        })
    })
}

/// `GET /repos/{owner}/{repo}/actions/runs/{run}/jobs`: also those that have ended.
pub async fn jobs_of_run(
    State(shared): State<Shared>,
    Path((owner, name, run)): Path<(String, String, i64)>,
) -> Response {
    with_job(&shared, &owner, &name, run, |job| json!([described(job)]))
}

/// `GET /{scope}/actions/runners/jobs`: what waits or runs; `null` if there is none.
fn jobs(world: &World, scope: &str) -> Response {
    let open = |status: &str| matches!(status, "waiting" | "running");
    let jobs = world.jobs.iter().filter(|job| open(job.status) && world.is_of(job, scope));
    let jobs: Vec<Value> = jobs.map(described).collect();
    told(StatusCode::OK, &if jobs.is_empty() { Value::Null } else { json!(jobs) })
}

#[derive(Deserialize)]
pub struct Page {
    limit: Option<usize>,
    page: Option<usize>,
}

/// `GET /{scope}/actions/runners`: a bare list.
fn list(world: &World, scope: &str, page: &Page) -> Response {
    let (limit, page) = (page.limit.unwrap_or(30).min(50), page.page.unwrap_or(1).max(1));
    let rows: Vec<&Row> = world.runners.iter().filter(|row| row.scope == scope || scope == "admin").collect();
    let shown = rows.iter().skip((page - 1) * limit).take(limit).map(|row| {
        let Runner { id, uuid, name, labels, ephemeral, .. } = &row.runner;
        json!({"id": id, "uuid": uuid, "name": name, "labels": labels, "ephemeral": ephemeral, "status": "idle"})
    });
    let shown = Value::Array(shown.collect());
    ([("x-total-count", rows.len().to_string())], told(StatusCode::OK, &shown)).into_response()
}

/// `POST /{scope}/actions/runners`.
fn register(world: &mut World, scope: &str, body: &Bytes) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(name) = body["name"].as_str().filter(|name| !name.is_empty()) else {
        return refused(StatusCode::UNPROCESSABLE_ENTITY, "[Name]: Required");
    };
    let (Runner { id, uuid, .. }, token) = world.register(scope, name.to_owned(), body["ephemeral"] == true);
    told(StatusCode::CREATED, &json!({"id": id, "uuid": uuid, "token": token}))
}

fn delete(world: &mut World, scope: &str, id: &str) -> Response {
    let count = world.runners.len();
    world.runners.retain(|row| row.runner.id.to_string() != id || (row.scope != scope && scope != "admin"));
    if world.runners.len() < count {
        StatusCode::NO_CONTENT.into_response()
    } else {
        refused(StatusCode::NOT_FOUND, "runner not found")
    }
}

/// Everything below `/{scope}/actions/runners`, whose scope has one to three parts.
pub async fn runners(State(shared): State<Shared>, Query(page): Query<Page>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches("/api/v1/").to_owned();
    let Some((scope, rest)) = path.split_once("/actions/runners") else {
        return no_target();
    };
    let method = request.method().as_str().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    let mut world = shared.world();
    if !world.knows(scope) {
        return no_target();
    }
    match (method.as_str(), rest) {
        ("GET", "/registration-token") => told(StatusCode::OK, &json!({"token": REGISTRATION_TOKEN})),
        (_, "/registration-token") => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ if world.is_old => no_target(),
        ("GET", "/jobs") => jobs(&world, scope),
        ("GET", "") => list(&world, scope, &page),
        ("POST", "") => register(&mut world, scope, &body),
        ("DELETE", rest) => delete(&mut world, scope, rest.trim_start_matches('/')),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}
