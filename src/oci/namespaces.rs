//! Which namespaces a container has of its own, and whose it joins.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType};

use super::{SpecInput, host::CgroupVersion};
use crate::model::container::{CgroupnsMode, HostConfig, IpcMode, PidMode, UtsMode};

/// Where a container's network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkNamespace<'a> {
    /// That of the host of the container's tenant: the machine's, or a job's own at a path. Either is not the container's
    /// to change.
    Host(Option<&'a str>),
    /// One that the runtime makes, with nothing in it.
    New,
    /// One that was made before.
    Path(&'a str),
}

/// Paths of namespaces of other containers (`container:` modes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// For `PidMode`.
    pub pid: Option<String>,
    /// For `IpcMode`.
    pub ipc: Option<String>,
}

/// The host name; none in the host's UTS namespace, where it would be everybody's.
pub(super) fn hostname(input: &SpecInput<'_>) -> Option<String> {
    (input.record.host_config.uts_mode != UtsMode::Host).then(|| input.hostname.to_owned())
}

/// All namespaces that are not the host's, in dockerd's order.
pub(super) fn namespaces(input: &SpecInput<'_>) -> Vec<LinuxNamespace> {
    let host_config = &input.record.host_config;
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    match input.network {
        NetworkNamespace::Host(None) => {}
        NetworkNamespace::New => namespaces.push(namespace(LinuxNamespaceType::Network, None)),
        NetworkNamespace::Host(Some(path)) | NetworkNamespace::Path(path) => {
            namespaces.push(namespace(LinuxNamespaceType::Network, Some(path)))
        }
    }
    if host_config.uts_mode != UtsMode::Host {
        namespaces.push(namespace(LinuxNamespaceType::Uts, None));
    }
    if host_config.pid_mode != PidMode::Host {
        namespaces.push(namespace(LinuxNamespaceType::Pid, input.joined.pid.as_deref()));
    }
    if host_config.ipc_mode != IpcMode::Host {
        namespaces.push(namespace(LinuxNamespaceType::Ipc, input.joined.ipc.as_deref()));
    }
    if has_own_cgroup_namespace(host_config, input.host.cgroup) {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}

/// On the unified tree everybody has one unless the client says no; before, only who asks for it.
fn has_own_cgroup_namespace(host_config: &HostConfig, version: CgroupVersion) -> bool {
    match host_config.cgroupns_mode {
        CgroupnsMode::Host => false,
        CgroupnsMode::Private => true,
        CgroupnsMode::Unset | CgroupnsMode::Unknown(_) => version == CgroupVersion::V2,
    }
}

fn namespace(kind: LinuxNamespaceType, path: Option<&str>) -> LinuxNamespace {
    let builder = LinuxNamespaceBuilder::default().typ(kind);
    let builder = match path {
        Some(path) => builder.path(path),
        None => builder,
    };
    builder.build().expect("every field has a default")
}
