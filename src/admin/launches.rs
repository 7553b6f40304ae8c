//! `/launches`, `/forges` and `/drain`: what the supervisor does.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::{fs::File, io::AsyncReadExt};

use super::{
    AdminState,
    body::{ForgeAnswer, LaunchAnswer, PurgeAnswer, ReachAnswer},
};
use crate::{
    edge::{answer::Json, extract::Path},
    model::{Error, Result},
    supervisor::{RunnerLog, Supervisor},
};

/// Of a log, what is read at once.
const PIECE: usize = 64 << 10;

/// Between two looks at a log that has not grown.
const PAUSE: Duration = Duration::from_millis(200);

impl AdminState {
    fn supervisor(&self) -> Result<&Supervisor> {
        let none = || Error::not_found("this daemon launches no runners: it was started by `serve`, not by `run`");
        self.supervisor.as_ref().ok_or_else(none)
    }
}

/// `GET /launches`.
pub(super) async fn list(State(state): State<AdminState>) -> Result<Json<Vec<LaunchAnswer>>> {
    Ok(Json(state.supervisor()?.launches().await.into_iter().map(LaunchAnswer::from).collect()))
}

/// `GET /forges`.
pub(super) async fn forges(State(state): State<AdminState>) -> Result<Json<Vec<ForgeAnswer>>> {
    Ok(Json(state.supervisor()?.forges().into_iter().map(ForgeAnswer::from).collect()))
}

/// `POST /forges/{name}/reach`.
pub(super) async fn reach(State(state): State<AdminState>, Path(forge): Path) -> Result<Json<Vec<ReachAnswer>>> {
    Ok(Json(state.supervisor()?.reach(&forge).await?.into_iter().map(ReachAnswer::from).collect()))
}

/// `POST /drain`.
pub(super) async fn drain(State(state): State<AdminState>) -> Result<StatusCode> {
    state.supervisor()?.drain();
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /uncordon`.
pub(super) async fn uncordon(State(state): State<AdminState>) -> Result<StatusCode> {
    state.supervisor()?.uncordon();
    Ok(StatusCode::NO_CONTENT)
}

/// Query of `POST /purge`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PurgeQuery {
    forge: Option<String>,
}

/// `POST /purge`.
pub(super) async fn purge(
    State(state): State<AdminState>,
    query: Result<Query<PurgeQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<PurgeAnswer>> {
    let Query(PurgeQuery { forge }) = query.map_err(|error| Error::invalid(error.body_text()))?;
    Ok(Json(state.supervisor()?.purge(forge).await?.into()))
}

/// Query of `GET /launches/{id}/log`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogQuery {
    follow: bool,
}

/// `GET /launches/{id}/log`.
pub(super) async fn log(
    State(state): State<AdminState>,
    Path(launch): Path,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response> {
    let Query(LogQuery { follow }) = query.map_err(|error| Error::invalid(error.body_text()))?;
    let reader = Reader { log: state.supervisor()?.log_of(&launch)?, file: None, follow };
    let pieces = stream::try_unfold(reader, |mut reader| async move {
        Ok::<_, std::io::Error>(reader.next().await?.map(|piece| (piece, reader)))
    });
    let mut answer = Body::from_stream(pieces).into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(answer)
}

struct Reader {
    log: RunnerLog,
    file: Option<File>,
    follow: bool,
}

impl Reader {
    /// The next piece; `None` at the end. What is followed ends with its runner.
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            // Asked before the file is read: what it says last must not be missed.
            let goes_on = self.follow && self.log.goes_on();
            if self.file.is_none() {
                self.file = match File::open(self.log.path()).await {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                    other => Some(other?),
                };
            }
            if let Some(file) = &mut self.file {
                let mut piece = vec![0; PIECE];
                let length = file.read(&mut piece).await?;
                if length > 0 {
                    piece.truncate(length);
                    return Ok(Some(piece.into()));
                }
            }
            if !goes_on {
                return Ok(None);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
