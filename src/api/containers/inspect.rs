//! `GET /containers/{id}/json`.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::network_settings::network_settings;
use crate::{
    api::{ApiState, answer::Json, compat::ApiVersion, extract::Path, query::Query},
    engine::{
        containers::view::{ContainerFiles, ContainerView},
        tenants::Scope,
    },
    model::{
        Result,
        container::{ContainerRecord, ContainerState, Ended, MountKind, MountPoint},
        time::Timestamp,
    },
};

/// Query of inspect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct InspectQuery {
    size: bool,
}

/// `GET /containers/{id}/json`
pub async fn container_inspect(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    Query(query): Query<InspectQuery>,
) -> Result<Response> {
    let view = api.engine.container_inspect(&scope, &container, query.size).await?;
    Ok(Json(render(&view, version)).into_response())
}

fn render(view: &ContainerView, version: ApiVersion) -> Value {
    let record = &*view.record;
    let ContainerFiles { resolv_conf, hostname, hosts, log } = &view.files;
    let (path, args) = record.command.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    let exec_ids = if view.exec_ids.is_empty() { Value::Null } else { json!(view.exec_ids) };
    let mut body = json!({
        "Id": record.id,
        "Created": record.created,
        "Path": path,
        "Args": args,
        "State": state(record),
        "Image": record.image_id,
        "ResolvConfPath": resolv_conf,
        "HostnamePath": hostname,
        "HostsPath": hosts,
        "LogPath": log,
        "Name": format!("/{}", record.name),
        "RestartCount": record.restart_count,
        "Driver": view.snapshotter,
        "Platform": record.platform.os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids,
        "HostConfig": host_config(record, &view.links, version),
    });
    let fields = body.as_object_mut().expect("it was just made as an object");
    if version.has_graph_driver() {
        fields.insert("GraphDriver".into(), json!({"Data": Value::Null, "Name": view.snapshotter}));
    } else {
        let snapshot = json!({"Name": view.snapshotter});
        fields.insert("Storage".into(), json!({"RootFS": {"Snapshot": snapshot}}));
    }
    if let Some(size) = view.size {
        fields.insert("SizeRw".into(), json!(size.writable));
        fields.insert("SizeRootFs".into(), json!(size.whole));
    }
    fields.insert("Mounts".into(), mounts(&record.mounts));
    fields.insert("Config".into(), config(record, version));
    fields.insert("NetworkSettings".into(), network_settings(record, version));
    if version.has_manifest_descriptors() {
        fields.insert("ImageManifestDescriptor".into(), json!(record.image_manifest));
    }
    body
}

fn state(record: &ContainerRecord) -> Value {
    let state = &record.state;
    let never = Ended::default();
    let ended = state.ended().unwrap_or(&never);
    let live = state.live();
    let finished_at = live.map_or(ended.finished_at, |live| live.last_finished_at);
    let mut body = json!({
        "Status": state.as_str(),
        "Running": state.counts_as_running(),
        "Paused": matches!(state, ContainerState::Paused(_)),
        "Restarting": matches!(state, ContainerState::Restarting(_)),
        "OOMKilled": ended.oom_killed,
        "Dead": matches!(state, ContainerState::Dead(_)),
        "Pid": live.map_or(0, |live| live.pid),
        "ExitCode": ended.exit_code,
        "Error": ended.error,
        "StartedAt": live.map_or(ended.started_at, |live| live.started_at),
        "FinishedAt": finished_at,
    });
    if let Some(health) = &record.health {
        body.as_object_mut().expect("it was just made as an object").insert("Health".into(), json!(health));
    }
    body
}

fn host_config(record: &ContainerRecord, links: &[String], version: ApiVersion) -> Value {
    let mut body = json!(record.host_config);
    let fields = body.as_object_mut().expect("a struct is an object");
    if !links.is_empty() {
        fields.insert("Links".to_owned(), json!(links));
    }
    if version.has_kernel_memory() {
        fields.entry("KernelMemory").or_insert(json!(0));
        fields.entry("KernelMemoryTCP").or_insert(json!(0));
    }
    body
}

fn config(record: &ContainerRecord, version: ApiVersion) -> Value {
    let mut body = json!(record.config);
    let fields = body.as_object_mut().expect("a struct is an object");
    fields.remove("MacAddress");
    if version.has_config_mac_address()
        && let Some(address) = wished_mac_address(record)
    {
        fields.insert("MacAddress".into(), json!(address));
    }
    if version.hides_empty_on_build() && fields.get("OnBuild").is_some_and(Value::is_null) {
        fields.remove("OnBuild");
    }
    body
}

/// The hardware address that was asked for, of the container or of its endpoint in the main network, which comes first.
fn wished_mac_address(record: &ContainerRecord) -> Option<&str> {
    let main = record.networking.attachments.first().map(|attachment| attachment.settings.mac_address.as_str());
    [Some(record.config.mac_address.as_str()), main].into_iter().flatten().find(|address| !address.is_empty())
}

/// `Mounts` of inspect and list.
pub(super) fn mounts(mounts: &[MountPoint]) -> Value {
    mounts.iter().filter(|mount| !mount.hidden).map(mount).collect()
}

fn mount(mount: &MountPoint) -> Value {
    let (kind, name) = match mount.kind {
        MountKind::Bind => ("bind", ""),
        MountKind::Volume => ("volume", mount.name.as_str()),
        MountKind::Tmpfs => ("tmpfs", ""),
        MountKind::Image => ("image", mount.name.as_str()),
    };
    let mut body = Map::new();
    body.insert("Type".into(), json!(kind));
    if !name.is_empty() {
        body.insert("Name".into(), json!(name));
    }
    body.insert("Source".into(), json!(mount.source));
    body.insert("Destination".into(), json!(mount.destination));
    if !mount.driver.is_empty() {
        body.insert("Driver".into(), json!(mount.driver));
    }
    body.insert("Mode".into(), json!(mount.mode));
    body.insert("RW".into(), json!(mount.rw));
    body.insert("Propagation".into(), json!(mount.propagation));
    Value::Object(body)
}

/// How long ago, in the words of `docker ps`.
pub(super) fn ago(since: Timestamp) -> String {
    let seconds = since.elapsed().as_secs();
    let (minutes, hours) = (seconds / 60, (since.elapsed().as_secs_f64() / 3600.0).round() as u64);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// `Status` of the list: `Up 2 seconds (healthy)`, `Exited (0) 5 minutes ago`.
pub(super) fn status(record: &ContainerRecord) -> String {
    match &record.state {
        ContainerState::Paused(live) => format!("Up {} (Paused)", ago(live.started_at)),
        ContainerState::Running(live) => match &record.health {
            Some(health) => {
                let health = match health.status.as_str() {
                    "starting" => "health: starting",
                    other => other,
                };
                format!("Up {} ({health})", ago(live.started_at))
            }
            None => format!("Up {}", ago(live.started_at)),
        },
        ContainerState::Restarting(ended) => {
            format!("Restarting ({}) {} ago", ended.exit_code, ago(ended.finished_at))
        }
        ContainerState::Removing(_) => "Removal In Progress".to_owned(),
        ContainerState::Dead(_) => "Dead".to_owned(),
        ContainerState::Created(_) => "Created".to_owned(),
        ContainerState::Exited(ended) => format!("Exited ({}) {} ago", ended.exit_code, ago(ended.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_in_docker_ps() {
        let back = |seconds: i64| ago(Timestamp::from_unix(Timestamp::now().unix() - seconds, 0));
        assert_eq!(back(5), "5 seconds");
        assert_eq!(back(90), "About a minute");
        assert_eq!(back(3 * 3600), "3 hours");
        assert_eq!(back(50 * 3600), "2 days");
    }
}
