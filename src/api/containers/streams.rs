//! Logs and attach.

use axum::{extract::State, response::Response};
use serde::Deserialize;

use crate::{
    api::{
        ApiState,
        compat::ApiVersion,
        containers::session::{SessionEnd, serve},
        extract::{ClientGone, Path},
        hijack::Hijack,
        query::Query,
        stream::{bytes, output_content_type},
        websocket::WebSocket,
    },
    engine::{containers::attach::AttachOptions, tenants::Scope},
    logs::ReadOptions,
    model::{Result, time::Timestamp},
};

/// Query of logs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogsQuery {
    follow: bool,
    stdout: bool,
    stderr: bool,
    since: String,
    until: String,
    timestamps: bool,
    tail: String,
    details: bool,
}

impl LogsQuery {
    fn options(&self) -> Result<ReadOptions> {
        // "0" is no limit for both, as with dockerd.
        let time = |text: &str| match text {
            "" | "0" => Ok(None),
            text => Timestamp::parse_query(text).map(Some),
        };
        Ok(ReadOptions {
            stdout: self.stdout,
            stderr: self.stderr,
            follow: self.follow,
            since: time(&self.since)?,
            until: time(&self.until)?,
            // What is no number is "all".
            tail: self.tail.parse().ok(),
            timestamps: self.timestamps,
            details: self.details,
            framed: true,
        })
    }
}

/// `GET /containers/{id}/logs`
pub async fn container_logs(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    gone: ClientGone,
    Path(container): Path,
    Query(query): Query<LogsQuery>,
) -> Result<Response> {
    let (stream, tty) = api.engine.container_logs(&scope, &container, query.options()?)?;
    Ok(bytes(output_content_type(version, tty), gone, stream))
}

/// Query of attach.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachQuery {
    detach_keys: String,
    logs: bool,
    stream: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// `POST /containers/{id}/attach`
pub async fn container_attach(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
    Query(query): Query<AttachQuery>,
    hijack: Hijack,
) -> Result<Response> {
    let options = AttachOptions {
        stdin: query.stdin,
        stdout: query.stdout,
        stderr: query.stderr,
        logs: query.logs,
        stream: query.stream,
        raw: false,
        detach_keys: query.detach_keys,
    };
    let session = match api.engine.container_attach(&scope, &container, &options).await {
        Ok(session) => session,
        Err(error) => return Ok(hijack.refuse(error)),
    };
    let gone = hijack.client_gone();
    Ok(hijack.answer(session.tty, move |connection| async move {
        let end = tokio::select! {
            end = serve(connection, session) => end,
            () = gone.0.cancelled() => SessionEnd::Over,
        };
        if end == SessionEnd::Detached {
            api.engine.container_detached(&scope, &container);
        }
    }))
}

/// `GET /containers/{id}/attach/ws`
pub async fn container_attach_websocket(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    Query(query): Query<AttachQuery>,
    websocket: WebSocket,
) -> Result<Response> {
    let all = !version.chooses_websocket_streams();
    let options = AttachOptions {
        stdin: query.stdin || all,
        stdout: query.stdout || all,
        stderr: query.stderr || all,
        logs: query.logs,
        stream: query.stream,
        raw: true,
        detach_keys: query.detach_keys,
    };
    let session = api.engine.container_attach(&scope, &container, &options).await?;
    Ok(websocket.answer(move |messages| async move {
        if serve(messages, session).await == SessionEnd::Detached {
            api.engine.container_detached(&scope, &container);
        }
    }))
}
