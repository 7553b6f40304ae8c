//! What a container changed, and all its files: `docker diff` and `docker export`.

use axum::{extract::State, response::Response};
use http::HeaderValue;
use serde::Serialize;

use crate::{
    api::{
        ApiState,
        answer::Json,
        extract::{ClientGone, Path},
        stream,
    },
    engine::tenants::Scope,
    model::{
        Result,
        container::{Change, ChangeKind},
    },
};

/// One path that changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChangeBody {
    path: String,
    kind: u8,
}

impl From<Change> for ChangeBody {
    fn from(change: Change) -> Self {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        Self { path: change.path, kind }
    }
}

/// `GET /containers/{id}/changes`; `null` where nothing changed.
pub async fn container_changes(
    State(api): State<ApiState>,
    scope: Scope,
    Path(container): Path,
) -> Result<Json<Option<Vec<ChangeBody>>>> {
    let changes = api.engine.container_changes(&scope, &container).await?;
    let changes: Vec<ChangeBody> = changes.into_iter().map(ChangeBody::from).collect();
    Ok(Json((!changes.is_empty()).then_some(changes)))
}

/// `GET /containers/{id}/export`
pub async fn container_export(
    State(api): State<ApiState>,
    scope: Scope,
    gone: ClientGone,
    Path(container): Path,
) -> Result<Response> {
    let tar = api.engine.container_export(&scope, &container).await?;
    Ok(stream::bytes(HeaderValue::from_static("application/octet-stream"), gone, tar))
}
