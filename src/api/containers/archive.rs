//! A container's files: `docker cp`, and how runners bring scripts in and results out.

use std::io;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use crate::{
    api::{
        ApiState,
        extract::{ClientGone, Path},
        query::Query,
        stream,
    },
    engine::{
        containers::archive::{PutOptions, Upload},
        tenants::Scope,
    },
    model::{Error, Result},
    rootfs::PathStat,
};

const PATH_STAT: &str = "x-docker-container-path-stat";

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
    scope: Scope,
    Path(container): Path,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response> {
    let stat = api.engine.container_archive_info(&scope, &container, query.path()?).await?;
    Ok(with_stat(StatusCode::OK.into_response(), &stat))
}

/// `GET /containers/{id}/archive`
pub async fn container_archive(
    State(api): State<ApiState>,
    scope: Scope,
    gone: ClientGone,
    Path(container): Path,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response> {
    let (stat, archive) = api.engine.container_archive(&scope, &container, query.path()?).await?;
    Ok(with_stat(stream::bytes(HeaderValue::from_static("application/x-tar"), gone, archive), &stat))
}

/// `PUT /containers/{id}/archive`
pub async fn put_container_archive(
    State(api): State<ApiState>,
    scope: Scope,
    ClientGone(gone): ClientGone,
    Path(container): Path,
    Query(query): Query<ArchiveQuery>,
    body: Body,
) -> Result<StatusCode> {
    let options = PutOptions { keep_kinds: query.keep_kinds, owned_by_user: query.owned_by_user };
    let aborted = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
    let body = Box::pin(body.into_data_stream().map(move |chunk| chunk.map_err(aborted)));
    api.engine.put_container_archive(&scope, &container, query.path()?, options, Upload { body, gone }).await?;
    Ok(StatusCode::OK)
}

fn with_stat(mut response: Response, stat: &PathStat) -> Response {
    let json = serde_json::to_vec(stat).expect("strings and numbers are always JSON");
    let value = HeaderValue::try_from(STANDARD.encode(json)).expect("base64 fits into a header");
    response.headers_mut().insert(PATH_STAT, value);
    response
}
