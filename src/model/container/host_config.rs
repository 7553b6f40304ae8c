//! `HostConfig`: how this host runs a container.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{CgroupnsMode, IpcMode, NetworkMode, PidMode, RestartMode, UsernsMode, UtsMode};
use crate::model::network::null_is_default;

/// `LogConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// `json-file`, `local`, `none`; empty is the daemon's default.
    #[serde(rename = "Type", deserialize_with = "null_is_default")]
    pub kind: String,
    /// Options of the driver.
    #[serde(deserialize_with = "null_is_default")]
    pub config: IndexMap<String, String>,
}

/// `PortBindings[port][]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// The host's address; empty is the network's default.
    #[serde(deserialize_with = "null_is_default")]
    pub host_ip: String,
    /// Empty, a number or a range `8000-8010`.
    #[serde(deserialize_with = "null_is_default")]
    pub host_port: String,
}

/// `RestartPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// Empty or `no`, `always`, `unless-stopped`, `on-failure`.
    #[serde(deserialize_with = "null_is_default")]
    pub name: RestartMode,
    /// For `on-failure`; 0 is no limit.
    #[serde(deserialize_with = "null_is_default")]
    pub maximum_retry_count: i64,
}

/// `Devices[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// On the host.
    #[serde(deserialize_with = "null_is_default")]
    pub path_on_host: String,
    /// In the container.
    #[serde(deserialize_with = "null_is_default")]
    pub path_in_container: String,
    /// Some of `rwm`.
    #[serde(deserialize_with = "null_is_default")]
    pub cgroup_permissions: String,
}

/// `DeviceRequests[]`: GPUs and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceRequest {
    /// Whose.
    #[serde(deserialize_with = "null_is_default")]
    pub driver: String,
    /// How many; -1 is all.
    #[serde(deserialize_with = "null_is_default")]
    pub count: i64,
    /// Which.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    /// What they must be able to do.
    pub capabilities: Option<Vec<Vec<String>>>,
    /// Options of the driver.
    pub options: Option<IndexMap<String, String>>,
}

/// `Ulimits[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// `nofile` …
    pub name: String,
    /// Hard limit, -1 for none.
    pub hard: i64,
    /// Soft limit, -1 for none.
    pub soft: i64,
}

/// `BlkioWeightDevice[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WeightDevice {
    /// The device's path.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// `BlkioDeviceReadBps[]` and its like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ThrottleDevice {
    /// The device's path.
    pub path: String,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// `Mounts[].TmpfsOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// 0 is no limit.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub size_bytes: i64,
    /// File mode; 0 is 1777.
    #[serde(skip_serializing_if = "is_zero_mode", deserialize_with = "null_is_default")]
    pub mode: u32,
    /// Further mount options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<Vec<String>>>,
}

/// `Mounts[].VolumeOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// Do not fill an empty volume from the image.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub no_copy: bool,
    /// Labels of a volume made by the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<IndexMap<String, String>>,
    /// A folder within the volume.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub subpath: String,
    /// Of a volume made by the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
}

/// `Mounts[].VolumeOptions.DriverConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverConfig {
    /// The driver; empty is `local`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// Options of the driver.
    #[serde(skip_serializing_if = "IndexMap::is_empty", deserialize_with = "null_is_default")]
    pub options: IndexMap<String, String>,
}

/// `Mounts[].BindOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(clippy::struct_excessive_bools, reason = "Docker's fields")]
pub struct BindOptions {
    /// `rprivate` and its like.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub propagation: String,
    /// Without the mounts below.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub non_recursive: bool,
    /// Make a source that is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub create_mountpoint: bool,
    /// Mounts below stay writable.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub read_only_non_recursive: bool,
    /// Fail where mounts below cannot be read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub read_only_force_recursive: bool,
}

/// `Mounts[].ImageOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageOptions {
    /// A folder within the image.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub subpath: String,
}

/// `Mounts[].ClusterOptions`, which has no fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterOptions {}

/// `Mounts[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountRequest {
    /// `bind`, `volume`, `tmpfs`; others are refused.
    #[serde(rename = "Type", deserialize_with = "null_is_default")]
    pub kind: String,
    /// Path on the host or the volume's name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub source: String,
    /// Path in the container.
    #[serde(deserialize_with = "null_is_default")]
    pub target: String,
    /// Not writable.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub read_only: bool,
    /// Of Docker Desktop.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub consistency: String,
    /// For binds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_options: Option<ImageOptions>,
    /// For tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
    /// Of swarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_options: Option<ClusterOptions>,
}

/// `HostConfig` of create and inspect. Fields stand in the order in which dockerd writes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `source:destination[:options]`.
    pub binds: Option<Vec<String>>,
    /// Where the CLI wrote the id.
    #[serde(rename = "ContainerIDFile", deserialize_with = "null_is_default")]
    pub container_id_file: String,
    /// Log driver.
    #[serde(deserialize_with = "null_is_default")]
    pub log_config: LogConfig,
    /// `default`, `bridge`, `host`, `none`, `container:X` or a network.
    #[serde(deserialize_with = "null_is_default")]
    pub network_mode: NetworkMode,
    /// Published ports.
    pub port_bindings: Option<IndexMap<String, Option<Vec<PortBinding>>>>,
    /// When to start again.
    #[serde(deserialize_with = "null_is_default")]
    pub restart_policy: RestartPolicy,
    /// Remove after the end.
    #[serde(deserialize_with = "null_is_default")]
    pub auto_remove: bool,
    /// Driver of volumes made by the way.
    #[serde(deserialize_with = "null_is_default")]
    pub volume_driver: String,
    /// `container[:ro]`.
    pub volumes_from: Option<Vec<String>>,
    /// Height and width of the client's terminal.
    #[serde(deserialize_with = "null_is_default")]
    pub console_size: [u32; 2],
    /// Annotations of the OCI spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<IndexMap<String, String>>,
    /// Capabilities to add.
    pub cap_add: Option<Vec<String>>,
    /// Capabilities to drop.
    pub cap_drop: Option<Vec<String>>,
    /// `host`, `private` or empty.
    #[serde(deserialize_with = "null_is_default")]
    pub cgroupns_mode: CgroupnsMode,
    /// Name servers.
    #[serde(deserialize_with = "null_is_default")]
    pub dns: Option<Vec<String>>,
    /// Resolver options.
    #[serde(deserialize_with = "null_is_default")]
    pub dns_options: Option<Vec<String>>,
    /// Search domains.
    #[serde(deserialize_with = "null_is_default")]
    pub dns_search: Option<Vec<String>>,
    /// `name:address`.
    pub extra_hosts: Option<Vec<String>>,
    /// Supplementary groups.
    pub group_add: Option<Vec<String>>,
    /// `none`, `private`, `shareable`, `container:X`, `host` or empty.
    #[serde(deserialize_with = "null_is_default")]
    pub ipc_mode: IpcMode,
    /// Not used.
    #[serde(deserialize_with = "null_is_default")]
    pub cgroup: String,
    /// Legacy links.
    pub links: Option<Vec<String>>,
    /// -1000 to 1000.
    #[serde(deserialize_with = "null_is_default")]
    pub oom_score_adj: i64,
    /// `host`, `container:X` or empty.
    #[serde(deserialize_with = "null_is_default")]
    pub pid_mode: PidMode,
    /// All capabilities and devices.
    #[serde(deserialize_with = "null_is_default")]
    pub privileged: bool,
    /// Publish every exposed port.
    #[serde(deserialize_with = "null_is_default")]
    pub publish_all_ports: bool,
    /// Root file system not writable.
    #[serde(deserialize_with = "null_is_default")]
    pub readonly_rootfs: bool,
    /// `seccomp=…`, `apparmor=…`, `label=…`, `no-new-privileges`.
    pub security_opt: Option<Vec<String>>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_opt: Option<IndexMap<String, String>>,
    /// Path → options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<IndexMap<String, String>>,
    /// `host` or empty.
    #[serde(rename = "UTSMode", deserialize_with = "null_is_default")]
    pub uts_mode: UtsMode,
    /// `host` or empty.
    #[serde(deserialize_with = "null_is_default")]
    pub userns_mode: UsernsMode,
    /// Bytes of `/dev/shm`; 0 is 64 MiB.
    #[serde(deserialize_with = "null_is_default")]
    pub shm_size: i64,
    /// Kernel settings of the container's namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<IndexMap<String, String>>,
    /// Name of the runtime.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub runtime: String,
    /// Of Windows.
    #[serde(deserialize_with = "null_is_default")]
    pub isolation: String,
    /// Relative weight.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu_shares: i64,
    /// Bytes.
    #[serde(deserialize_with = "null_is_default")]
    pub memory: i64,
    /// 10⁻⁹ CPUs.
    #[serde(rename = "NanoCpus", alias = "NanoCPUs", deserialize_with = "null_is_default")]
    pub nano_cpus: i64,
    /// Parent cgroup.
    #[serde(deserialize_with = "null_is_default")]
    pub cgroup_parent: String,
    /// 10 to 1000.
    #[serde(deserialize_with = "null_is_default")]
    pub blkio_weight: u16,
    /// Per device.
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Per device.
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Per device.
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Per device.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Per device.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// Microseconds.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu_period: i64,
    /// Microseconds.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu_quota: i64,
    /// Microseconds.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu_realtime_period: i64,
    /// Microseconds.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu_realtime_runtime: i64,
    /// `0-2,7`.
    #[serde(deserialize_with = "null_is_default")]
    pub cpuset_cpus: String,
    /// `0-1`.
    #[serde(deserialize_with = "null_is_default")]
    pub cpuset_mems: String,
    /// Devices.
    pub devices: Option<Vec<DeviceMapping>>,
    /// `c 1:3 rwm`.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// GPUs and the like.
    pub device_requests: Option<Vec<DeviceRequest>>,
    /// Not carried out by any kernel of today.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub kernel_memory: i64,
    /// Not carried out by any kernel of today.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub kernel_memory_tcp: i64,
    /// Bytes.
    #[serde(deserialize_with = "null_is_default")]
    pub memory_reservation: i64,
    /// Bytes of memory and swap; -1 is no limit.
    #[serde(deserialize_with = "null_is_default")]
    pub memory_swap: i64,
    /// 0 to 100; -1 or absent inherits.
    pub memory_swappiness: Option<i64>,
    /// No OOM killer.
    pub oom_kill_disable: Option<bool>,
    /// 0, -1 or absent is no limit.
    pub pids_limit: Option<i64>,
    /// Limits.
    pub ulimits: Option<Vec<Ulimit>>,
    /// Of Windows.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu_count: i64,
    /// Of Windows.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu_percent: i64,
    /// Of Windows.
    #[serde(rename = "IOMaximumIOps", deserialize_with = "null_is_default")]
    pub io_maximum_iops: u64,
    /// Of Windows.
    #[serde(rename = "IOMaximumBandwidth", deserialize_with = "null_is_default")]
    pub io_maximum_bandwidth: u64,
    /// Mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<MountRequest>>,
    /// Paths that are hidden; absent is Docker's list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that are not writable; absent is Docker's list.
    pub readonly_paths: Option<Vec<String>>,
    /// An init process that reaps; absent is the daemon's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

impl HostConfig {
    /// Whether any port is to be published at one of the host's that was named.
    pub fn binds_ports(&self) -> bool {
        self.port_bindings.as_ref().is_some_and(|bindings| !bindings.is_empty())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_mode(mode: &u32) -> bool {
    *mode == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_of_go_clients_mean_default() {
        let json = r#"{"Binds":null,"LogConfig":{"Type":"","Config":null},"RestartPolicy":{"Name":""},"ConsoleSize":[0,0],"Dns":null,
            "PortBindings":null,"PidsLimit":null,"Memory":0,"MemorySwappiness":-1,"Ulimits":null,"NanoCpus":0}"#;
        let config: HostConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config, HostConfig { memory_swappiness: Some(-1), ..HostConfig::default() });
    }
}
