//! Kernel settings of a container's own namespaces.

use std::collections::HashMap;

use super::{NetworkNamespace, SpecInput};
use crate::model::{
    Error, Result,
    container::{HostConfig, IpcMode, UtsMode},
};

/// Settings of the IPC namespace.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The client's settings over Docker's: unprivileged users may bind low ports and send pings in a network of their own.
///
/// A setting that would be the host's is refused in runc's words, since other runtimes write it through.
pub(super) fn sysctls(input: &SpecInput<'_>) -> Result<Option<HashMap<String, String>>> {
    let host_config = &input.record.host_config;
    let mut sysctls = HashMap::new();
    if matches!(input.network, NetworkNamespace::New | NetworkNamespace::Path(_))
        && host_config.network_mode.container().is_none()
    {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    let domainname = &input.record.config.domainname;
    if !domainname.is_empty() && host_config.uts_mode != UtsMode::Host {
        sysctls.insert("kernel.domainname".to_owned(), domainname.clone());
    }
    for (name, value) in host_config.sysctls.iter().flatten() {
        check(&name.replace('/', "."), host_config, input.network)?;
        sysctls.insert(name.clone(), value.clone());
    }
    Ok((!sysctls.is_empty()).then_some(sysctls))
}

fn check(name: &str, host_config: &HostConfig, network: NetworkNamespace<'_>) -> Result<()> {
    let refused = |reason: &str| Err(Error::system(format!("sysctl {name:?} {reason}")));
    if name == "kernel.domainname" {
        return if host_config.uts_mode == UtsMode::Host {
            refused("is not in a separate kernel namespace")
        } else {
            Ok(())
        };
    }
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return if host_config.ipc_mode == IpcMode::Host {
            refused("is not allowed in the hosts ipc namespace")
        } else {
            Ok(())
        };
    }
    if name.starts_with("net.") {
        return if matches!(network, NetworkNamespace::Host(_)) {
            refused("not allowed in host network namespace")
        } else {
            Ok(())
        };
    }
    refused("is not in a separate kernel namespace")
}
