//! The one table of the Docker API: every call of the specification (version 1.53) and what carries it out.
//!
//! A line without `.to(…)` is known and answers 501. Handlers are named as the operationId in snake case.

use http::Method;

use super::{ApiState, build, buildkit, containers, images, networks, plugins, swarm, system, volumes};
use crate::edge::route::Route;

/// All routes, in the order in which they are tried.
#[rustfmt::skip]
pub fn routes() -> Vec<Route<ApiState>> {
    vec![
        // System
        post("/auth", "SystemAuth").to(images::system_auth),
        get("/info", "SystemInfo").to(system::system_info),
        get("/version", "SystemVersion").to(system::system_version),
        get("/_ping", "SystemPing").to(system::system_ping),
        head("/_ping", "SystemPingHead").to(system::system_ping_head),
        get("/events", "SystemEvents").to(system::system_events),
        get("/system/df", "SystemDataUsage").to(system::df::system_data_usage),

        // Container
        get("/containers/json", "ContainerList").to(containers::list::container_list),
        post("/containers/create", "ContainerCreate").to(containers::create::container_create),
        get("/containers/{id}/json", "ContainerInspect").to(containers::inspect::container_inspect),
        get("/containers/{id}/top", "ContainerTop").to(containers::lifecycle::container_top),
        get("/containers/{id}/logs", "ContainerLogs").to(containers::streams::container_logs),
        get("/containers/{id}/changes", "ContainerChanges").to(containers::export::container_changes),
        get("/containers/{id}/export", "ContainerExport").to(containers::export::container_export),
        get("/containers/{id}/stats", "ContainerStats").to(containers::stats::container_stats),
        post("/containers/{id}/resize", "ContainerResize").to(containers::lifecycle::container_resize),
        post("/containers/{id}/start", "ContainerStart").to(containers::lifecycle::container_start),
        post("/containers/{id}/stop", "ContainerStop").to(containers::lifecycle::container_stop),
        post("/containers/{id}/restart", "ContainerRestart").to(containers::lifecycle::container_restart),
        post("/containers/{id}/kill", "ContainerKill").to(containers::lifecycle::container_kill),
        post("/containers/{id}/update", "ContainerUpdate").to(containers::update::container_update),
        post("/containers/{id}/rename", "ContainerRename").to(containers::lifecycle::container_rename),
        post("/containers/{id}/pause", "ContainerPause").to(containers::lifecycle::container_pause),
        post("/containers/{id}/unpause", "ContainerUnpause").to(containers::lifecycle::container_unpause),
        post("/containers/{id}/attach", "ContainerAttach").to(containers::streams::container_attach),
        get("/containers/{id}/attach/ws", "ContainerAttachWebsocket").to(containers::streams::container_attach_websocket),
        post("/containers/{id}/wait", "ContainerWait").to(containers::lifecycle::container_wait),
        delete("/containers/{id}", "ContainerDelete").to(containers::lifecycle::container_delete),
        head("/containers/{id}/archive", "ContainerArchiveInfo").to(containers::archive::container_archive_info),
        get("/containers/{id}/archive", "ContainerArchive").to(containers::archive::container_archive),
        put("/containers/{id}/archive", "PutContainerArchive").to(containers::archive::put_container_archive),
        post("/containers/prune", "ContainerPrune").to(containers::prune::container_prune),

        // Exec
        post("/containers/{id}/exec", "ContainerExec").to(containers::exec::container_exec),
        post("/exec/{id}/start", "ExecStart").to(containers::exec::exec_start),
        post("/exec/{id}/resize", "ExecResize").to(containers::lifecycle::exec_resize),
        get("/exec/{id}/json", "ExecInspect").to(containers::exec::exec_inspect),

        // Image
        get("/images/json", "ImageList").to(images::image_list),
        post("/build", "ImageBuild").to(build::image_build),
        post("/build/prune", "BuildPrune").to(build::build_prune),
        post("/build/cancel", "BuildCancel").to(build::build_cancel),
        post("/images/create", "ImageCreate").to(images::image_create),
        get("/images/{name}/json", "ImageInspect").to(images::image_inspect),
        get("/images/{name}/history", "ImageHistory").to(images::image_history),
        post("/images/{name}/push", "ImagePush").to(images::transfer::image_push),
        post("/images/{name}/tag", "ImageTag").to(images::image_tag),
        delete("/images/{name}", "ImageDelete").to(images::image_delete),
        get("/images/search", "ImageSearch").to(images::transfer::image_search),
        post("/images/prune", "ImagePrune").to(images::transfer::image_prune),
        post("/commit", "ImageCommit").to(images::commit::image_commit),
        get("/images/{name}/get", "ImageGet").to(images::image_get),
        get("/images/get", "ImageGetAll").to(images::image_get_all),
        post("/images/load", "ImageLoad").to(images::image_load),

        // Network
        get("/networks", "NetworkList").to(networks::network_list),
        get("/networks/{id}", "NetworkInspect").to(networks::network_inspect),
        delete("/networks/{id}", "NetworkDelete").to(networks::network_delete),
        post("/networks/create", "NetworkCreate").to(networks::network_create),
        post("/networks/{id}/connect", "NetworkConnect").to(networks::network_connect),
        post("/networks/{id}/disconnect", "NetworkDisconnect").to(networks::network_disconnect),
        post("/networks/prune", "NetworkPrune").to(networks::network_prune),

        // Volume
        get("/volumes", "VolumeList").to(volumes::volume_list),
        post("/volumes/create", "VolumeCreate").to(volumes::volume_create),
        get("/volumes/{name}", "VolumeInspect").to(volumes::volume_inspect),
        put("/volumes/{name}", "VolumeUpdate").to(swarm::volume_update),
        delete("/volumes/{name}", "VolumeDelete").to(volumes::volume_delete),
        post("/volumes/prune", "VolumePrune").to(volumes::volume_prune),

        // Distribution
        get("/distribution/{name}/json", "DistributionInspect").to(images::transfer::distribution_inspect),

        // Session
        post("/session", "Session").to(buildkit::session),
        post("/grpc", "Grpc").to(buildkit::grpc),

        // Plugin
        get("/plugins", "PluginList").to(plugins::plugin_list),
        get("/plugins/privileges", "GetPluginPrivileges").to(plugins::plugin_pull),
        post("/plugins/pull", "PluginPull").to(plugins::plugin_pull),
        get("/plugins/{name}/json", "PluginInspect").to(plugins::plugin_of_name),
        delete("/plugins/{name}", "PluginDelete").to(plugins::plugin_of_name),
        post("/plugins/{name}/enable", "PluginEnable").to(plugins::plugin_enable),
        post("/plugins/{name}/disable", "PluginDisable").to(plugins::plugin_of_name),
        post("/plugins/{name}/upgrade", "PluginUpgrade").to(plugins::plugin_upgrade),
        post("/plugins/create", "PluginCreate").to(plugins::plugin_create),
        post("/plugins/{name}/push", "PluginPush").to(plugins::plugin_of_name),
        post("/plugins/{name}/set", "PluginSet").to(plugins::plugin_of_name),

        // Swarm
        get("/swarm", "SwarmInspect").to(swarm::not_a_manager),
        post("/swarm/init", "SwarmInit").to(swarm::swarm_enter),
        post("/swarm/join", "SwarmJoin").to(swarm::swarm_enter),
        post("/swarm/leave", "SwarmLeave").to(swarm::swarm_leave),
        post("/swarm/update", "SwarmUpdate").to(swarm::swarm_update),
        get("/swarm/unlockkey", "SwarmUnlockkey").to(swarm::not_a_manager),
        post("/swarm/unlock", "SwarmUnlock").to(swarm::with_body),

        // Node
        get("/nodes", "NodeList").to(swarm::list),
        get("/nodes/{id}", "NodeInspect").to(swarm::not_a_manager),
        delete("/nodes/{id}", "NodeDelete").to(swarm::not_a_manager),
        post("/nodes/{id}/update", "NodeUpdate").to(swarm::node_update),

        // Service
        get("/services", "ServiceList").to(swarm::list),
        post("/services/create", "ServiceCreate").to(swarm::with_body),
        get("/services/{id}/logs", "ServiceLogs").to(swarm::logs),
        get("/services/{id}", "ServiceInspect").to(swarm::service_inspect),
        delete("/services/{id}", "ServiceDelete").to(swarm::not_a_manager),
        post("/services/{id}/update", "ServiceUpdate").to(swarm::service_update),

        // Task
        get("/tasks", "TaskList").to(swarm::list),
        get("/tasks/{id}/logs", "TaskLogs").to(swarm::logs),
        get("/tasks/{id}", "TaskInspect").to(swarm::not_a_manager),

        // Secret
        get("/secrets", "SecretList").to(swarm::list),
        post("/secrets/create", "SecretCreate").to(swarm::with_body),
        get("/secrets/{id}", "SecretInspect").to(swarm::not_a_manager),
        delete("/secrets/{id}", "SecretDelete").to(swarm::not_a_manager),
        post("/secrets/{id}/update", "SecretUpdate").to(swarm::secret_update),

        // Config
        get("/configs", "ConfigList").to(swarm::list),
        post("/configs/create", "ConfigCreate").to(swarm::with_body),
        get("/configs/{id}", "ConfigInspect").to(swarm::not_a_manager),
        delete("/configs/{id}", "ConfigDelete").to(swarm::not_a_manager),
        post("/configs/{id}/update", "ConfigUpdate").to(swarm::config_update),
    ]
}

fn get(path: &'static str, operation: &'static str) -> Route<ApiState> {
    Route::new(Method::GET, path, operation)
}

fn head(path: &'static str, operation: &'static str) -> Route<ApiState> {
    Route::new(Method::HEAD, path, operation)
}

fn post(path: &'static str, operation: &'static str) -> Route<ApiState> {
    Route::new(Method::POST, path, operation)
}

fn put(path: &'static str, operation: &'static str) -> Route<ApiState> {
    Route::new(Method::PUT, path, operation)
}

fn delete(path: &'static str, operation: &'static str) -> Route<ApiState> {
    Route::new(Method::DELETE, path, operation)
}
