//! Level 1: from our model to an OCI runtime spec, exactly as dockerd writes it.
//!
//! The modules are named after parts of the spec. All is pure but [`host`] and [`devices`], which ask the kernel.
//! `golden/` holds what real dockerds made of the same requests, and `tests.rs` compares.

pub mod caps;
mod devices;
pub mod host;
mod mounts;
mod namespaces;
mod process;
mod propagation;
mod resources;
mod seccomp;
pub mod security_opt;
mod sysctl;
#[cfg(test)]
mod tests;
mod tmpfs;
pub mod user;
mod validate;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxBuilder, Root, RootBuilder, Spec, SpecBuilder};

pub use self::{
    host::HostFacts,
    namespaces::{Joined, NetworkNamespace},
    process::{ExecInput, exec_process},
    propagation::without_impossible_slaves,
    resources::updated_resources,
    user::ResolvedUser,
    validate::{uncovered_paths, validate, validate_update},
};
use crate::model::{
    Result,
    container::{ContainerRecord, MountPoint},
};
use security_opt::SecurityOptions;

/// The files that a container's name service needs, on the host; `None` leaves the image's.
#[derive(Clone, Debug, Default)]
pub struct NetworkFiles {
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// `/etc/hosts`.
    pub hosts: Option<PathBuf>,
}

/// What becomes a spec.
pub struct SpecInput<'a> {
    /// The container.
    pub record: &'a ContainerRecord,
    /// Its binds, volumes and tmpfs with their sources on the host; mostly `record.mounts`.
    pub mounts: &'a [MountPoint],
    /// Who its first process runs as.
    pub user: &'a ResolvedUser,
    /// Its host name: its own, the host's with host network, the other container's with `container:`.
    pub hostname: &'a str,
    /// Where its root file system will be; `rootfs` for one that the runtime mounts into the bundle.
    pub rootfs: &'a Path,
    /// Its cgroup.
    pub cgroups_path: &'a str,
    /// Its network namespace.
    pub network: NetworkNamespace<'a>,
    /// Namespaces of other containers that it shares.
    pub joined: &'a Joined,
    /// Files of the name service.
    pub files: &'a NetworkFiles,
    /// A folder to use as `/dev/shm`: with IPC mode `shareable` its own, with `container:` the other's, with `host` `/dev/shm`.
    pub shm: Option<&'a Path>,
    /// The init program on the host, if the container or the daemon's config asks for one.
    pub init: Option<&'a Path>,
    /// `/proc/self/mountinfo`; only read for binds that are shared or slaves.
    pub mountinfo: &'a str,
    /// Whether the runtime can make mounts read-only with all below them.
    pub recursive_read_only: bool,
    /// What the host can do.
    pub host: &'a HostFacts,
}

/// The runtime spec of a container.
///
/// Errors: 400 for what the request has wrong, 500 for what the host has not got (a device, a shared mount).
pub fn spec(input: &SpecInput<'_>) -> Result<Spec> {
    let security = SecurityOptions::parse(input.record.host_config.security_opt.as_deref().unwrap_or_default())?;
    let capabilities = caps::effective(&input.record.host_config, input.host.bounding)?;
    let mounts = mounts::mounts(input, &security)?;
    let mut spec = SpecBuilder::default().build().expect("every field has a default");
    spec.set_process(Some(process::process(input, &security, capabilities)?));
    spec.set_root(Some(root(input)));
    spec.set_hostname(namespaces::hostname(input));
    spec.set_mounts(Some(mounts));
    spec.set_linux(Some(linux(input, &security, capabilities)?));
    let annotations = input.record.host_config.annotations.iter().flatten();
    let annotations: std::collections::HashMap<_, _> = annotations.map(|(k, v)| (k.clone(), v.clone())).collect();
    spec.set_annotations((!annotations.is_empty()).then_some(annotations));
    Ok(spec)
}

fn root(input: &SpecInput<'_>) -> Root {
    RootBuilder::default()
        .path(input.rootfs)
        .readonly(input.record.host_config.readonly_rootfs)
        .build()
        .expect("every field has a default")
}

fn linux(input: &SpecInput<'_>, security: &SecurityOptions, capabilities: caps::CapabilitySet) -> Result<Linux> {
    let host_config = &input.record.host_config;
    let devices = devices::devices(host_config)?;
    let mut linux = LinuxBuilder::default().build().expect("every field has a default");
    linux.set_sysctl(sysctl::sysctls(input)?);
    linux.set_cgroups_path(Some(input.cgroups_path.into()));
    linux.set_namespaces(Some(namespaces::namespaces(input)));
    linux.set_resources(Some(resources::resources(host_config, devices.rules)?));
    linux.set_devices((!devices.nodes.is_empty()).then_some(devices.nodes));
    linux.set_rootfs_propagation(propagation::of_rootfs(input.mounts));
    let hidden = mounts::hidden_paths(host_config, input.host);
    linux.set_masked_paths(hidden.masked).set_readonly_paths(hidden.readonly);
    if !host_config.privileged && input.host.seccomp {
        linux.set_seccomp(seccomp::filter(security.seccomp.as_deref(), capabilities, input.host)?);
    }
    Ok(linux)
}
