//! What a step may be, whatever its build says: buildkitd is told to grant nothing more, and this is the wall behind it. What it
//! makes a specification of comes from its clients, some of it as they wrote it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::{Error, Result};

/// Capabilities of a container that asks for none and is given none, which steps have.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Namespaces that a step has of its own.
const NAMESPACES: [&str; 4] = ["ipc", "mount", "pid", "uts"];

/// What lies in the way of a snapshotter's own folder, wherever containerd has it.
const SNAPSHOTTER: &str = "/io.containerd.snapshotter.v1.";

/// Refuses a specification that is more than a container's which asks for nothing. `folders` are those of its builder.
pub(super) fn check(spec: &Value, folders: &[PathBuf]) -> Result<()> {
    let none = Vec::new();
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let sets = spec["process"]["capabilities"].as_object().into_iter().flat_map(|sets| sets.values());
    for capability in sets.flat_map(|set| set.as_array().unwrap_or(&none)) {
        let name = capability.as_str().unwrap_or_default();
        if !CAPABILITIES.contains(&name) {
            return Err(refused("capabilities", &format!("with {name}")));
        }
    }
    if !spec["linux"]["seccomp"].is_object() {
        return Err(refused("security_options", "without a seccomp profile"));
    }
    if !list(&spec["linux"]["devices"]).is_empty() {
        return Err(refused("devices", "with devices"));
    }
    if list(&spec["linux"]["resources"]["devices"]).iter().any(|rule| rule["allow"] == true) {
        return Err(refused("devices", "that may use devices"));
    }
    if !spec["hooks"].is_null() {
        return Err(refused("privileged", "with hooks"));
    }
    let namespaces = list(&spec["linux"]["namespaces"]);
    for name in NAMESPACES {
        let is_own =
            |namespace: &Value| namespace["type"] == name && namespace["path"].as_str().is_none_or(str::is_empty);
        if !namespaces.iter().any(is_own) {
            return Err(refused("host_namespaces", &format!("without a {name} namespace of its own")));
        }
    }
    for mount in list(&spec["mounts"]) {
        let options = list(&mount["options"]);
        let is_bind = mount["type"] == "bind" || options.iter().any(|option| option == "bind" || option == "rbind");
        let source = mount["source"].as_str().unwrap_or_default();
        if is_bind && !is_of_builder(source, folders) {
            return Err(refused("binds", &format!("that binds {source}")));
        }
    }
    Ok(())
}

fn is_of_builder(source: &str, folders: &[PathBuf]) -> bool {
    let walks_up = source.split('/').any(|part| part == "..");
    !walks_up && (source.contains(SNAPSHOTTER) || folders.iter().any(|folder| Path::new(source).starts_with(folder)))
}

fn refused(rule: &str, what: &str) -> Error {
    Error::forbidden(format!("a build's step {what} is refused: no build is given what the rule {rule} is about"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As buildkitd 0.34 makes it.
    fn step() -> Value {
        json!({
            "process": {"capabilities": {"bounding": CAPABILITIES, "effective": ["CAP_CHOWN"]}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/etc/hosts", "type": "bind", "source": "/data/buildkit/default/hosts", "options": ["rbind", "ro"]},
                {"destination": "/c", "type": "bind", "source": "/d/io.containerd.snapshotter.v1.overlayfs/snapshots/11/fs"},
            ],
            "linux": {
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
                "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
            },
        })
    }

    #[test]
    fn only_a_plain_step_goes_through() {
        let folders = [PathBuf::from("/data/buildkit/default")];
        check(&step(), &folders).unwrap();
        let bind = |source: &str| json!({"destination": "/x", "type": "none", "source": source, "options": ["rbind"]});
        for (pointer, value, told) in [
            ("/process/capabilities/effective", json!(["CAP_SYS_ADMIN"]), "CAP_SYS_ADMIN"),
            ("/linux/seccomp", Value::Null, "seccomp"),
            ("/linux/devices", json!([{"path": "/dev/sda"}]), "devices"),
            ("/linux/resources/devices/0/allow", json!(true), "devices"),
            ("/hooks", json!({"prestart": []}), "hooks"),
            ("/linux/namespaces/0", json!({"type": "pid", "path": "/proc/1/ns/pid"}), "pid namespace"),
            ("/linux/namespaces/3", Value::Null, "mount namespace"),
            ("/mounts/0", bind("/"), "binds /"),
            ("/mounts/0", bind("/data/buildkit/default/../../etc"), "binds"),
            ("/mounts/0", bind("/data/buildkit/default2"), "binds"),
        ] {
            let mut spec = step();
            let (above, name) = pointer.rsplit_once('/').unwrap();
            match spec.pointer_mut(above).unwrap() {
                Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
                other => other[name] = value,
            }
            let error = check(&spec, &folders).unwrap_err();
            assert!(error.message().contains(told), "{pointer}: {error}");
        }
    }
}
