//! Prune.

use axum::extract::State;
use serde::Serialize;

use crate::{
    api::{
        ApiState,
        answer::Json,
        query::{FiltersQuery, Query},
    },
    engine::tenants::Scope,
    model::{Result, id::ContainerId},
};

/// What it answers; without containers it says `null`, as dockerd.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedBody {
    containers_deleted: Option<Vec<ContainerId>>,
    space_reclaimed: u64,
}

/// `POST /containers/prune`
pub async fn container_prune(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<FiltersQuery>,
) -> Result<Json<PrunedBody>> {
    let pruned = api.engine.container_prune(&scope, query.filters).await?;
    let containers_deleted = Some(pruned.containers).filter(|containers| !containers.is_empty());
    Ok(Json(PrunedBody { containers_deleted, space_reclaimed: pruned.reclaimed }))
}
