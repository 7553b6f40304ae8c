//! Handlers for volumes.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use http::StatusCode;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{
    ApiState,
    answer::{Json, created},
    body::JsonBody,
    compat::ApiVersion,
    extract::Path,
    query::{FiltersQuery, Query},
};
use crate::{
    engine::{
        tenants::Scope,
        volumes::{LOCAL, VolumeInfo},
    },
    model::{Error, time::Timestamp, volume::VolumeRequest},
};

/// A volume as Docker writes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeBody {
    created_at: Timestamp,
    driver: &'static str,
    labels: Option<BTreeMap<String, String>>,
    mountpoint: String,
    name: String,
    options: Option<BTreeMap<String, String>>,
    scope: &'static str,
}

impl From<VolumeInfo> for VolumeBody {
    fn from(info: VolumeInfo) -> Self {
        let volume = info.volume;
        Self {
            // Whole seconds, as dockerd writes it.
            created_at: Timestamp::from_unix(volume.created.unix(), 0),
            driver: LOCAL,
            labels: volume.labels.as_ref().map(sorted),
            mountpoint: info.mountpoint.to_string_lossy().into_owned(),
            name: volume.name.clone(),
            options: volume.options.as_ref().map(sorted),
            scope: "local",
        }
    }
}

/// Go writes maps by key.
fn sorted(map: &IndexMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The answer of the list.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeListBody {
    volumes: Vec<VolumeBody>,
    warnings: Option<Vec<String>>,
}

/// `POST /volumes/create`
pub async fn volume_create(
    State(api): State<ApiState>,
    scope: Scope,
    body: JsonBody<VolumeRequest>,
) -> Result<Response, Error> {
    if body.unknown.iter().any(|key| key.starts_with("ClusterVolumeSpec")) {
        return Err(Error::not_implemented("ClusterVolumeSpec is not implemented by ringer"));
    }
    Ok(created(VolumeBody::from(api.engine.volume_create(&scope, body.value).await?)))
}

/// `GET /volumes/{name}`
pub async fn volume_inspect(
    State(api): State<ApiState>,
    scope: Scope,
    Path(name): Path,
) -> Result<Json<VolumeBody>, Error> {
    Ok(Json(api.engine.volume_inspect(&scope, &name).await?.into()))
}

/// `GET /volumes`
pub async fn volume_list(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<FiltersQuery>,
) -> Result<Json<VolumeListBody>, Error> {
    let volumes = api.engine.volume_list(&scope, &query.filters).await?;
    Ok(Json(VolumeListBody { volumes: volumes.into_iter().map(VolumeBody::from).collect(), warnings: None }))
}

/// Query of delete.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct DeleteQuery {
    force: bool,
}

/// `DELETE /volumes/{name}`
pub async fn volume_delete(
    State(api): State<ApiState>,
    scope: Scope,
    Path(name): Path,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, Error> {
    api.engine.volume_delete(&scope, &name, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a prune answers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedBody {
    volumes_deleted: Vec<String>,
    space_reclaimed: u64,
}

/// `POST /volumes/prune`
pub async fn volume_prune(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(mut query): Query<FiltersQuery>,
) -> Result<Json<PrunedBody>, Error> {
    version.adjust_volume_prune(&mut query.filters);
    let pruned = api.engine.volume_prune(&scope, query.filters).await?;
    Ok(Json(PrunedBody { volumes_deleted: pruned.volumes, space_reclaimed: pruned.reclaimed }))
}
