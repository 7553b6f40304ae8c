//! Values that mean something, for [`super::fields`]: most fields are fine with a word, a number, or true.

use serde_json::{Value, json};

/// The calls whose bodies are sent: all with a JSON body. What needs a swarm is refused as a whole.
pub const OPERATIONS: [&str; 10] = [
    "ContainerCreate",
    "ContainerUpdate",
    "ContainerExec",
    "ExecStart",
    "ImageCommit",
    "NetworkCreate",
    "NetworkConnect",
    "NetworkDisconnect",
    "VolumeCreate",
    "SystemAuth",
];

/// What bodies may refer to, made in this order.
pub fn world() -> Vec<(&'static str, Value)> {
    vec![
        (
            "/networks/create",
            json!({
                "Name": "other",
                "EnableIPv6": true,
                "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24" }, { "Subnet": "fd00:9::/64" }] },
            }),
        ),
        ("/volumes/create", json!({ "Name": "there" })),
        (
            "/containers/create?name=runs",
            json!({ "Image": "box", "Cmd": ["sleep", "1000"], "OpenStdin": true, "Volumes": { "/data": {} } }),
        ),
        ("/containers/runs/start", Value::Null),
    ]
}

/// Fields that do something that no inspect shows, and the tests that show it.
const TESTED: [(&str, &str, &str); 13] = [
    (
        "ContainerCreate",
        "HostConfig.Runtime",
        "src/containerd/runtimes.rs an_empty_name_is_the_default_and_an_unknown_one_is_refused",
    ),
    ("ContainerExec", "ConsoleSize", "tests/integration/containers.rs exec_start_says_how"),
    ("ContainerExec", "DetachKeys", "src/api/containers/session.rs detach_keys_are_found_across_reads"),
    ("ContainerExec", "User", "tests/integration/containers.rs exec_has_streams_user_folder_and_code"),
    ("ContainerExec", "Env", "tests/integration/containers.rs exec_has_streams_user_folder_and_code"),
    ("ContainerExec", "WorkingDir", "tests/integration/containers.rs exec_has_streams_user_folder_and_code"),
    ("ExecStart", "Detach", "tests/integration/containers.rs exec_start_says_how"),
    ("ExecStart", "Tty", "tests/integration/containers.rs exec_start_says_how"),
    ("ExecStart", "ConsoleSize", "tests/integration/containers.rs exec_start_says_how"),
    (
        "NetworkDisconnect",
        "Container",
        "src/engine/networks/tests.rs a_running_container_is_connected_and_disconnected",
    ),
    ("SystemAuth", "username", "src/registry/tests.rs login_tells_right_from_wrong"),
    ("SystemAuth", "password", "src/registry/tests.rs login_tells_right_from_wrong"),
    ("SystemAuth", "serveraddress", "src/registry/tests.rs login_tells_right_from_wrong"),
];

const ONLY_ANSWERED: &str = "stands in answers only; clients send back what inspect told them";

/// Fields that ask for nothing, here or with dockerd, and why.
const VOID: [(&str, &str, &str); 1] =
    [("NetworkDisconnect", "Force", "no endpoint outlives its container, so that there is nothing to force")];

/// Of a container's configuration, what dockerd 28 keeps in no image either.
const OF_CONTAINERS_ALONE: [&str; 10] = [
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "NetworkDisabled",
];

const NETWORK_ID: &str = "the network is named already, by the key or by the path";

/// Of an endpoint, below both calls that have one.
const ENDPOINT_ANSWERS: [&str; 8] = [
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "DNSNames",
];

/// Why a field asks for nothing.
pub fn void(operation: &str, field: &str) -> Option<&'static str> {
    let endpoint =
        field.strip_prefix("NetworkingConfig.EndpointsConfig{}.").or_else(|| field.strip_prefix("EndpointConfig."));
    if endpoint.is_some_and(|name| ENDPOINT_ANSWERS.contains(&name)) {
        return Some(ONLY_ANSWERED);
    }
    if endpoint == Some("NetworkID") {
        return Some(NETWORK_ID);
    }
    if operation == "ImageCommit" && OF_CONTAINERS_ALONE.contains(&field) {
        return Some("a container's alone: no image has it, as with dockerd since it keeps OCI images");
    }
    VOID.iter().find(|(of, name, _)| (*of, *name) == (operation, field)).map(|(_, _, reason)| *reason)
}

/// The test of such a field.
pub fn tested(operation: &str, field: &str) -> Option<&'static str> {
    TESTED.iter().find(|(of, name, _)| (*of, *name) == (operation, field)).map(|(_, _, test)| *test)
}

/// The body around a field.
pub fn context(operation: &str, field: &str) -> Value {
    let is = |prefix: &str| field == prefix || field.starts_with(&format!("{prefix}."));
    let host = |config: Value| json!({ "Image": "box", "Cmd": ["sleep"], "HostConfig": config });
    match operation {
        "ContainerCreate" if is("Healthcheck") => {
            json!({ "Image": "box", "Cmd": ["sleep"], "Healthcheck": { "Test": ["CMD", "true"] } })
        }
        "ContainerCreate" if is("HostConfig.Mounts[].VolumeOptions") => {
            host(json!({ "Mounts": [{ "Type": "volume", "Source": "there", "Target": "/mounted" }] }))
        }
        "ContainerCreate" if is("HostConfig.Mounts[].ImageOptions") => {
            host(json!({ "Mounts": [{ "Type": "image", "Source": "box", "Target": "/mounted" }] }))
        }
        "ContainerCreate" if is("HostConfig.Mounts[].TmpfsOptions") => {
            host(json!({ "Mounts": [{ "Type": "tmpfs", "Target": "/mounted" }] }))
        }
        "ContainerCreate" if is("HostConfig.Mounts[].BindOptions.CreateMountpoint") => {
            host(json!({ "Mounts": [{ "Type": "bind", "Source": "/nowhere/at/all", "Target": "/mounted" }] }))
        }
        "ContainerCreate"
            if is("HostConfig.Mounts[].BindOptions.ReadOnlyNonRecursive")
                || is("HostConfig.Mounts[].BindOptions.ReadOnlyForceRecursive") =>
        {
            host(
                json!({ "Mounts": [{ "Type": "bind", "Source": "/etc", "Target": "/mounted", "ReadOnly": true, "BindOptions": { "Propagation": "rprivate" } }] }),
            )
        }
        "ContainerCreate" if is("HostConfig.Mounts[]") => {
            host(json!({ "Mounts": [{ "Type": "bind", "Source": "/etc", "Target": "/mounted" }] }))
        }
        "ContainerCreate" if is("HostConfig.LogConfig") => host(json!({ "LogConfig": { "Type": "json-file" } })),
        "ContainerCreate" if is("HostConfig.RestartPolicy.MaximumRetryCount") => {
            host(json!({ "RestartPolicy": { "Name": "on-failure" } }))
        }
        "ContainerCreate"
            if is("HostConfig.OomKillDisable") || is("HostConfig.MemorySwap") || is("HostConfig.MemoryReservation") =>
        {
            host(json!({ "Memory": 512 << 20 }))
        }
        "ContainerCreate" if is("HostConfig.Ulimits[]") => {
            host(json!({ "Ulimits": [{ "Name": "nofile", "Soft": 10, "Hard": 20 }] }))
        }
        "ContainerCreate" if is("HostConfig.Devices[]") => host(json!({
            "Devices": [{ "PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "rwm" }]
        })),
        "ContainerCreate" if is("HostConfig.DeviceRequests[]") => {
            host(json!({ "DeviceRequests": [{ "Count": 1, "Capabilities": [["gpu"]] }] }))
        }
        "ContainerCreate" if is("HostConfig.PortBindings{}[]") => host(json!({ "PortBindings": { "80/tcp": [{}] } })),
        "ContainerCreate" if is("HostConfig.Links") => json!({ "Image": "box", "Cmd": ["sleep"] }),
        "ContainerCreate" if is("NetworkingConfig.EndpointsConfig{}") => json!({
            "Image": "box",
            "Cmd": ["sleep"],
            "HostConfig": { "NetworkMode": "other" },
            "NetworkingConfig": { "EndpointsConfig": { "other": {} } },
        }),
        "ContainerCreate" => json!({ "Image": "box", "Cmd": ["sleep"] }),
        // Not to be changed: a warning is due for any of it.
        "ContainerUpdate" if field.contains("[]") => json!({}),
        // A limit without one for swap is refused, as with dockerd.
        "ContainerUpdate" if is("Memory") => json!({ "MemorySwap": 1 << 30 }),
        "ContainerUpdate" if is("MemoryReservation") || is("OomKillDisable") => {
            json!({ "Memory": 512 << 20, "MemorySwap": 1 << 30 })
        }
        "ContainerUpdate" => {
            let create = context("ContainerCreate", &format!("HostConfig.{field}"));
            create.get("HostConfig").cloned().unwrap_or_else(|| json!({}))
        }
        "ImageCommit" if is("Healthcheck") => json!({ "Healthcheck": { "Test": ["CMD", "true"] } }),
        "ImageCommit" => json!({}),
        "ContainerExec" if field == "Cmd" => json!({}),
        "ContainerExec" if field == "ConsoleSize" => json!({ "Cmd": ["true"], "Tty": true }),
        "ContainerExec" => json!({ "Cmd": ["true"] }),
        "NetworkCreate" if field.starts_with("IPAM.Config[]") => {
            json!({ "Name": "probe", "IPAM": { "Config": [{ "Subnet": "10.8.0.0/16" }] } })
        }
        "NetworkCreate" if field == "EnableIPv4" => {
            json!({ "Name": "probe", "EnableIPv6": true, "IPAM": { "Config": [{ "Subnet": "fd00:8::/64" }] } })
        }
        "NetworkCreate" if field == "ConfigFrom.Network" => json!({ "Name": "probe" }),
        "NetworkCreate" => json!({ "Name": "probe", "IPAM": { "Config": [{ "Subnet": "10.8.0.0/16" }] } }),
        "NetworkConnect" => json!({ "Container": "probe", "EndpointConfig": {} }),
        "VolumeCreate" => json!({ "Name": "probe" }),
        other => panic!("what is around a field of {other}?"),
    }
}

/// The key in a map of objects.
pub fn key(path: &str) -> &'static str {
    match path {
        "HostConfig.PortBindings" => "80/tcp",
        "NetworkingConfig.EndpointsConfig" => "other",
        _ => "key",
    }
}

/// A value that is not the default.
pub fn sample(operation: &str, field: &str, shape: &Value) -> Value {
    let endpoint =
        field.strip_prefix("NetworkingConfig.EndpointsConfig{}.").or_else(|| field.strip_prefix("EndpointConfig."));
    if let Some(name) = endpoint {
        match name {
            "IPAMConfig.IPv4Address" => return json!("10.9.0.77"),
            "IPAMConfig.IPv6Address" => return json!("fd00:9::77"),
            "IPAMConfig.LinkLocalIPs" => return json!(["169.254.8.8"]),
            "MacAddress" => return json!("02:00:00:00:00:77"),
            "Links" => return json!(["runs:alias"]),
            _ => {}
        }
    }
    match (operation, field) {
        ("ContainerCreate", _) => match field {
            "ExposedPorts" => json!({ "80/tcp": {} }),
            "Volumes" => json!({ "/sample": {} }),
            "Env" => json!(["A=b"]),
            "Image" => json!("box:latest"),
            "WorkingDir" => json!("/sample"),
            "Healthcheck.Test" => json!(["CMD", "false"]),
            "Healthcheck.Interval"
            | "Healthcheck.Timeout"
            | "Healthcheck.StartPeriod"
            | "Healthcheck.StartInterval" => {
                json!(1_000_000_000)
            }
            "StopSignal" => json!("SIGINT"),
            _ => match field.strip_prefix("HostConfig.").unwrap_or_default() {
                "Memory" => json!(64 << 20),
                "MemoryReservation" => json!(64 << 20),
                "MemorySwap" => json!(768 << 20),
                "CgroupParent" => json!("/sample"),
                "BlkioWeight" => json!(100),
                "CpuPeriod" => json!(50_000),
                "CpuQuota" => json!(20_000),
                "CpuRealtimePeriod" => json!(1_000_000),
                "CpuRealtimeRuntime" => json!(1000),
                "CpusetCpus" | "CpusetMems" => json!("0"),
                "NanoCpus" => json!(500_000_000),
                "DeviceCgroupRules" => json!(["c 1:3 mr"]),
                "Devices[].PathInContainer" => json!("/dev/other"),
                "Devices[].PathOnHost" => json!("/dev/zero"),
                "Devices[].CgroupPermissions" => json!("r"),
                "Ulimits[].Name" => json!("core"),
                "Binds" => json!(["/:/sample"]),
                "LogConfig.Type" => json!("local"),
                "LogConfig.Config" => json!({ "max-size": "1m" }),
                "NetworkMode" => json!("host"),
                "PortBindings{}[].HostIp" => json!("127.0.0.1"),
                "PortBindings{}[].HostPort" => json!("8080"),
                "RestartPolicy.Name" => json!("always"),
                "VolumeDriver" => json!("other"),
                "VolumesFrom" => json!(["runs"]),
                "Mounts[].Target" => json!("/other"),
                "Mounts[].Source" => json!("/dev"),
                "Mounts[].Type" => json!("bind"),
                "Mounts[].Consistency" => json!("cached"),
                "Mounts[].BindOptions.Propagation" => json!("rslave"),
                "Mounts[].VolumeOptions.DriverConfig.Name" => json!("other"),
                "Mounts[].TmpfsOptions.SizeBytes" => json!(1 << 20),
                "Mounts[].TmpfsOptions.Mode" => json!(0o700),
                "Mounts[].TmpfsOptions.Options" => json!([["noexec"]]),
                "ConsoleSize" => json!([24, 80]),
                "CapAdd" | "CapDrop" => json!(["NET_ADMIN"]),
                "CgroupnsMode" => json!("private"),
                "Dns" => json!(["1.1.1.1"]),
                "ExtraHosts" => json!(["sample:1.2.3.4"]),
                "IpcMode" | "PidMode" | "UTSMode" | "UsernsMode" => json!("host"),
                "Links" => json!(["runs:alias"]),
                "SecurityOpt" => json!(["no-new-privileges"]),
                "StorageOpt" => json!({ "size": "1G" }),
                "Tmpfs" => json!({ "/sample": "size=1m" }),
                "Sysctls" => json!({ "net.ipv4.ip_forward": "1" }),
                "Runtime" => json!("runc"),
                "Isolation" => json!("hyperv"),
                "MaskedPaths" | "ReadonlyPaths" => json!(["/sample"]),
                _ => plain(shape),
            },
        },
        ("ContainerUpdate", _) => sample("ContainerCreate", &format!("HostConfig.{field}"), shape),
        ("ImageCommit", _) => sample("ContainerCreate", field, shape),
        ("ContainerExec", "Env") => json!(["A=b"]),
        ("ContainerExec", "ConsoleSize") => json!([24, 80]),
        ("ContainerExec", "DetachKeys") => json!("ctrl-a"),
        ("NetworkCreate", "Name") => json!("probe"),
        ("NetworkCreate", "Driver") => json!("other"),
        ("NetworkCreate", "Options") => json!({ "com.docker.network.driver.mtu": "1400" }),
        ("NetworkCreate", "Scope") => json!("swarm"),
        ("NetworkCreate", "EnableIPv4") => json!(false),
        ("NetworkCreate", "IPAM.Driver") => json!("other"),
        ("NetworkCreate", "IPAM.Config[].Subnet") => json!("10.7.0.0/16"),
        ("NetworkCreate", "IPAM.Config[].IPRange") => json!("10.8.7.0/24"),
        ("NetworkCreate", "IPAM.Config[].Gateway") => json!("10.8.7.7"),
        ("NetworkCreate", "IPAM.Config[].AuxiliaryAddresses") => json!({ "key": "10.8.7.8" }),
        ("NetworkConnect", "Container") => json!("probe"),
        ("VolumeCreate", "Name") => json!("probe"),
        ("VolumeCreate", "Driver") => json!("other"),
        ("VolumeCreate", "ClusterVolumeSpec.AccessMode.MountVolume") => json!({ "FsType": "ext4" }),
        ("VolumeCreate", "DriverOpts") => json!({ "type": "tmpfs", "device": "tmpfs" }),
        _ => plain(shape),
    }
}

fn plain(shape: &Value) -> Value {
    match shape {
        Value::Array(items) => json!([plain(&items[0])]),
        Value::Object(fields) => json!({ "key": fields.get("*").map_or(json!({}), plain) }),
        Value::String(name) => match name.split_once(':').map_or((name.as_str(), ""), |(name, words)| (name, words)) {
            ("boolean", _) => json!(true),
            ("integer" | "number", _) => json!(7),
            ("string", "") => json!("sample"),
            ("string", words) => json!(words.split('|').find(|word| !word.is_empty())),
            _ => json!({}),
        },
        _ => json!({}),
    }
}
