//! The API of the stand-in for people and their programs, as far as the supervisor asks it.

use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    API_TOKEN, NARROW_TOKEN, PROJECT, RUNNER_TOKEN, Shared,
    world::{Job, RUNNER, World},
};

pub fn told(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

pub fn refused(status: StatusCode, message: &str) -> Response {
    told(status, &json!({"message": message}))
}

fn missing(what: &str) -> Response {
    refused(StatusCode::NOT_FOUND, &format!("404 {what} Not Found"))
}

/// Faults that a test has asked for come before everything, and what is asked is written down.
pub async fn watch(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let fault = shared.world().calls.ask(request.method(), &path);
    match fault {
        // It holds the token, as the true one does.
        Some(StatusCode::OK) if path.ends_with("/verify") => told(StatusCode::OK, &json!({"token": RUNNER_TOKEN})),
        // As a proxy in front of it would.
        Some(StatusCode::OK) => (StatusCode::OK, "<html>not what was asked for</html>").into_response(),
        Some(status) => refused(status, "as a test has asked"),
        None => next.run(request).await,
    }
}

/// `Authorization: Bearer` or `PRIVATE-TOKEN` (`lib/gitlab/auth/auth_finders.rb`).
pub async fn authorize(headers: HeaderMap, request: Request, next: Next) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bearer = text("authorization").strip_prefix("Bearer ").unwrap_or_default();
    match (bearer, text("private-token")) {
        (API_TOKEN, _) | (_, API_TOKEN) => next.run(request).await,
        (NARROW_TOKEN, _) => refused(StatusCode::FORBIDDEN, "403 Forbidden - No access granted"),
        _ => refused(StatusCode::UNAUTHORIZED, "401 Unauthorized"),
    }
}

/// `GET /version`.
pub async fn version(State(shared): State<Shared>) -> Response {
    told(StatusCode::OK, &json!({"version": shared.world().version, "revision": "0123456789a"}))
}

/// `GET /runners/:id`.
pub async fn runner(State(shared): State<Shared>, Path(id): Path<i64>) -> Response {
    if id != RUNNER {
        return missing("Runner");
    }
    let world = shared.world();
    let kind = world.runner_type;
    let projects = if kind == "project_type" { json!(all_projects(&world)) } else { json!([]) };
    let groups = if kind == "group_type" { json!([{"id": 3, "name": "acme"}]) } else { json!([]) };
    let described = json!({
        "id": RUNNER, "description": "made for ringer", "paused": world.paused, "run_untagged": world.run_untagged,
        "tag_list": world.tags, "runner_type": kind, "projects": projects, "groups": groups,
    });
    told(StatusCode::OK, &described)
}

fn project() -> Value {
    json!({"id": 1, "path_with_namespace": PROJECT})
}

fn all_projects(world: &World) -> Vec<Value> {
    let gone = world.gone.iter().map(|(id, path)| json!({"id": id, "path_with_namespace": path}));
    [project()].into_iter().chain(gone).collect()
}

/// `GET /projects`, `GET /groups/:id/projects`.
pub async fn projects(State(shared): State<Shared>) -> Response {
    told(StatusCode::OK, &json!(all_projects(&shared.world())))
}

fn described(job: &Job) -> Value {
    let started = (job.started > 0).then(|| format!("2026-11-28T00:00:00.{:06}Z", job.started));
    json!({
        "id": job.id, "name": job.name, "status": job.status, "tag_list": job.tags, "started_at": started,
        "web_url": format!("http://gitlab.example.org/{PROJECT}/-/jobs/{}", job.id), "commit": {"message": job.message},
    })
}

/// The same with who has it.
fn with_manager(job: &Job) -> Value {
    let mut shown = described(job);
    shown["runner"] = json!(job.manager.as_ref().map(|_| json!({"id": job.runner})));
    shown["runner_manager"] = json!(job.manager.as_ref().map(|system_id| json!({"system_id": system_id})));
    shown
}

fn per_page(query: &str) -> usize {
    query.split('&').find_map(|part| part.strip_prefix("per_page=")?.parse().ok()).unwrap_or(20)
}

/// `GET /projects/:id/jobs?scope[]=`: with the manager of each job.
pub async fn jobs(State(shared): State<Shared>, Path(id): Path<String>, request: Request) -> Response {
    if !is_the_project(&id) {
        return missing("Project");
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let is_asked = |job: &&Job| query.split('&').any(|part| part == format!("scope[]={}", job.status));
    let world = shared.world();
    let asked = world.jobs.iter().rev().filter(is_asked).take(per_page(&query));
    let jobs: Vec<Value> = asked.map(with_manager).collect();
    told(StatusCode::OK, &json!(jobs))
}

/// `GET /runners/:id/jobs?system_id=`: with the project of each job, and without its manager.
pub async fn jobs_of_runner(State(shared): State<Shared>, Path(id): Path<i64>, request: Request) -> Response {
    if id != RUNNER {
        return missing("Runner");
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let slot = query.split('&').find_map(|part| part.strip_prefix("system_id=")).map(ToOwned::to_owned);
    let is_its = |job: &&Job| job.runner == RUNNER && job.manager.is_some() && (slot.is_none() || job.manager == slot);
    let with_project = |job: &Job| {
        let mut shown = described(job);
        shown["project"] = project();
        shown
    };
    let world = shared.world();
    let its = world.jobs.iter().rev().filter(is_its).take(per_page(&query));
    let jobs: Vec<Value> = its.map(with_project).collect();
    told(StatusCode::OK, &json!(jobs))
}

/// By its number, or by its path, whose slash is escaped.
fn is_the_project(id: &str) -> bool {
    id == "1" || id == PROJECT
}

/// `GET /projects/:id/jobs/:job_id`.
pub async fn job(State(shared): State<Shared>, Path((id, job)): Path<(String, i64)>) -> Response {
    match shared.world().job(job).filter(|_| is_the_project(&id)) {
        Some(job) => told(StatusCode::OK, &with_manager(job)),
        None => missing("Job"),
    }
}

/// `POST /projects/:id/jobs/:job_id/cancel`.
pub async fn cancel(State(shared): State<Shared>, Path((id, job)): Path<(String, i64)>, request: Request) -> Response {
    let force = request.uri().query() == Some("force=true");
    let mut world = shared.world();
    world.cancel(job, force);
    match world.job(job).filter(|_| is_the_project(&id)) {
        Some(job) => told(StatusCode::CREATED, &with_manager(job)),
        None => missing("Job"),
    }
}
