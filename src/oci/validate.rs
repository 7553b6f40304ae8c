//! What `POST /containers/create` refuses or discards before anything is made, in dockerd's words and order.

mod cpu;
mod memory;
mod modes;
mod process;
mod restart;

use super::{HostFacts, caps, devices, host::CgroupVersion, mounts, seccomp, security_opt::SecurityOptions, tmpfs};
use crate::model::{
    Error, Result,
    container::{CgroupnsMode, Config, HostConfig, IpcMode, RestartMode, VersionDefaults},
};

/// Checks a merged config and a host config, discards limits that the host cannot enforce, and fills in dockerd's
/// defaults, so that inspect shows what will be. Returns the `Warnings` of the answer.
///
/// Errors: 400 in dockerd's words.
pub fn validate(
    config: &Config,
    host_config: &mut HostConfig,
    defaults: &VersionDefaults,
    host: &HostFacts,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    modes::check_network(config, host_config)?;
    check_windows_fields(host_config)?;
    process::check(config)?;
    restart::check(host_config)?;
    check_annotations(host_config)?;
    let capabilities = caps::effective(host_config, host.bounding)?;
    modes::check(host_config)?;
    memory::check(host_config, host.features, &mut warnings)?;
    cpu::check(host_config, host, &mut warnings)?;
    check_blkio(host_config, host, &mut warnings)?;
    check_limits(host_config, host, &mut warnings)?;
    let security = SecurityOptions::parse(host_config.security_opt.as_deref().unwrap_or_default())?;
    seccomp::check(security.seccomp.as_deref(), capabilities, host)?;
    check_labels(host_config, &security, host, &mut warnings);
    check_devices(host_config)?;
    check_tmpfs(host_config)?;
    check_storage(host_config)?;
    fill_defaults(host_config, defaults, host);
    Ok(warnings)
}

/// Checks what an update asks for, and discards limits that the host cannot enforce. Returns the `Warnings` of the
/// answer. Limits are not filled in: what is not given stays.
///
/// Errors: 400 in dockerd's words.
pub fn validate_update(wanted: &mut HostConfig, host: &HostFacts) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    restart::check_policy(&wanted.restart_policy)?;
    memory::check_given(wanted, host.features, &mut warnings)?;
    cpu::check(wanted, host, &mut warnings)?;
    check_blkio(wanted, host, &mut warnings)?;
    check_limits(wanted, host, &mut warnings)?;
    Ok(warnings)
}

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}

fn check_windows_fields(host_config: &HostConfig) -> Result<()> {
    if !matches!(host_config.isolation.as_str(), "" | "default") {
        return invalid(format!("invalid isolation ({}): linux only supports 'default'", host_config.isolation));
    }
    if host_config.io_maximum_bandwidth != 0 {
        return invalid("invalid option: QoS maximum bandwidth configuration is not supported on linux");
    }
    if host_config.io_maximum_iops != 0 {
        return invalid("invalid option: QoS maximum IOPs configuration is not supported on linux");
    }
    Ok(())
}

fn check_annotations(host_config: &HostConfig) -> Result<()> {
    if host_config.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return invalid("invalid Annotations: the empty string is not permitted as an annotation key");
    }
    Ok(())
}

fn check_blkio(host_config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    if host_config.blkio_weight > 0 && !host.features.blkio_weight {
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".to_owned(),
        );
        host_config.blkio_weight = 0;
    }
    if host_config.blkio_weight > 0 && !(10..=1000).contains(&host_config.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    if !host.features.blkio_weight_device {
        discard(
            &mut host_config.blkio_weight_device,
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
            warnings,
        );
    }
    if !host.features.blkio_throttle {
        let lists = [
            (
                &mut host_config.blkio_device_read_bps,
                "BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit",
            ),
            (
                &mut host_config.blkio_device_write_bps,
                "BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit",
            ),
            (
                &mut host_config.blkio_device_read_iops,
                "IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit",
            ),
            (
                &mut host_config.blkio_device_write_iops,
                "IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit",
            ),
        ];
        for (list, what) in lists {
            discard(list, &format!("Your kernel does not support {what} discarded."), warnings);
        }
    }
    Ok(())
}

fn discard<T>(list: &mut Option<Vec<T>>, warning: &str, warnings: &mut Vec<String>) {
    if list.as_ref().is_some_and(|list| !list.is_empty()) {
        warnings.push(warning.to_owned());
        *list = Some(Vec::new());
    }
}

fn check_limits(host_config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    if host_config.pids_limit.is_some() && !host.features.pids {
        if host_config.pids_limit > Some(0) {
            warnings.push("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.".to_owned());
        }
        host_config.pids_limit = None;
    }
    if host_config.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host_config.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host_config.oom_score_adj
        ));
    }
    for ulimit in host_config.ulimits.iter().flatten() {
        super::process::rlimit(ulimit)?;
    }
    Ok(())
}

/// dockerd passes over labels where SELinux is off, and so do we; where it is on, what is not done is said.
fn check_labels(host_config: &HostConfig, security: &SecurityOptions, host: &HostFacts, warnings: &mut Vec<String>) {
    let relabels = |bind: &String| {
        bind.rsplit(':').next().is_some_and(|mode| mode.split(',').any(|word| matches!(word, "z" | "Z")))
    };
    let asked =
        security.labels.iter().any(|label| label != "disable") || host_config.binds.iter().flatten().any(relabels);
    if asked && host.selinux {
        warnings.push("SELinux labels are not carried out by ringer. Labels discarded.".to_owned());
    }
}

/// The form only: whether a device is there is asked at start, as in dockerd.
fn check_devices(host_config: &HostConfig) -> Result<()> {
    for rule in host_config.device_cgroup_rules.iter().flatten() {
        devices::parse_rule(rule)?;
    }
    Ok(())
}

fn check_tmpfs(host_config: &HostConfig) -> Result<()> {
    for (destination, options) in host_config.tmpfs.iter().flatten() {
        if !destination.starts_with('/') {
            return invalid(format!("invalid mount path: '{destination}' mount path must be absolute"));
        }
        if crate::model::path::clean_absolute(destination) == "/" {
            return invalid("invalid specification: destination can't be '/'");
        }
        tmpfs::merge(options)?;
    }
    Ok(())
}

fn check_storage(host_config: &HostConfig) -> Result<()> {
    if host_config.storage_opt.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err(Error::system("--storage-opt is supported only for overlay over xfs with 'pquota' mount option"));
    }
    Ok(())
}

/// System paths that are hidden or read-only in a container that asked for nothing, and not in this one. Of one with
/// privileges, which has none by default, those that it asked for do not count.
pub fn uncovered_paths(host_config: &HostConfig, host: &HostFacts) -> Vec<String> {
    if host_config.privileged {
        return Vec::new();
    }
    let masked = host_config.masked_paths.as_deref().unwrap_or_default();
    let read_only = host_config.readonly_paths.as_deref().unwrap_or_default();
    let is_hidden = |path: &String| masked.contains(path);
    let uncovered = mounts::default_masked_paths(host).into_iter().filter(|path| !is_hidden(path));
    let writable =
        mounts::default_readonly_paths().into_iter().filter(|path| !read_only.contains(path) && !is_hidden(path));
    uncovered.chain(writable).collect()
}

/// What dockerd writes into the host config of every container.
fn fill_defaults(host_config: &mut HostConfig, defaults: &VersionDefaults, host: &HostFacts) {
    if host_config.ipc_mode.is_unset() {
        host_config.ipc_mode = match &defaults.ipc_mode {
            IpcMode::Unset => IpcMode::Private,
            mode => mode.clone(),
        };
    }
    if host_config.restart_policy.name.is_unset() {
        host_config.restart_policy.name = RestartMode::No;
    }
    if host_config.cgroupns_mode.is_unset() {
        host_config.cgroupns_mode = match (&defaults.cgroupns_mode, host.cgroup) {
            (CgroupnsMode::Unset, CgroupVersion::V2) => CgroupnsMode::Private,
            (CgroupnsMode::Unset, CgroupVersion::V1) => CgroupnsMode::Host,
            (mode, _) => mode.clone(),
        };
    }
    if host_config.shm_size == 0 && !matches!(host_config.ipc_mode, IpcMode::None | IpcMode::Host) {
        host_config.shm_size = mounts::DEFAULT_SHM_SIZE;
    }
    if host.features.oom_kill_disable {
        host_config.oom_kill_disable.get_or_insert(false);
    }
    if host_config.privileged {
        return;
    }
    host_config.masked_paths.get_or_insert_with(|| mounts::default_masked_paths(host));
    host_config.readonly_paths.get_or_insert_with(mounts::default_readonly_paths);
}
