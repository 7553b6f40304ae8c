//! The runners' side of the stand-in: the Connect protocol, as protobuf and (as far as the supervisor speaks it) as JSON.

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use serde_json::json;

use super::{
    REGISTRATION_TOKEN, Shared,
    messages::{
        DeclareRequest, DeclareResponse, FetchSingleTaskRequest, FetchSingleTaskResponse, FetchTaskRequest,
        FetchTaskResponse, LogRow, Ping, RESULTS, RUNS, Runner, Task, TaskState, UpdateLogRequest, UpdateLogResponse,
        UpdateTaskRequest, UpdateTaskResponse,
    },
    world::{Job, World},
};

const PROTO: &str = "application/proto";
const JSON: &str = "application/json";

/// Version of the tasks: it is only looked for a task if the runner's differs, and a `one-job` sends 0.
const TASKS_VERSION: i64 = 1;

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], json!({"code": code, "message": message}).to_string()).into_response()
}

fn said(message: &impl Message) -> Response {
    ([(header::CONTENT_TYPE, PROTO)], message.encode_to_vec()).into_response()
}

fn answered<M: Message + Default>(body: &Bytes, answer: impl FnOnce(M) -> Response) -> Response {
    match M::decode(body.clone()) {
        Ok(asked) => answer(asked),
        Err(error) => refused(StatusCode::BAD_REQUEST, "invalid_argument", &error.to_string()),
    }
}

/// `POST /api/actions/ping.v1.PingService/Ping`.
pub async fn ping(headers: HeaderMap, body: Bytes) -> Response {
    if headers.get("content-type").is_some_and(|value| value == JSON) {
        return told(&json!({"data": "Hello!"}));
    }
    answered(&body, |asked: Ping| said(&Ping { data: format!("Hello, {}!", asked.data) }))
}

/// `POST /api/actions/runner.v1.RunnerService/…`.
pub async fn call(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = match header("content-type") {
        PROTO => false,
        JSON => true,
        _ => return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response(),
    };
    let mut world = shared.world();
    if (method.as_str(), is_json) == ("Register", true) {
        return register(&mut world, &body);
    }
    let uuid = header("x-runner-uuid").to_owned();
    if world.row(&uuid, header("x-runner-token")).is_none() {
        return refused(StatusCode::UNAUTHORIZED, "unauthenticated", "unregistered runner");
    }
    match (method.as_str(), is_json) {
        ("Declare", false) => answered(&body, |asked| declare(&mut world, &uuid, asked)),
        ("FetchTask", false) => answered(&body, |_: FetchTaskRequest| fetch_any(&mut world, &uuid, &shared.url)),
        ("FetchSingleTask", false) if !world.is_old => {
            answered(&body, |asked| fetch(&mut world, &uuid, &asked, &shared.url))
        }
        ("UpdateTask", false) => answered(&body, |asked| update_task(&mut world, &uuid, &asked)),
        ("UpdateLog", false) => answered(&body, |asked| update_log(&mut world, &uuid, &asked)),
        ("UpdateTask", true) => update_task_of_json(&mut world, &uuid, &body),
        ("UpdateLog", true) => update_log_of_json(&mut world, &uuid, &body),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn declare(world: &mut World, uuid: &str, asked: DeclareRequest) -> Response {
    let row = world.runners.iter_mut().find(|row| row.runner.uuid == uuid).expect("it was there");
    row.runner.labels = asked.labels;
    row.runner.version = asked.version;
    said(&DeclareResponse { runner: Some(row.runner.clone()) })
}

fn fetch(world: &mut World, uuid: &str, asked: &FetchSingleTaskRequest, url: &str) -> Response {
    let task = world.assign(uuid, asked).map(|job| task_of(world, &job, url));
    said(&FetchSingleTaskResponse { tasks_version: TASKS_VERSION, task })
}

fn fetch_any(world: &mut World, uuid: &str, url: &str) -> Response {
    let task = world.assign(uuid, &FetchSingleTaskRequest::default()).map(|job| task_of(world, &job, url));
    said(&FetchTaskResponse { task, tasks_version: TASKS_VERSION })
}

/// One that is too old does not know ephemeral runners, and says nothing of that.
fn register(world: &mut World, body: &Bytes) -> Response {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let refused = |message: &str| refused(StatusCode::BAD_REQUEST, "invalid_argument", message);
    match (text("token").as_str(), text("name").as_str()) {
        ("", _) | (_, "") => refused("missing runner token, name"),
        (REGISTRATION_TOKEN, _) => {
            let (is_ephemeral, name) = (!world.is_old && body["ephemeral"] == true, text("name"));
            let (Runner { id, uuid, .. }, token) = world.register("admin", name, is_ephemeral);
            told(&json!({"runner": {"id": id.to_string(), "uuid": uuid, "token": token, "ephemeral": is_ephemeral}}))
        }
        _ => refused("runner registration token not found"),
    }
}

/// A workflow of the one job, and the flat context.
fn task_of(world: &World, job: &Job, url: &str) -> Task {
    let mut described = json!({"name": job.name, "runs-on": job.runs_on, "steps": [{"run": job.script}]});
    if !job.container.is_null() {
        described["container"] = job.container.clone();
    }
    let workflow = json!({
        "name": "ci",
        "on": "push",
        "defaults": {"run": {"shell": "sh"}},
        "jobs": {&job.name: described},
    });
    let repository = &world.repositories[job.repository];
    let owner = repository.split_once('/').map_or("", |(owner, _)| owner);
    let task = job.task.expect("it was assigned");
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let mut fields: std::collections::BTreeMap<String, Value> = [
        ("actor", owner),
        ("api_url", &format!("{url}/api/v1")),
        ("event_name", "push"),
        ("job", &job.name),
        ("ref", "refs/heads/main"),
        ("ref_name", "main"),
        ("ref_type", "branch"),
        ("repository", repository),
        ("repository_owner", owner),
        ("run_attempt", "1"),
        ("run_id", &job.id.to_string()),
        ("run_number", "1"),
        ("server_url", url),
        ("sha", "0123456789012345678901234567890123456789"),
        ("token", "of-a-job"),
        ("workflow", "ci.yml"),
        ("forgejo_default_actions_url", url),
        ("forgejo_runtime_token", "of-a-job"),
    ]
    .map(|(name, value)| (name.to_owned(), text(value)))
    .into();
    fields.insert("event".to_owned(), Value { kind: Some(Kind::StructValue(Struct::default())) });
    Task {
        id: task,
        workflow_payload: workflow.to_string().into_bytes(),
        context: Some(Struct { fields }),
        secrets: ["GITHUB_TOKEN", "GITEA_TOKEN", "FORGEJO_TOKEN"]
            .map(|name| (name.to_owned(), "of-a-job".into()))
            .into(),
    }
}

fn not_its_task() -> Response {
    refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "invalid runner for task")
}

fn update_task(world: &mut World, uuid: &str, asked: &UpdateTaskRequest) -> Response {
    let state = asked.state.clone().unwrap_or_default();
    let Ok(state) = world.update_task(uuid, &state) else { return not_its_task() };
    said(&UpdateTaskResponse { state: Some(state), sent_outputs: asked.outputs.keys().cloned().collect() })
}

fn update_log(world: &mut World, uuid: &str, asked: &UpdateLogRequest) -> Response {
    let Ok(ack_index) = world.update_log(uuid, asked) else { return not_its_task() };
    said(&UpdateLogResponse { ack_index })
}

/// Numbers of 64 bits are strings.
fn number(value: &serde_json::Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).or(value.as_i64()).unwrap_or_default()
}

fn told(body: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

fn update_task_of_json(world: &mut World, uuid: &str, body: &Bytes) -> Response {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = body["state"]["result"].as_str().unwrap_or_default().to_lowercase();
    let result = RESULTS.iter().position(|result| word == format!("result_{result}")).unwrap_or_default();
    let state = TaskState { id: number(&body["state"]["id"]), result: i32::try_from(result).unwrap_or_default() };
    match world.update_task(uuid, &state) {
        Ok(TaskState { result: RUNS, .. }) => told(&json!({"state": {"id": state.id.to_string()}})),
        Ok(state) => {
            let word = usize::try_from(state.result).map_or("", |result| RESULTS[result]);
            let result = format!("RESULT_{}", word.to_uppercase());
            told(&json!({"state": {"id": state.id.to_string(), "result": result}}))
        }
        Err(_) => not_its_task(),
    }
}

fn update_log_of_json(world: &mut World, uuid: &str, body: &Bytes) -> Response {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let rows = body["rows"].as_array().into_iter().flatten();
    let content = |row: &serde_json::Value| row["content"].as_str().unwrap_or_default().to_owned();
    let asked = UpdateLogRequest {
        task_id: number(&body["taskId"]),
        index: number(&body["index"]),
        rows: rows.map(|row| LogRow { time: None, content: content(row) }).collect(),
        no_more: body["noMore"] == true,
    };
    match world.update_log(uuid, &asked) {
        // Zero is left out.
        Ok(0) => told(&json!({})),
        Ok(rows) => told(&json!({"ackIndex": rows.to_string()})),
        Err(_) => not_its_task(),
    }
}
