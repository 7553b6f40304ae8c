//! Device nodes in a container, and the cgroup's rules on them. Asks the kernel what a path is.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use crate::model::{
    Error, Result,
    container::{DeviceMapping, HostConfig},
};

/// Devices that every container may use: type, major, minor. The runtime makes their nodes.
const ALWAYS: [(i64, i64); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// `/dev/fuse`, named by dockerd's defaults only to forbid it.
const FUSE: (i64, i64) = (10, 229);

/// What dockerd leaves out of a privileged container's `/dev`, beside the console and what is mounted there anyway.
const NOT_FOR_PRIVILEGED: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// Nodes and rules of one container.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<LinuxDevice>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

/// Everything of the host for a privileged container, else the defaults and what was asked for.
pub(super) fn devices(host_config: &HostConfig) -> Result<Devices> {
    refuse_requests(host_config)?;
    if host_config.privileged {
        return Ok(Devices { nodes: host_devices(), rules: vec![rule(true, None, None, None, "rwm")] });
    }
    let mut devices = Devices { nodes: Vec::new(), rules: default_rules() };
    for mapping in host_config.devices.as_deref().unwrap_or_default() {
        devices.add(mapping)?;
    }
    for text in host_config.device_cgroup_rules.as_deref().unwrap_or_default() {
        devices.rules.push(parse_rule(text)?);
    }
    Ok(devices)
}

/// No vendor's driver is asked for GPUs and the like.
fn refuse_requests(host_config: &HostConfig) -> Result<()> {
    let Some(request) = host_config.device_requests.iter().flatten().next() else { return Ok(()) };
    let words: Vec<String> =
        request.capabilities.iter().flatten().map(|words| format!("[{}]", words.join(" "))).collect();
    Err(Error::system(format!(
        "could not select device driver {:?} with capabilities: [{}]",
        request.driver,
        words.join(" ")
    )))
}

fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let character = |allow, (major, minor)| rule(allow, Some(LinuxDeviceType::C), Some(major), Some(minor), "rwm");
    let mut rules = vec![rule(false, None, None, None, "rwm")];
    rules.extend(ALWAYS.map(|numbers| character(true, numbers)));
    rules.push(character(false, FUSE));
    rules
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).access(access).build().expect("all have defaults");
    rule.set_typ(kind).set_major(major).set_minor(minor);
    rule
}

/// One entry of `DeviceCgroupRules`, `c 1:3 rwm`; 400 for what has another form.
pub(super) fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    read_rule(text).ok_or_else(|| Error::invalid(format!("invalid device cgroup rule format: '{text}'")))
}

fn read_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let mut words = text.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let is_access = (1..=3).contains(&access.len()) && access.chars().all(|c| "rwm".contains(c));
    if words.next().is_some() || !is_access {
        return None;
    }
    Some(rule(true, Some(kind), Some(read_number(major)?), Some(read_number(minor)?), access))
}

/// `*` is -1, any.
fn read_number(text: &str) -> Option<i64> {
    if text == "*" { Some(-1) } else { text.parse::<u32>().ok().map(i64::from) }
}

impl Devices {
    fn add(&mut self, mapping: &DeviceMapping) -> Result<()> {
        let host_path = Path::new(&mapping.path_on_host);
        let container_path =
            if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
        let failed = |cause: &str| {
            Error::system(format!(
                "error gathering device information while adding custom device {:?}: {cause}",
                mapping.path_on_host
            ))
        };
        let metadata = fs::metadata(host_path).map_err(|cause| failed(io_text(&cause)))?;
        let access = access_of(mapping);
        if metadata.is_dir() {
            // A folder gives all devices below it; files that are none are passed over.
            for (path, relative) in device_files(host_path) {
                if let Some(node) = node(&path, &Path::new(container_path).join(relative)) {
                    self.push(node, access);
                }
            }
            return Ok(());
        }
        let node = node(host_path, Path::new(container_path)).ok_or_else(|| failed("not a device node"))?;
        self.push(node, access);
        Ok(())
    }

    fn push(&mut self, node: LinuxDevice, access: &str) {
        self.rules.push(rule(true, Some(node.typ()), Some(node.major()), Some(node.minor()), access));
        self.nodes.push(node);
    }
}

/// dockerd leaves this to the CLI; other clients send nothing and mean everything.
fn access_of(mapping: &DeviceMapping) -> &str {
    if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions }
}

fn io_text(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory",
        io::ErrorKind::PermissionDenied => "permission denied",
        _ => "cannot be read",
    }
}

/// The device at `path` (links are followed) as it shall stand at `target`; `None` for what is no device.
fn node(path: &Path, target: &Path) -> Option<LinuxDevice> {
    let metadata = fs::metadata(path).ok()?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let builder = LinuxDeviceBuilder::default().path(target).typ(kind).major(i64::from(major)).minor(i64::from(minor));
    let builder = builder.file_mode(metadata.mode() & 0o7777).uid(metadata.uid()).gid(metadata.gid());
    builder.build().ok()
}

/// Device files below `folder`, and their paths relative to it, in order of names; links are not followed.
fn device_files(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(current) = pending.pop() {
        let mut entries: Vec<_> = fs::read_dir(&current).into_iter().flatten().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_char_device() || kind.is_block_device() {
                let relative = entry.path().strip_prefix(folder).map(Path::to_owned).unwrap_or_default();
                found.push((entry.path(), relative));
            }
        }
    }
    found
}

/// All of `/dev` that a privileged container sees.
fn host_devices() -> Vec<LinuxDevice> {
    let is_hidden = |relative: &Path| {
        relative.components().any(|part| NOT_FOR_PRIVILEGED.iter().any(|name| part.as_os_str() == *name))
            || relative == Path::new("console")
    };
    let files = device_files(Path::new("/dev")).into_iter().filter(|(_, relative)| !is_hidden(relative));
    files.filter_map(|(path, _)| node(&path, &path)).collect()
}

/// Major and minor number of a block device for the I/O limits; 500 with the path if it is not there.
pub(super) fn numbers_of(path: &str) -> Result<(i64, i64)> {
    let metadata = fs::metadata(path).map_err(|cause| Error::system(format!("stat {path}: {}", io_text(&cause))))?;
    Ok((i64::from(rustix::fs::major(metadata.rdev())), i64::from(rustix::fs::minor(metadata.rdev()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule = parse_rule("a 7:* rw").unwrap();
        assert_eq!((rule.typ(), rule.major(), rule.minor()), (Some(LinuxDeviceType::A), Some(7), Some(-1)));
        for text in ["blue", "c 1:3", "c 1:3 x", "d 1:3 r", "c 1 r", "c 1:3 rwm x", "c 1:3 rwmr", "c -1:3 r"] {
            let error = parse_rule(text).unwrap_err();
            assert_eq!(error.message(), format!("invalid device cgroup rule format: '{text}'"));
        }
    }

    #[test]
    fn privileged_sees_the_hosts_devices() {
        let devices = devices(&HostConfig { privileged: true, ..HostConfig::default() }).unwrap();
        let has = |path: &str| devices.nodes.iter().any(|node| node.path() == Path::new(path));
        assert!(has("/dev/null") && !has("/dev/console") && !has("/dev/pts/ptmx"));
        assert_eq!(devices.rules.len(), 1);
    }
}
