//! `POST /containers/create`.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{
        ApiState,
        answer::created,
        body::{RawBody, unknown_to_both},
        compat::ApiVersion,
        query::Query,
    },
    engine::tenants::Scope,
    model::{
        Error, Result,
        container::{Config, ContainerCreateRequest, HostConfig, NetworkingConfig},
        image::Platform,
        network::null_is_default,
    },
};

/// Query of create.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateQuery {
    name: String,
    platform: String,
}

/// What stands beside `Config` in the body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Beside {
    #[serde(deserialize_with = "null_is_default")]
    host_config: HostConfig,
    #[serde(deserialize_with = "null_is_default")]
    networking_config: NetworkingConfig,
}

/// `POST /containers/create`
pub async fn container_create(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<CreateQuery>,
    body: RawBody,
) -> Result<Response> {
    let body = body.required()?;
    let (config, unknown_config) = body.parse::<Config>()?;
    if config == Config::default() {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    }
    let (beside, unknown_beside) = body.parse::<Beside>()?;
    let unknown = unknown_to_both(unknown_config, unknown_beside);
    let platform = Some(query.platform).filter(|platform| !platform.is_empty() && version.reads_create_platform());
    let mut request = ContainerCreateRequest {
        name: Some(query.name).filter(|name| !name.is_empty()),
        platform: platform.map(|platform| platform.parse::<Platform>()).transpose()?,
        config,
        host_config: beside.host_config,
        networking: beside.networking_config,
        warnings: unknown
            .into_iter()
            .map(|field| format!("ringer does not know the field {field}: it is ignored"))
            .collect(),
    };
    version.adjust_create(&mut request)?;
    let made = api.engine.container_create(&scope, request).await?;
    Ok(created(json!({ "Id": made.id, "Warnings": made.warnings })))
}
