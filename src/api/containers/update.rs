//! Update.

use axum::extract::State;
use serde::Serialize;

use crate::{
    api::{ApiState, answer::Json, body::JsonBody, compat::ApiVersion, extract::Path},
    model::{Result, container::HostConfig, id::Tenant},
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
    tenant: Tenant,
    version: ApiVersion,
    Path(container): Path,
    body: JsonBody<HostConfig>,
) -> Result<Json<UpdatedBody>> {
    let mut wanted = body.value;
    version.adjust_limits(&mut wanted);
    let mut warnings = api.engine.container_update(&tenant, &container, wanted).await?;
    warnings.extend(body.unknown.iter().map(|field| format!("ringer does not know the field {field}: it is ignored")));
    Ok(Json(UpdatedBody { warnings: Some(warnings).filter(|warnings| !warnings.is_empty()) }))
}
