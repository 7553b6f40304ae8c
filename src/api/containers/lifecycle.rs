//! Start, stop and all else that changes a container and answers with nothing.

use std::num::IntErrorKind;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::{
    api::{ApiState, answer::Json, compat::ApiVersion, extract::Path, query::Query, stream},
    engine::{
        container::WaitOutcome,
        containers::{delete::DeleteOptions, stop::StopOptions, wait::WaitCondition},
        tenants::Scope,
    },
    model::{Error, Result},
};

/// Query of start.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StartQuery {
    checkpoint: String,
    checkpoint_dir: String,
}

/// `POST /containers/{id}/start`. Checkpoints are refused, as by a dockerd without `--experimental`.
pub async fn container_start(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
    Query(query): Query<StartQuery>,
    headers: HeaderMap,
) -> Result<StatusCode> {
    // Very old clients sent a HostConfig here; `null` and `{}` are what some libraries send for "nothing".
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length > Some(7) || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if !query.checkpoint.is_empty() || !query.checkpoint_dir.is_empty() {
        return Err(Error::invalid("checkpoint is only supported in experimental mode"));
    }
    api.engine.container_start(&scope, &container).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query of stop and restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StopQuery {
    signal: Option<String>,
    t: Option<i64>,
}

impl StopQuery {
    fn options(self, version: ApiVersion) -> StopOptions {
        StopOptions { signal: self.signal.filter(|_| version.reads_stop_signal()), timeout: self.t }
    }
}

/// `POST /containers/{id}/stop`
pub async fn container_stop(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    Query(query): Query<StopQuery>,
) -> Result<StatusCode> {
    api.engine.container_stop(&scope, &container, query.options(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/restart`
pub async fn container_restart(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    Query(query): Query<StopQuery>,
) -> Result<StatusCode> {
    api.engine.container_restart(&scope, &container, query.options(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query of kill.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct KillQuery {
    signal: Option<String>,
}

/// `POST /containers/{id}/kill`
pub async fn container_kill(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
    Query(query): Query<KillQuery>,
) -> Result<StatusCode> {
    api.engine.container_kill(&scope, &container, query.signal.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/pause`
pub async fn container_pause(State(api): State<ApiState>, scope: Scope, Path(container): Path) -> Result<StatusCode> {
    api.engine.container_pause(&scope, &container).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/unpause`
pub async fn container_unpause(State(api): State<ApiState>, scope: Scope, Path(container): Path) -> Result<StatusCode> {
    api.engine.container_unpause(&scope, &container).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query of rename.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RenameQuery {
    name: String,
}

/// `POST /containers/{id}/rename`
pub async fn container_rename(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
    Query(query): Query<RenameQuery>,
) -> Result<StatusCode> {
    api.engine.container_rename(&scope, &container, &query.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query of a terminal's size.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResizeQuery {
    h: String,
    w: String,
}

impl ResizeQuery {
    /// Width and height.
    fn size(&self) -> Result<(u32, u32)> {
        let number = |what: &str, text: &str| {
            let parsed = text.parse::<u32>();
            parsed.map_err(|error| {
                let reason = match error.kind() {
                    IntErrorKind::PosOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                Error::invalid(format!("invalid resize {what} {text:?}: {reason}"))
            })
        };
        let height = number("height", &self.h)?;
        Ok((number("width", &self.w)?, height))
    }
}

/// `POST /containers/{id}/resize`
pub async fn container_resize(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
    Query(size): Query<ResizeQuery>,
) -> Result<StatusCode> {
    let (width, height) = size.size()?;
    api.engine.container_resize(&scope, &container, width, height).await?;
    Ok(StatusCode::OK)
}

/// `POST /exec/{id}/resize`
pub async fn exec_resize(
    State(api): State<ApiState>,
    scope: Scope,
    Path(exec): Path,
    Query(size): Query<ResizeQuery>,
) -> Result<StatusCode> {
    let (width, height) = size.size()?;
    api.engine.exec_resize(&scope, &exec, width, height).await?;
    Ok(StatusCode::OK)
}

/// Query of delete.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeleteQuery {
    v: bool,
    force: bool,
    link: bool,
}

/// `DELETE /containers/{id}`
pub async fn container_delete(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode> {
    if query.link {
        api.engine.container_delete_link(&scope, &container).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let options = DeleteOptions { force: query.force, volumes: query.v };
    api.engine.container_delete(&scope, &container, options).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query of top.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TopQuery {
    ps_args: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TopAnswer {
    processes: Vec<Vec<String>>,
    titles: Vec<String>,
}

/// `GET /containers/{id}/top`
pub async fn container_top(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
    Query(query): Query<TopQuery>,
) -> Result<Response> {
    let top = api.engine.container_top(&scope, &container, &query.ps_args).await?;
    Ok(Json(TopAnswer { processes: top.processes, titles: top.titles }).into_response())
}

/// Query of wait.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct WaitQuery {
    condition: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WaitError>,
    status_code: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitError {
    message: String,
}

impl From<WaitOutcome> for WaitAnswer {
    fn from(outcome: WaitOutcome) -> Self {
        Self { error: outcome.error.map(|message| WaitError { message }), status_code: outcome.status_code }
    }
}

/// `POST /containers/{id}/wait`. The head goes out at once: docker CLI starts the container only when it has it.
pub async fn container_wait(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    Query(query): Query<WaitQuery>,
    gone: crate::api::extract::ClientGone,
) -> Result<Response> {
    let condition = match query.condition.as_str() {
        _ if !version.reads_wait_condition() => WaitCondition::NotRunning,
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(Error::invalid(format!("invalid condition: \"{other}\""))),
    };
    let outcome = api.engine.container_wait(&scope, &container, condition).await?;
    let body = futures_util::stream::once(async move {
        let mut line = serde_json::to_vec(&WaitAnswer::from(outcome.await)).expect("numbers and strings are JSON");
        line.push(b'\n');
        Ok(line.into())
    });
    Ok(stream::bytes(HeaderValue::from_static("application/json"), gone, body))
}
