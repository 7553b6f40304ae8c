//! Namespace modes, and what does not go together with a network that is not the container's own.

use super::invalid;
use crate::model::{
    Result,
    container::{CgroupnsMode, Config, HostConfig, IpcMode, NetworkMode, PidMode, UsernsMode, UtsMode},
};

/// IPC, PID, UTS, user and cgroup modes.
pub(super) fn check(host_config: &HostConfig) -> Result<()> {
    if let IpcMode::Unknown(mode) = &host_config.ipc_mode {
        return invalid(format!("invalid IPC mode: {mode}"));
    }
    if let PidMode::Unknown(mode) = &host_config.pid_mode {
        return invalid(format!("invalid PID mode: {mode}"));
    }
    if let UtsMode::Unknown(mode) = &host_config.uts_mode {
        return invalid(format!("invalid UTS mode: {mode}"));
    }
    if let UsernsMode::Unknown(mode) = &host_config.userns_mode {
        return invalid(format!("invalid user namespace mode: {mode}"));
    }
    if let CgroupnsMode::Unknown(mode) = &host_config.cgroupns_mode {
        return invalid(format!("invalid cgroup namespace mode: {mode}"));
    }
    Ok(())
}

/// A container without a network of its own cannot have settings of one.
pub(super) fn check_network(config: &Config, host_config: &HostConfig) -> Result<()> {
    let mode = &host_config.network_mode;
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if mode.network().is_some_and(|name| matches!(name, "container" | "container:")) {
        return invalid("invalid network mode: invalid container format container:<name|id>");
    }
    let conflict = |what: &str| invalid(format!("conflicting options: {what}"));
    if mode.container().is_some() {
        check_shared_network(config, host_config)?;
    }
    if matches!(mode, NetworkMode::Host | NetworkMode::None) && !config.mac_address.is_empty() {
        return conflict("mac-address and the network mode");
    }
    if host_config.uts_mode == UtsMode::Host && !config.hostname.is_empty() {
        return conflict("hostname and the UTS mode");
    }
    if *mode == NetworkMode::Host && has(&host_config.links) {
        return conflict("host type networking can't be used with links. This would result in undefined behavior");
    }
    Ok(())
}

fn check_shared_network(config: &Config, host_config: &HostConfig) -> Result<()> {
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let conflicts = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            has(&host_config.links),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (has(&host_config.dns), "dns and the network mode"),
        (has(&host_config.extra_hosts), "custom host-to-IP mapping and the network mode"),
        (!config.mac_address.is_empty(), "mac-address and the network mode"),
        (
            host_config.binds_ports() || host_config.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (
            config.exposed_ports.as_ref().is_some_and(|ports| !ports.is_empty()),
            "port exposing and the container type network mode",
        ),
    ];
    match conflicts.into_iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => invalid(format!("conflicting options: {what}")),
        None => Ok(()),
    }
}
