//! `GET /containers/json`.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    inspect::{mounts, status},
    network_settings::listed_networks,
};
use crate::{
    api::{ApiState, answer::Json, compat::ApiVersion, query::Query},
    engine::{
        containers::{list::ListOptions, view::ContainerSize},
        tenants::Scope,
    },
    model::{Result, container::ContainerRecord, filters::Filters, network::Port},
};

/// Query of list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ListQuery {
    all: bool,
    limit: Option<i64>,
    size: bool,
    filters: Filters,
    /// Older ways to say `filters`.
    since: String,
    before: String,
}

/// `GET /containers/json`
pub async fn container_list(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let mut filters = query.filters;
    for (name, value) in [("since", query.since), ("before", query.before)] {
        if !value.is_empty() {
            filters.add(name, value);
        }
    }
    let limit = query.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let options = ListOptions { all: query.all, limit, filters };
    let mut containers = Vec::new();
    let links = api.engine.link_names(&scope);
    for container in api.engine.container_list(&scope, &options)? {
        let record = container.record();
        let size = if query.size { Some(api.engine.container_size(&record).await?) } else { None };
        let mut body = summary(&record, size, version);
        let names = links.iter().filter(|(target, _)| *target == record.name).map(|(_, name)| json!(name));
        body["Names"].as_array_mut().expect("it was just made as a list").extend(names);
        containers.push(body);
    }
    Ok(Json(containers).into_response())
}

/// A container as lists show it.
pub fn summary(record: &ContainerRecord, size: Option<ContainerSize>, version: ApiVersion) -> Value {
    let mut body = json!({
        "Id": record.id,
        "Names": [format!("/{}", record.name)],
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Command": command_line(&record.command),
        "Created": record.created.unix(),
        "Ports": ports(record),
    });
    let fields = body.as_object_mut().expect("it was just made as an object");
    if let Some(size) = size {
        fields.insert("SizeRw".into(), json!(size.writable));
        fields.insert("SizeRootFs".into(), json!(size.whole));
    }
    fields.insert("Labels".into(), json!(record.config.labels.clone().unwrap_or_default()));
    fields.insert("State".into(), json!(record.state.as_str()));
    fields.insert("Status".into(), json!(status(record)));
    let mut host_config = Map::new();
    host_config.insert("NetworkMode".into(), json!(record.host_config.network_mode));
    if let Some(annotations) = record.host_config.annotations.as_ref().filter(|_| version.lists_annotations()) {
        host_config.insert("Annotations".into(), json!(annotations));
    }
    fields.insert("HostConfig".into(), Value::Object(host_config));
    fields.insert("NetworkSettings".into(), json!({"Networks": listed_networks(record, version)}));
    fields.insert("Mounts".into(), mounts(&record.mounts));
    if version.lists_health() {
        let health = record.health.as_ref();
        let status = health.map_or("none", |health| health.status.as_str());
        let streak = health.map_or(0, |health| health.failing_streak);
        fields.insert("Health".into(), json!({"Status": status, "FailingStreak": streak}));
    }
    if version.has_manifest_descriptors() {
        fields.insert("ImageManifestDescriptor".into(), json!(record.image_manifest));
    }
    body
}

/// The command as dockerd shortens it: words with blanks are quoted.
fn command_line(command: &[String]) -> String {
    let Some((program, arguments)) = command.split_first() else { return String::new() };
    let quote = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    let arguments: Vec<String> = arguments.iter().map(quote).collect();
    if arguments.is_empty() { program.clone() } else { format!("{program} {}", arguments.join(" ")) }
}

/// Published ports with where, exposed ones without; only while it runs.
fn ports(record: &ContainerRecord) -> Vec<Value> {
    if !record.state.is_running() {
        return Vec::new();
    }
    let mut ports: Vec<Value> = Vec::new();
    let exposed = record.config.exposed_ports.iter().flatten().filter_map(|(port, _)| port.parse::<Port>().ok());
    for port in exposed {
        if !record.networking.published.iter().any(|published| published.port == port) {
            ports.push(json!({"PrivatePort": port.number, "Type": port.protocol.as_str()}));
        }
    }
    let published = record.networking.published.iter().map(|published| {
        json!({
            "IP": published.host_ip,
            "PrivatePort": published.port.number,
            "PublicPort": published.host_port,
            "Type": published.port.protocol.as_str(),
        })
    });
    ports.extend(published);
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_blanks_are_quoted() {
        let words = ["sh", "-c", "echo hi"].map(str::to_owned);
        assert_eq!(command_line(&words), "sh -c 'echo hi'");
    }
}
