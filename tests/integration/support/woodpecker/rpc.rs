//! The agents' side of the stand-in: gRPC's unary calls, one framed message each way, with the status in the trailers.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use http_body_util::{BodyExt, Full};
use prost::Message;

use super::{
    Shared,
    messages::{
        AuthRequest, AuthResponse, Given, LogRequest, NextRequest, NextResponse, OfWorkflow, RegisterAgentResponse,
        ReportHealthRequest, UpdateRequest, VersionResponse, WaitResponse, WorkflowState,
    },
    world::{Workflow, World},
};

/// Between two looks of a call that waits.
const LOOK: Duration = Duration::from_millis(100);

/// gRPC's code of a refusal, and its words.
struct Refused(u8, String);

const UNKNOWN: u8 = 2;
const PERMISSION_DENIED: u8 = 7;
const FAILED_PRECONDITION: u8 = 9;
const UNAUTHENTICATED: u8 = 16;

fn refused<T>(code: u8, words: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(code, words.into()))
}

fn answer(result: Result<Vec<u8>, Refused>) -> Response {
    let (message, status, words) = match result {
        Ok(message) => (Some(message), 0, String::new()),
        Err(Refused(code, words)) => (None, code, words),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    if let Ok(words) = HeaderValue::from_str(&words.replace('%', "%25")) {
        trailers.insert("grpc-message", words);
    }
    let body = message.map_or_else(Bytes::new, |message| {
        let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
        [&[0], length.as_slice(), &message].concat().into()
    });
    let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn read<M: Message + Default>(body: &Bytes) -> Result<M, Refused> {
    let message = body.get(5..).unwrap_or_default();
    M::decode(message).map_err(|error| Refused(UNKNOWN, error.to_string()))
}

/// `/proto.WoodpeckerAuth/Auth`: whose own token it is; the number that comes with it is ignored.
pub async fn auth(State(shared): State<Shared>, body: Bytes) -> Response {
    answer(read::<AuthRequest>(&body).and_then(|asked| match shared.world().agent(&asked.agent_token) {
        Some(agent) => {
            let access_token = agent.token.clone();
            Ok(AuthResponse { status: "ok".to_owned(), agent_id: agent.id, access_token }.encode_to_vec())
        }
        None => refused(UNKNOWN, "agent could not auth: individual agent not found by token"),
    }))
}

/// `/proto.Woodpecker/…`.
pub async fn call(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let agent = shared.world().agent(text("token")).map(|agent| agent.id);
    let Some(agent) = agent else {
        return answer(refused(UNAUTHENTICATED, "access token is invalid"));
    };
    let version = shared.world().version;
    let is_checked = matches!(method.as_str(), "Version" | "RegisterAgent" | "ReportHealth");
    if is_checked && text("proto-version") != version.to_string() {
        let words = format!(
            "agent gRPC proto version {} is incompatible with server proto version {version}",
            text("proto-version")
        );
        return answer(refused(FAILED_PRECONDITION, words));
    }
    answer(match method.as_str() {
        "Next" => next(&shared, agent, &body).await,
        "Wait" => wait(&shared, agent, &body).await,
        other => at_once(&mut shared.world(), agent, other, &body),
    })
}

fn at_once(world: &mut World, agent: i64, method: &str, body: &Bytes) -> Result<Vec<u8>, Refused> {
    match method {
        "Version" => {
            let server_version = "3.17.0".to_owned();
            Ok(VersionResponse { grpc_version: world.version, server_version }.encode_to_vec())
        }
        "RegisterAgent" => Ok(RegisterAgentResponse { agent_id: agent }.encode_to_vec()),
        "ReportHealth" if read::<ReportHealthRequest>(body)?.status != "I am alive!" => {
            refused(UNKNOWN, "Are you alive?")
        }
        "ReportHealth" | "UnregisterAgent" => Ok(Vec::new()),
        "Init" => {
            let asked: OfWorkflow = read(body)?;
            let workflow = held(world, agent, &asked.id)?;
            match asked.state.unwrap_or_default() {
                WorkflowState { started, canceled: false, .. } if started > 0 => {
                    (workflow.state, workflow.started) = ("running", true);
                    Ok(Vec::new())
                }
                _ => refused(UNKNOWN, "no agent reports this state of a workflow that begins"),
            }
        }
        "Extend" => {
            held(world, agent, &read::<OfWorkflow>(body)?.id)?.extend();
            Ok(Vec::new())
        }
        "Update" => {
            let asked: UpdateRequest = read(body)?;
            let (workflow, state) = (held(world, agent, &asked.id)?, asked.state.unwrap_or_default());
            if !workflow.owns(&state.step_uuid) {
                return refused(PERMISSION_DENIED, "step is of another pipeline");
            }
            workflow.has_failed |= state.exited && state.exit_code != 0 || !state.error.is_empty();
            workflow.errors.extend(Some(state.error).filter(|words| !words.is_empty()));
            Ok(Vec::new())
        }
        "Log" => log(world, agent, &read::<LogRequest>(body)?),
        "Done" => done(world, agent, &read(body)?),
        other => refused(12, format!("unknown method {other}")),
    }
}

/// The workflow, if the agent has it: `Next` has locked it.
fn held<'w>(world: &'w mut World, agent: i64, id: &str) -> Result<&'w mut Workflow, Refused> {
    let found = id.parse().ok().and_then(|id| world.workflow_mut(id));
    match found {
        Some(workflow) if workflow.agent == agent && !workflow.has_ended() => Ok(workflow),
        Some(_) => refused(PERMISSION_DENIED, "agent is not allowed to interact with this workflow"),
        None => refused(UNKNOWN, "workflow not found"),
    }
}

fn log(world: &mut World, agent: i64, asked: &LogRequest) -> Result<Vec<u8>, Refused> {
    for entry in &asked.entries {
        let workflow = world.workflows.iter_mut().find(|workflow| workflow.owns(&entry.step_uuid));
        let Some(workflow) = workflow.filter(|workflow| workflow.agent == agent) else {
            return refused(PERMISSION_DENIED, "agent is not allowed to log to this step");
        };
        workflow.log.push(String::from_utf8_lossy(&entry.data).into_owned());
    }
    Ok(Vec::new())
}

fn done(world: &mut World, agent: i64, asked: &OfWorkflow) -> Result<Vec<u8>, Refused> {
    let workflow = held(world, agent, &asked.id)?;
    let state = asked.state.clone().unwrap_or_default();
    if state.canceled && state.started == 0 {
        return refused(UNKNOWN, "a workflow that has not begun cannot be cancelled by its agent");
    }
    workflow.state = if state.canceled || workflow.is_cancelled {
        "killed"
    } else if workflow.has_failed || !state.error.is_empty() {
        "failure"
    } else {
        "success"
    };
    workflow.errors.extend(Some(state.error).filter(|words| !words.is_empty()));
    Ok(Vec::new())
}

/// Blocks until there is something; an agent that shall have nothing, or whose row is gone, is answered with nothing.
async fn next(shared: &Shared, agent: i64, body: &Bytes) -> Result<Vec<u8>, Refused> {
    let filter = read::<NextRequest>(body)?.filter.unwrap_or_default();
    loop {
        {
            let mut world = shared.world();
            if world.agents.iter().find(|row| row.id == agent).is_none_or(|row| row.no_schedule) {
                return Ok(NextResponse::default().encode_to_vec());
            }
            if let Some(workflow) = world.give(agent, &filter.labels) {
                let (id, payload) = (workflow.id.to_string(), workflow.payload().to_string().into_bytes());
                return Ok(NextResponse { workflow: Some(Given { id, timeout: 60, payload }) }.encode_to_vec());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Blocks until the workflow has ended or is cancelled.
async fn wait(shared: &Shared, agent: i64, body: &Bytes) -> Result<Vec<u8>, Refused> {
    let asked: OfWorkflow = read(body)?;
    loop {
        {
            let mut world = shared.world();
            let canceled = match held(&mut world, agent, &asked.id) {
                Ok(workflow) if !workflow.is_cancelled => None,
                Ok(_) => Some(true),
                Err(_) => Some(false),
            };
            if let Some(canceled) = canceled {
                return Ok(WaitResponse { canceled }.encode_to_vec());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
