//! Update.

use axum::extract::State;
use serde::Serialize;

use crate::{
    api::{ApiState, answer::Json, body::JsonBody, compat::ApiVersion, extract::Path},
    engine::tenants::Scope,
    model::{Result, container::HostConfig},
};

/// The answer; without warnings it says `null`, as dockerd.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdatedBody {
    warnings: Option<Vec<String>>,
}

/// `POST /containers/{id}/update`
pub async fn container_update(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    body: JsonBody<HostConfig>,
) -> Result<Json<UpdatedBody>> {
    let mut wanted = body.value;
    version.adjust_limits(&mut wanted);
    let mut warnings = api.engine.container_update(&scope, &container, wanted).await?;
    warnings.extend(body.unknown.iter().map(|field| format!("ringer does not know the field {field}: it is ignored")));
    Ok(Json(UpdatedBody { warnings: Some(warnings).filter(|warnings| !warnings.is_empty()) }))
}
