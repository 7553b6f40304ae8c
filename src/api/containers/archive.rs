//! A container's files: `docker cp`, and how runners bring scripts in and results out.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use crate::{
    api::{
        ApiState,
        extract::{ClientGone, Path},
        query::Query,
        stream,
    },
    engine::containers::archive::PutOptions,
    model::{Error, Result, id::Tenant},
    rootfs::PathStat,
};

const PATH_STAT: &str = "x-docker-container-path-stat";
/// How much of an archive is still taken after the answer is known, and how long.
const MAX_REST: usize = 64 << 20;
const MAX_REST_TIME: Duration = Duration::from_secs(5);

/// Query of archive.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ArchiveQuery {
    path: String,
    #[serde(rename = "noOverwriteDirNonDir")]
    keep_kinds: bool,
    #[serde(rename = "copyUIDGID")]
    owned_by_user: bool,
}

impl ArchiveQuery {
    fn path(&self) -> Result<&str> {
        match self.path.as_str() {
            // dockerd's words, without the blank as well.
            "" => Err(Error::invalid("bad parameter: pathcannot be empty")),
            path => Ok(path),
        }
    }
}

/// `HEAD /containers/{id}/archive`
pub async fn container_archive_info(
    State(api): State<ApiState>,
    tenant: Tenant,
    Path(container): Path,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response> {
    let stat = api.engine.container_archive_info(&tenant, &container, query.path()?).await?;
    Ok(with_stat(StatusCode::OK.into_response(), &stat))
}

/// `GET /containers/{id}/archive`
pub async fn container_archive(
    State(api): State<ApiState>,
    tenant: Tenant,
    gone: ClientGone,
    Path(container): Path,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response> {
    let (stat, archive) = api.engine.container_archive(&tenant, &container, query.path()?).await?;
    Ok(with_stat(stream::bytes(HeaderValue::from_static("application/x-tar"), gone, archive), &stat))
}

/// `PUT /containers/{id}/archive`
pub async fn put_container_archive(
    State(api): State<ApiState>,
    tenant: Tenant,
    Path(container): Path,
    Query(query): Query<ArchiveQuery>,
    body: Body,
) -> Result<StatusCode> {
    let options = PutOptions { keep_kinds: query.keep_kinds, owned_by_user: query.owned_by_user };
    let body = SharedBody(Arc::new(Mutex::new(body.into_data_stream())));
    let put = match query.path() {
        Ok(path) => {
            let body = Box::pin(body.clone());
            api.engine.put_container_archive(&tenant, &container, path, options, body).await
        }
        Err(error) => Err(error),
    };
    body.drain().await;
    put.map(|()| StatusCode::OK)
}

/// A body of which the rest can be taken after the engine has let go of it.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<BodyDataStream>>);

impl Stream for SharedBody {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let aborted = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
        body.poll_next_unpin(context).map(|chunk| chunk.map(|chunk| chunk.map_err(aborted)))
    }
}

impl SharedBody {
    /// Reads what the client still sends, within limits: docker CLI reads the answer only when its whole archive
    /// has gone out, and takes a closed connection for the error.
    async fn drain(mut self) {
        let rest = async {
            let mut left = MAX_REST;
            while let Some(Ok(chunk)) = self.next().await {
                left = left.saturating_sub(chunk.len());
                if left == 0 {
                    break;
                }
            }
        };
        // A client that sends nothing more has to live with it.
        let _in_time = tokio::time::timeout(MAX_REST_TIME, rest).await;
    }
}

fn with_stat(mut response: Response, stat: &PathStat) -> Response {
    let json = serde_json::to_vec(stat).expect("strings and numbers are always JSON");
    let value = HeaderValue::try_from(STANDARD.encode(json)).expect("base64 fits into a header");
    response.headers_mut().insert(PATH_STAT, value);
    response
}
