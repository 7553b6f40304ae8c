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
    let request = request_of(&body.required()?, query, version)?;
    let made = api.engine.container_create(&scope, request).await?;
    Ok(created(json!({ "Id": made.id, "Warnings": made.warnings })))
}

/// What a body asks for, without a daemon. No version is the newest.
pub fn create_request(body: Vec<u8>, version: Option<&str>) -> Result<ContainerCreateRequest> {
    let unknown = |version: &str| Error::invalid(format!("no version of the API: {version}"));
    let version = match version {
        None => ApiVersion::NEWEST,
        Some(text) => text.parse::<ApiVersion>().ok().and_then(ApiVersion::spoken).ok_or_else(|| unknown(text))?,
    };
    request_of(&RawBody::of(body.into())?.required()?, CreateQuery::default(), version)
}

fn request_of(body: &RawBody, query: CreateQuery, version: ApiVersion) -> Result<ContainerCreateRequest> {
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
        ..ContainerCreateRequest::default()
    };
    version.adjust_create(&mut request)?;
    Ok(request)
}
