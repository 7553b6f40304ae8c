//! Images and registries: push, search, what a registry says of a name; and prune.

use axum::{extract::State, response::Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::{body::DeletedBody, json_platform, registry_auth};
use crate::{
    api::{
        ApiState,
        answer::Json,
        extract::Path,
        query::{FiltersQuery, Query},
        stream::JsonStream,
    },
    engine::{
        images::{Inspected, PushRequest, SearchResult},
        tenants::Scope,
    },
    model::{
        Error, Result,
        filters::Filters,
        image::{Descriptor, Platform},
    },
};

/// What to push.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PushQuery {
    tag: String,
    platform: String,
}

/// `POST /images/{name}/push`. The body is what very old clients sent credentials in.
pub async fn image_push(
    State(api): State<ApiState>,
    scope: Scope,
    Path(image): Path,
    Query(query): Query<PushQuery>,
    headers: HeaderMap,
    messages: JsonStream,
) -> Result<Response> {
    let platform = json_platform(&query.platform)?;
    let request = PushRequest { image, tag: query.tag, platform, auth: registry_auth(&headers) };
    Ok(messages.progress(api.engine.image_push(&scope, request).await?))
}

/// What a registry has under a name.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DistributionBody {
    descriptor: Descriptor,
    platforms: Vec<PlatformBody>,
}

/// A platform with the fields in the order of this answer.
#[derive(Serialize)]
struct PlatformBody {
    architecture: String,
    os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    os_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
}

impl From<Platform> for PlatformBody {
    fn from(platform: Platform) -> Self {
        let Platform { os, architecture, variant, os_version } = platform;
        Self { architecture, os, os_version, variant }
    }
}

impl From<Inspected> for DistributionBody {
    fn from(inspected: Inspected) -> Self {
        let platforms = inspected.platforms.into_iter().map(PlatformBody::from).collect();
        Self { descriptor: inspected.target, platforms }
    }
}

/// `GET /distribution/{name}/json`
pub async fn distribution_inspect(
    State(api): State<ApiState>,
    scope: Scope,
    Path(name): Path,
    headers: HeaderMap,
) -> Result<Json<DistributionBody>> {
    let inspected = api.engine.distribution_inspect(&scope, &name, &registry_auth(&headers)).await?;
    Ok(Json(inspected.into()))
}

/// What to look for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SearchQuery {
    term: String,
    limit: String,
    filters: Filters,
}

/// `GET /images/search`
pub async fn image_search(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<SearchQuery>,
    headers: HeaderMap,
) -> Result<Json<Vec<SearchResult>>> {
    let limit = match query.limit.as_str() {
        "" => 0,
        text => text.parse().map_err(|_| {
            Error::invalid(format!("invalid limit specified: strconv.Atoi: parsing {text:?}: invalid syntax"))
        })?,
    };
    let auth = registry_auth(&headers);
    Ok(Json(api.engine.image_search(&scope, &query.term, limit, &query.filters, &auth).await?))
}

/// What went.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedBody {
    images_deleted: Option<Vec<DeletedBody>>,
    space_reclaimed: u64,
}

/// `POST /images/prune`
pub async fn image_prune(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<FiltersQuery>,
) -> Result<Json<PrunedBody>> {
    let pruned = api.engine.image_prune(&scope, &query.filters).await?;
    let deleted: Vec<DeletedBody> = pruned.deleted.into_iter().map(DeletedBody::from).collect();
    let images_deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(Json(PrunedBody { images_deleted, space_reclaimed: pruned.reclaimed }))
}
