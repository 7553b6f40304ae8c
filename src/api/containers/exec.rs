//! Execs.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{
        ApiState,
        answer::{Json, created},
        body::JsonBody,
        compat::ApiVersion,
        containers::session::{refuse, serve},
        extract::Path,
        hijack::Hijack,
    },
    engine::{
        container::exec::{ExecRequest, ExecStart, ExecState},
        tenants::Scope,
    },
    model::{Result, container::StrSlice, network::null_is_default},
};

/// Body of `POST /containers/{id}/exec`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecBody {
    #[serde(deserialize_with = "null_is_default")]
    attach_stdin: bool,
    #[serde(deserialize_with = "null_is_default")]
    attach_stdout: bool,
    #[serde(deserialize_with = "null_is_default")]
    attach_stderr: bool,
    #[serde(deserialize_with = "null_is_default")]
    detach_keys: String,
    /// Of no use: the start says it again.
    #[serde(rename = "Detach", deserialize_with = "null_is_default")]
    _detach: bool,
    #[serde(deserialize_with = "null_is_default")]
    tty: bool,
    #[serde(deserialize_with = "null_is_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "StrSlice::deserialize")]
    cmd: Option<Vec<String>>,
    #[serde(deserialize_with = "null_is_default")]
    privileged: bool,
    #[serde(deserialize_with = "null_is_default")]
    user: String,
    #[serde(deserialize_with = "null_is_default")]
    working_dir: String,
    console_size: Option<[u32; 2]>,
}

/// `POST /containers/{id}/exec`
pub async fn container_exec(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    body: JsonBody<ExecBody>,
) -> Result<Response> {
    let body = body.required()?.value;
    let request = ExecRequest {
        command: body.cmd.unwrap_or_default(),
        env: body.env,
        working_dir: body.working_dir,
        user: body.user,
        tty: body.tty,
        privileged: body.privileged,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: body.detach_keys,
        console_size: size(body.console_size.filter(|_| version.reads_console_size())),
    };
    let id = api.engine.container_exec(&scope, &container, request).await?;
    Ok(created(json!({ "Id": id })))
}

fn size(given: Option<[u32; 2]>) -> Option<(u32, u32)> {
    given.map(|[height, width]| (height, width))
}

/// Body of `POST /exec/{id}/start`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StartBody {
    #[serde(deserialize_with = "null_is_default")]
    detach: bool,
    #[serde(deserialize_with = "null_is_default")]
    tty: bool,
    console_size: Option<[u32; 2]>,
}

/// `POST /exec/{id}/start`. An exec that cannot be started says so in the stream and by its exit code, since the
/// connection is taken over before; with `Detach` it is a plain error.
pub async fn exec_start(
    State(api): State<ApiState>,
    scope: Scope,
    Path(exec): Path,
    version: ApiVersion,
    hijack: Hijack,
    body: JsonBody<StartBody>,
) -> Result<Response> {
    let body = body.value;
    // Without a terminal there is no size.
    let console_size = body.console_size.filter(|_| body.tty && version.reads_console_size());
    let exec = api.engine.exec_startable(&scope, &exec).await?;
    let start = ExecStart { detach: body.detach, tty: body.tty, console_size: size(console_size) };
    if start.detach {
        api.engine.exec_start(&exec, start).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let gone = hijack.client_gone();
    Ok(hijack.answer(body.tty, move |mut connection| async move {
        match api.engine.exec_start(&exec, start).await {
            Ok(session) => {
                tokio::select! {
                    _end = serve(connection, session) => {}
                    () = gone.0.cancelled() => {}
                }
            }
            Err(error) => refuse(&mut connection, body.tty, error.message()).await,
        }
    }))
}

/// `GET /exec/{id}/json`
pub async fn exec_inspect(State(api): State<ApiState>, scope: Scope, Path(exec): Path) -> Result<Response> {
    let view = api.engine.exec_inspect(&scope, &exec)?;
    let request = &view.exec.request;
    let (program, arguments) = request.command.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    let (running, exit_code, pid) = match view.state {
        ExecState::Created | ExecState::Starting => (false, None, 0),
        ExecState::Running(pid) => (true, None, pid),
        ExecState::Exited(code) => (false, Some(code), 0),
    };
    let user = if request.user.is_empty() { &view.container.config.user } else { &request.user };
    let mut body = json!({
        "ID": view.exec.id,
        "Running": running,
        "ExitCode": exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": request.privileged,
        },
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": false,
        "ContainerID": view.exec.container,
        "DetachKeys": "",
        "Pid": pid,
    });
    if !user.is_empty() {
        body["ProcessConfig"]["user"] = json!(user);
    }
    Ok(Json(body).into_response())
}
