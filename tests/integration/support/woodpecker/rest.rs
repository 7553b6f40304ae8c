//! The API of the stand-in for people and their programs, as far as the supervisor asks it.

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
    NARROW_TOKEN, Shared, TOKEN,
    world::{Agent, Workflow},
};

fn told(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Refusals are texts.
fn refused(status: StatusCode, words: &'static str) -> Response {
    (status, words).into_response()
}

/// Faults that a test has asked for come before everything, and what is asked is written down.
pub async fn watch(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let fault = shared.world().calls.ask(request.method(), &path);
    match fault {
        // As a proxy in front of it would.
        Some(StatusCode::OK) => (StatusCode::OK, "<html>not what was asked for</html>").into_response(),
        Some(status) => (status, "as a test has asked").into_response(),
        None => next.run(request).await,
    }
}

fn token_of(headers: &HeaderMap) -> &str {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.strip_prefix("Bearer ").unwrap_or_default()
}

/// `session.MustUser`.
pub async fn authorize(headers: HeaderMap, request: Request, next: Next) -> Response {
    match token_of(&headers) {
        TOKEN | NARROW_TOKEN => next.run(request).await,
        _ => refused(StatusCode::UNAUTHORIZED, "User not authorized"),
    }
}

/// `session.MustAdmin`.
pub async fn is_administrator(headers: HeaderMap, request: Request, next: Next) -> Response {
    match token_of(&headers) {
        TOKEN => next.run(request).await,
        _ => refused(StatusCode::FORBIDDEN, "User not authorized"),
    }
}

pub async fn version() -> Response {
    told(&json!({"source": "https://github.com/woodpecker-ci/woodpecker", "version": "3.17.0"}))
}

pub async fn user(headers: HeaderMap) -> Response {
    let is_admin = token_of(&headers) == TOKEN;
    told(&json!({"id": 1, "login": if is_admin { "ci" } else { "guest" }, "admin": is_admin}))
}

/// `GET /queue/info`.
pub async fn queue(State(shared): State<Shared>) -> Response {
    let world = shared.world();
    let described = |workflow: &Workflow| {
        json!({
            "id": workflow.id.to_string(), "pid": 1, "name": workflow.name, "labels": workflow.labels, "dependencies": null,
            "agent_id": workflow.agent, "pipeline_id": workflow.pipeline(), "pipeline_number": workflow.pipeline(), "repo_id": 1,
        })
    };
    let open = || world.workflows.iter().filter(|workflow| !workflow.has_ended());
    let pending: Vec<Value> = open().filter(|workflow| !workflow.is_held()).map(described).collect();
    let running: Vec<Value> = open().filter(|workflow| workflow.is_held()).map(described).collect();
    told(&json!({"pending": pending, "waiting_on_deps": [], "running": running, "paused": false}))
}

/// `GET /repos/:repo/pipelines/:number`.
pub async fn pipeline(State(shared): State<Shared>, Path((repo, number)): Path<(i64, i64)>) -> Response {
    let world = shared.world();
    match world.workflows.iter().find(|workflow| repo == 1 && workflow.pipeline() == number) {
        Some(workflow) => {
            let shown = json!([{"id": workflow.id, "name": workflow.name, "state": workflow.state, "agent_id": workflow.agent}]);
            told(&json!({"number": number, "workflows": shown}))
        }
        None => refused(StatusCode::NOT_FOUND, "Not Found"),
    }
}

fn described(agent: &Agent) -> Value {
    json!({"id": agent.id, "name": agent.name, "token": agent.token, "no_schedule": agent.no_schedule, "org_id": -1})
}

#[derive(Deserialize)]
pub struct Page {
    page: Option<usize>,
    #[serde(rename = "perPage")]
    per_page: Option<usize>,
}

/// `GET /agents`.
pub async fn agents(State(shared): State<Shared>, Query(page): Query<Page>) -> Response {
    let (page, size) = (page.page.unwrap_or(1).max(1), page.per_page.unwrap_or(50).min(50));
    let world = shared.world();
    let shown: Vec<Value> = world.agents.iter().skip((page - 1) * size).take(size).map(described).collect();
    told(&Value::Array(shown))
}

/// `POST /agents`.
pub async fn make_agent(State(shared): State<Shared>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut world = shared.world();
    let id = world.next();
    let agent = Agent {
        id,
        name: body["name"].as_str().unwrap_or_default().to_owned(),
        token: format!("TOKEN-OF-AGENT-{id:06}"),
        no_schedule: body["no_schedule"] == true,
    };
    world.agents.push(agent.clone());
    told(&described(&agent))
}

/// `PATCH /agents/:id`: what is not sent is emptied.
pub async fn patch_agent(State(shared): State<Shared>, Path(id): Path<i64>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut world = shared.world();
    let Some(agent) = world.agents.iter_mut().find(|agent| agent.id == id) else {
        return refused(StatusCode::NOT_FOUND, "Not Found");
    };
    agent.name = body["name"].as_str().unwrap_or_default().to_owned();
    agent.no_schedule = body["no_schedule"] == true;
    told(&described(agent))
}

/// `DELETE /agents/:id`.
pub async fn delete_agent(State(shared): State<Shared>, Path(id): Path<i64>) -> Response {
    let mut world = shared.world();
    if world.workflows.iter().any(|workflow| workflow.is_held() && workflow.agent == id) {
        return refused(StatusCode::CONFLICT, "Agent has running tasks");
    }
    let count = world.agents.len();
    world.agents.retain(|agent| agent.id != id);
    if world.agents.len() < count {
        StatusCode::NO_CONTENT.into_response()
    } else {
        refused(StatusCode::NOT_FOUND, "Not Found")
    }
}
