//! Handlers for networks.

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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
        networks::{NetworkMember, NetworkView},
        tenants::Scope,
    },
    model::{
        Error,
        id::NetworkId,
        network::{EndpointSettings, NetworkCreateRequest, NetworkRecord, null_is_default},
    },
};

/// What create answers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreatedBody {
    id: NetworkId,
    warning: String,
}

/// `POST /networks/create`
pub async fn network_create(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    body: JsonBody<NetworkCreateRequest>,
) -> Result<Response, Error> {
    let mut body = body.required()?;
    version.adjust_network_create(&mut body.value);
    let made = api.engine.network_create(&scope, body.value).await?;
    let mut warnings: Vec<String> = Some(made.warning).into_iter().filter(|warning| !warning.is_empty()).collect();
    if !body.unknown.is_empty() {
        warnings.push(format!("fields that ringer does not carry out: {}", body.unknown.join(", ")));
    }
    Ok(created(CreatedBody { id: made.id, warning: warnings.join("; ") }))
}

/// `GET /networks/{id}`
pub async fn network_inspect(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(network): Path,
    Query(query): Query<InspectQuery>,
) -> Result<Json<Value>, Error> {
    if !matches!(query.scope.as_str(), "" | "local") {
        return Err(Error::no_such_network(&network));
    }
    let view = api.engine.network_inspect(&scope, &network).await?;
    Ok(Json(network_body(&view, version)))
}

/// The query of inspect.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct InspectQuery {
    scope: String,
}

/// `GET /networks`
pub async fn network_list(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<FiltersQuery>,
) -> Result<Json<Vec<Value>>, Error> {
    let records = api.engine.network_list(&scope, &query.filters).await?;
    // The list names no containers, as dockerd's since 1.28.
    let bodies =
        records.into_iter().map(|record| network_body(&NetworkView { record, containers: Vec::new() }, version));
    Ok(Json(bodies.collect()))
}

/// The body of connect.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConnectBody {
    #[serde(deserialize_with = "null_is_default")]
    container: String,
    endpoint_config: Option<EndpointSettings>,
}

/// `POST /networks/{id}/connect`
pub async fn network_connect(
    State(api): State<ApiState>,
    scope: Scope,
    Path(network): Path,
    body: JsonBody<ConnectBody>,
) -> Result<StatusCode, Error> {
    let body = body.required()?.value;
    let settings = body.endpoint_config.unwrap_or_default();
    api.engine.network_connect(&scope, &network, &body.container, settings).await?;
    Ok(StatusCode::OK)
}

/// The body of disconnect.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DisconnectBody {
    #[serde(deserialize_with = "null_is_default")]
    container: String,
    #[serde(deserialize_with = "null_is_default")]
    force: bool,
}

/// `POST /networks/{id}/disconnect`
pub async fn network_disconnect(
    State(api): State<ApiState>,
    scope: Scope,
    Path(network): Path,
    body: JsonBody<DisconnectBody>,
) -> Result<StatusCode, Error> {
    let body = body.required()?.value;
    api.engine.network_disconnect(&scope, &network, &body.container, body.force).await?;
    Ok(StatusCode::OK)
}

/// `DELETE /networks/{id}`
pub async fn network_delete(
    State(api): State<ApiState>,
    scope: Scope,
    Path(network): Path,
) -> Result<StatusCode, Error> {
    api.engine.network_delete(&scope, &network).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a prune answers; without networks it says `null`, as dockerd.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedBody {
    networks_deleted: Option<Vec<String>>,
}

/// `POST /networks/prune`
pub async fn network_prune(
    State(api): State<ApiState>,
    scope: Scope,
    Query(query): Query<FiltersQuery>,
) -> Result<Json<PrunedBody>, Error> {
    let networks = api.engine.network_prune(&scope, query.filters).await?;
    Ok(Json(PrunedBody { networks_deleted: Some(networks).filter(|networks| !networks.is_empty()) }))
}

/// A network as Docker writes it.
fn network_body(view: &NetworkView, version: ApiVersion) -> Value {
    let record = &*view.record;
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
    put("Name", json!(record.name));
    put("Id", json!(record.id));
    put("Created", json!(record.created));
    put("Scope", json!("local"));
    put("Driver", json!(record.driver_name()));
    if version.has_enable_ipv4() {
        put("EnableIPv4", json!(record.enable_ipv4));
    }
    put("EnableIPv6", json!(record.enable_ipv6));
    put("IPAM", ipam_body(record, version));
    put("Internal", json!(record.internal));
    put("Attachable", json!(record.attachable));
    put("Ingress", json!(false));
    put("ConfigFrom", json!(record.config_from));
    put("ConfigOnly", json!(record.config_only));
    put("Containers", members(&view.containers));
    put("Options", json!(record.options));
    put("Labels", json!(record.labels));
    Value::Object(body)
}

fn ipam_body(record: &NetworkRecord, version: ApiVersion) -> Value {
    let ipam = &record.ipam;
    let config = if ipam.config.is_empty() && version.has_enable_ipv4() { Value::Null } else { json!(ipam.config) };
    json!({"Driver": ipam.driver, "Options": ipam.options, "Config": config})
}

fn members(members: &[NetworkMember]) -> Value {
    let entries = members.iter().map(|member| {
        let endpoint = &member.endpoint;
        let body = json!({
            "Name": member.name,
            "EndpointID": endpoint.id,
            "MacAddress": endpoint.mac_text(),
            "IPv4Address": endpoint.ipv4.map(|net| net.to_string()).unwrap_or_default(),
            "IPv6Address": endpoint.ipv6.map(|net| net.to_string()).unwrap_or_default(),
        });
        (member.container.to_string(), body)
    });
    Value::Object(entries.collect())
}
