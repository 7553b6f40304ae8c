//! Handlers for images and `POST /auth`.

mod body;
pub mod commit;
pub mod transfer;

use std::pin::Pin;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

pub use self::body::SummaryBody;
use self::body::{DeletedBody, HistoryBody, InspectBody};
use super::{
    ApiState,
    answer::Json,
    body::{JsonBody, go_error},
    compat::ApiVersion,
    extract::{ClientGone, Path},
    query::Query,
    stream::{self, JsonStream},
};
use crate::{
    engine::{
        images::{DeleteOptions, ImportRequest, ListOptions, LoadOptions, PullRequest, progress::Message},
        tenants::Scope,
    },
    model::{Error, filters::Filters, image::Platform, registry_auth::RegistryAuth},
};

/// What `GET /images/json` may be asked.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ListQuery {
    filters: Filters,
    all: bool,
    #[serde(rename = "shared-size")]
    shared_size: bool,
    manifests: bool,
    /// Before 1.25 the reference filter was a parameter of its own.
    filter: String,
}

/// `GET /images/json`. `digests` is what the CLI asks for; they are in every answer.
pub async fn image_list(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<SummaryBody>>, Error> {
    let filters = match query.filter.as_str() {
        "" => query.filters,
        reference => Filters::parse(&serde_json::json!({ "reference": [reference] }).to_string())?,
    };
    let options = ListOptions { filters, all: query.all, manifests: query.manifests, shared_size: query.shared_size };
    let images = api.engine.image_list(&scope, &options).await?;
    Ok(Json(images.into_iter().map(|image| SummaryBody::new(image, version)).collect()))
}

/// Which platform's image, or all manifests.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct InspectQuery {
    platform: String,
    manifests: bool,
}

/// `GET /images/{name}/json`
pub async fn image_inspect(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(name): Path,
    Query(query): Query<InspectQuery>,
) -> Result<Json<InspectBody>, Error> {
    let platform = json_platform(&query.platform)?;
    if platform.is_some() && query.manifests {
        return Err(Error::invalid("conflicting options: manifests and platform options cannot both be set"));
    }
    let image = api.engine.image_inspect(&scope, &name, platform.as_ref(), query.manifests).await?;
    Ok(Json(InspectBody::new(image, version)))
}

/// `GET /images/{name}/history`
pub async fn image_history(
    State(api): State<ApiState>,
    scope: Scope,
    Path(name): Path,
    Query(query): Query<InspectQuery>,
) -> Result<Json<Vec<HistoryBody>>, Error> {
    let platform = json_platform(&query.platform)?;
    let lines = api.engine.image_history(&scope, &name, platform.as_ref()).await?;
    Ok(Json(lines.into_iter().map(HistoryBody::from).collect()))
}

/// The further name.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct TagQuery {
    repo: String,
    tag: String,
}

/// `POST /images/{name}/tag`
pub async fn image_tag(
    State(api): State<ApiState>,
    scope: Scope,
    Path(name): Path,
    Query(query): Query<TagQuery>,
) -> Result<StatusCode, Error> {
    api.engine.image_tag(&scope, &name, &query.repo, &query.tag).await?;
    Ok(StatusCode::CREATED)
}

/// How to delete.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct DeleteQuery {
    force: bool,
    /// Parents without names stay.
    noprune: bool,
    /// Each a platform as JSON: only that part of an image is meant.
    platforms: Vec<String>,
}

/// `DELETE /images/{name}`
pub async fn image_delete(
    State(api): State<ApiState>,
    scope: Scope,
    Path(name): Path,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Vec<DeletedBody>>, Error> {
    if !query.platforms.is_empty() {
        return Err(Error::not_implemented("deleting single platforms of an image is not implemented by ringer"));
    }
    let options = DeleteOptions { force: query.force, keep_parents: query.noprune };
    let deleted = api.engine.image_delete(&scope, &name, options).await?;
    Ok(Json(deleted.into_iter().map(DeletedBody::from).collect()))
}

/// What to pull or import.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct CreateQuery {
    #[serde(rename = "fromImage")]
    from_image: String,
    #[serde(rename = "fromSrc")]
    from_source: String,
    repo: String,
    tag: String,
    message: String,
    changes: Vec<String>,
    platform: String,
}

/// `POST /images/create`: pull or import.
pub async fn image_create(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<CreateQuery>,
    messages: JsonStream,
    request: Request<Body>,
) -> Result<Response, Error> {
    let platform = match query.platform.as_str() {
        "" => None,
        text => Some(text.parse::<Platform>()?),
    };
    if !query.from_image.is_empty() {
        let auth = registry_auth(request.headers());
        let pull = PullRequest { image: query.from_image, tag: query.tag, platform, auth };
        return Ok(messages.progress(api.engine.image_pull(&scope, &pull).await?));
    }
    if query.from_source.is_empty() {
        return Err(Error::invalid("neither fromImage nor fromSrc is given"));
    }
    if query.from_source != "-" {
        return Err(Error::not_implemented(
            "importing from a URL is not implemented by ringer: send the tar as the body",
        ));
    }
    let import = ImportRequest {
        repository: query.repo,
        tag: query.tag,
        changes: query.changes,
        message: query.message,
        platform,
    };
    let id = api.engine.image_import(&scope, &import, reader(request.into_body()).await).await?;
    let done = futures_util::stream::iter([Ok(Message::status(id.to_string()))]);
    Ok(messages.progress(done))
}

/// How to load.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct LoadQuery {
    quiet: bool,
    platform: Vec<String>,
}

/// `POST /images/load`
pub async fn image_load(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<LoadQuery>,
    messages: JsonStream,
    request: Request<Body>,
) -> Result<Response, Error> {
    let options = LoadOptions { quiet: query.quiet, platforms: json_platforms(&query.platform, version)? };
    let loading = api.engine.image_load(&scope, reader(request.into_body()).await, options)?;
    Ok(messages.progress(loading))
}

/// What to save.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct GetQuery {
    names: Vec<String>,
    platform: Vec<String>,
}

/// `GET /images/{name}/get`
pub async fn image_get(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(name): Path,
    Query(query): Query<GetQuery>,
    gone: ClientGone,
) -> Result<Response, Error> {
    let platforms = json_platforms(&query.platform, version)?;
    archive(&api, &scope, &[name], &platforms, gone).await
}

/// `GET /images/get?names=…`
pub async fn image_get_all(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<GetQuery>,
    gone: ClientGone,
) -> Result<Response, Error> {
    let platforms = json_platforms(&query.platform, version)?;
    archive(&api, &scope, &query.names, &platforms, gone).await
}

async fn archive(
    api: &ApiState,
    scope: &Scope,
    names: &[String],
    platforms: &[Platform],
    gone: ClientGone,
) -> Result<Response, Error> {
    let tar = api.engine.image_get(scope, names, platforms).await?;
    let chunks = ReaderStream::with_capacity(tar, 256 << 10);
    let chunks = chunks.map_err(|error| Error::system("making the archive").with_source(error));
    Ok(stream::bytes(HeaderValue::from_static("application/x-tar"), gone, chunks))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LoginBody {
    identity_token: String,
    status: &'static str,
}

/// `POST /auth`
pub async fn system_auth(
    State(api): State<ApiState>,
    scope: Scope,
    body: JsonBody<RegistryAuth>,
) -> Result<Response, Error> {
    let credentials = body.required()?.value.with_auth_decoded();
    let login = api.engine.auth(&scope, &credentials).await?;
    Ok(Json(LoginBody { identity_token: login.identity_token, status: login.status }).into_response())
}

/// `X-Registry-Auth`; none if it cannot be read.
fn registry_auth(headers: &HeaderMap) -> RegistryAuth {
    let value = headers.get("x-registry-auth").and_then(|value| value.to_str().ok()).unwrap_or_default();
    RegistryAuth::from_header(value)
}

/// `{"os":"linux","architecture":"arm64"}`; nothing if empty.
fn json_platform(text: &str) -> Result<Option<Platform>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let platform: Platform = serde_json::from_str(text).map_err(|error| {
        let told = go_error::syntax(&error, text.as_bytes());
        let told = told.message().trim_start_matches("invalid JSON: ");
        Error::invalid(format!("failed to parse platform: {told}")).with_source(error)
    })?;
    if platform.os.is_empty() && platform.architecture.is_empty() {
        return Err(Error::invalid("both OS and Architecture must be provided"));
    }
    // forgejo-runner splits `linux/arm64/v8` in two, so that the architecture holds the variant, too.
    match platform.architecture.split_once('/') {
        Some((architecture, variant)) => Ok(Some(Platform {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..platform.clone()
        })),
        None => Ok(Some(platform)),
    }
}

/// Several since API 1.52.
fn json_platforms(platforms: &[String], version: ApiVersion) -> Result<Vec<Platform>, Error> {
    if platforms.len() > 1 && !version.has_several_platforms() {
        return Err(Error::invalid("multiple platform parameters not supported"));
    }
    Ok(platforms.iter().map(|text| json_platform(text)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The body as it comes, never held whole. Its beginning is awaited: a client that asked whether it may send
/// (`Expect: 100-continue`, as curl does) is told so when the body is read, but not once the answer has begun.
pub(super) async fn begun(body: Body) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    let mut chunks = body.into_data_stream();
    let first = chunks.next().await;
    futures_util::stream::iter(first).chain(chunks)
}

/// The same for one who reads bytes.
pub(super) async fn reader(body: Body) -> Pin<Box<dyn AsyncRead + Send>> {
    Box::pin(StreamReader::new(begun(body).await.map_err(std::io::Error::other)))
}
