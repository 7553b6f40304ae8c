//! What is mounted into a container, in dockerd's order, and what of `/proc` and `/sys` is hidden.

use std::path::Path;

use oci_spec::runtime::{Mount, MountBuilder};

use super::{
    HostFacts, SpecInput,
    process::{INIT_PATH, init_of},
    propagation,
    security_opt::SecurityOptions,
    tmpfs,
};
use crate::model::{
    Error, Result,
    container::{HostConfig, IpcMode, MountKind, MountPoint, ReadOnlyDepth},
};

/// Bytes of `/dev/shm` if nobody says otherwise.
pub(super) const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// Paths that dockerd covers.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that dockerd makes read-only.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Paths that are covered and paths that are read-only.
pub(super) struct HiddenPaths {
    pub(super) masked: Option<Vec<String>>,
    pub(super) readonly: Option<Vec<String>>,
}

/// The client's lists (an empty one hides nothing), else Docker's; none with privileges.
pub(super) fn hidden_paths(host_config: &HostConfig, host: &HostFacts) -> HiddenPaths {
    if host_config.privileged {
        return HiddenPaths { masked: None, readonly: None };
    }
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let docker_masks = || words(&MASKED).into_iter().chain(host.thermal_throttle.iter().cloned()).collect();
    let masked = host_config.masked_paths.clone().unwrap_or_else(docker_masks);
    let readonly = host_config.readonly_paths.clone().unwrap_or_else(|| words(&READONLY));
    HiddenPaths {
        masked: Some(masked).filter(|paths| !paths.is_empty()),
        readonly: Some(readonly).filter(|paths| !paths.is_empty()),
    }
}

/// The paths that inspect shows as `MaskedPaths` for a container that asked for nothing.
pub(super) fn default_masked_paths(host: &HostFacts) -> Vec<String> {
    hidden_paths(&HostConfig::default(), host).masked.unwrap_or_default()
}

/// The paths that inspect shows as `ReadonlyPaths` for a container that asked for nothing.
pub(super) fn default_readonly_paths() -> Vec<String> {
    READONLY.iter().map(ToString::to_string).collect()
}

/// Kernel file systems first, then what the client asked for and the name service's files, from the root downwards.
pub(super) fn mounts(input: &SpecInput<'_>, security: &SecurityOptions) -> Result<Vec<Mount>> {
    let own = own_mounts(input)?;
    let covers = |destination: &str| own.iter().any(|mount| mount.destination() == Path::new(destination));
    let is_covered = |destination: &str| covers(destination) || (covers("/dev") && destination.starts_with("/dev/"));
    let mut mounts: Vec<Mount> = kernel_mounts(input, security)
        .into_iter()
        .filter(|(destination, _)| !is_covered(destination))
        .map(|(_, mount)| mount)
        .collect();
    mounts.extend(own);
    Ok(mounts)
}

fn kernel_mounts(input: &SpecInput<'_>, security: &SecurityOptions) -> Vec<(&'static str, Mount)> {
    let host_config = &input.record.host_config;
    let sys: &[&str] =
        if host_config.privileged { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    let cgroup: &[&str] = if security.writable_cgroups.unwrap_or(host_config.privileged) {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["ro", "nosuid", "noexec", "nodev"]
    };
    let mut mounts = vec![
        kernel_mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        kernel_mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        kernel_mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        kernel_mount("/sys", "sysfs", "sysfs", sys),
        kernel_mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup),
        kernel_mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if input.shm.is_none() && host_config.ipc_mode != IpcMode::None {
        let size = format!("size={}", if host_config.shm_size > 0 { host_config.shm_size } else { DEFAULT_SHM_SIZE });
        mounts.push(kernel_mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    mounts
}

fn kernel_mount(destination: &'static str, kind: &str, source: &str, options: &[&str]) -> (&'static str, Mount) {
    (destination, mount(destination, kind, source, options.iter().map(ToString::to_string).collect()))
}

/// What is laid over: the client's mounts, shared memory, the init program, and the name service's files unless the
/// client has its own there. Sorted by depth, so that none is hidden by a later one.
fn own_mounts(input: &SpecInput<'_>) -> Result<Vec<Mount>> {
    let mut own = input.mounts.iter().map(|mount| own_mount(mount, input)).collect::<Result<Vec<_>>>()?;
    let taken =
        |own: &[Mount], destination: &str| own.iter().any(|mount| mount.destination() == Path::new(destination));
    if let Some(shm) = input.shm.filter(|_| !taken(&own, "/dev/shm")) {
        own.push(mount("/dev/shm", "bind", &shm.to_string_lossy(), words(&["rbind", "rprivate"])));
    }
    if let Some(init) = init_of(input) {
        own.push(mount(INIT_PATH, "bind", &init.to_string_lossy(), words(&["bind", "ro"])));
    }
    let files = [
        ("/etc/resolv.conf", &input.files.resolv_conf),
        ("/etc/hostname", &input.files.hostname),
        ("/etc/hosts", &input.files.hosts),
    ];
    for (destination, source) in files {
        let Some(source) = source.as_ref().filter(|_| !taken(&own, destination)) else { continue };
        let mut options = words(&["rbind"]);
        if input.record.host_config.readonly_rootfs {
            options.push(read_only_word(input).to_owned());
        }
        options.push("rprivate".to_owned());
        own.push(mount(destination, "bind", &source.to_string_lossy(), options));
    }
    own.sort_by_key(|mount| mount.destination().components().count());
    Ok(own)
}

fn own_mount(point: &MountPoint, input: &SpecInput<'_>) -> Result<Mount> {
    match point.kind {
        MountKind::Tmpfs => Ok(mount(&point.destination, "tmpfs", "tmpfs", tmpfs::merge(&point.tmpfs_options)?)),
        MountKind::Bind | MountKind::Volume | MountKind::Image => {
            propagation::check_source(point, input.mountinfo)?;
            Ok(mount(&point.destination, "bind", &point.source, bind_options(point, input)?))
        }
    }
}

fn bind_options(point: &MountPoint, input: &SpecInput<'_>) -> Result<Vec<String>> {
    let mut options = words(&[if point.non_recursive { "bind" } else { "rbind" }]);
    if !point.rw {
        options.push(read_only_option(point, input)?.to_owned());
    }
    if !point.propagation.is_empty() {
        options.push(point.propagation.clone());
    }
    Ok(options)
}

fn read_only_option(point: &MountPoint, input: &SpecInput<'_>) -> Result<&'static str> {
    match point.read_only_depth {
        ReadOnlyDepth::Shallow => Ok("ro"),
        ReadOnlyDepth::Forced if !input.recursive_read_only => Err(Error::invalid(format!(
            "failed to make {} recursively read-only: not supported by the kernel",
            point.destination
        ))),
        ReadOnlyDepth::IfPossible | ReadOnlyDepth::Forced => Ok(read_only_word(input)),
    }
}

fn read_only_word(input: &SpecInput<'_>) -> &'static str {
    if input.recursive_read_only { "rro" } else { "ro" }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: Vec<String>) -> Mount {
    let builder = MountBuilder::default().destination(destination).typ(kind).source(source).options(options);
    builder.build().expect("every field has a default")
}
