//! What `/info` and `/version` say about the daemon. Fields stand in the order in which dockerd writes them.

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

/// Version that we call ourselves towards clients. They read it as Docker's and some refuse small numbers
/// (testcontainers for Java wants 1.6 at least, scripts compare with 20.10), so it begins with that of the Docker
/// Engine whose API we speak; what follows the plus is ours, as distributions mark their builds (`28.5.2+dfsg4`).
pub const SERVER_VERSION: &str = concat!("29.2.0+ringer.", env!("CARGO_PKG_VERSION"));

/// Name in `Platform`, which `docker version` prints as the server's headline.
pub const PLATFORM_NAME: &str = "ringer";

/// `GET /version`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SystemVersion {
    /// Who we are.
    pub platform: Platform,
    /// Our parts: engine, containerd, OCI runtime, init.
    pub components: Vec<Component>,
    /// [`SERVER_VERSION`].
    pub version: String,
    /// Newest version of the API.
    pub api_version: String,
    /// Oldest version of the API.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Commit we were built from, if the build knew it.
    pub git_commit: String,
    /// [`GO_VERSION`].
    pub go_version: String,
    /// `linux`.
    pub os: String,
    /// As Go names it: `amd64`.
    pub arch: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// When our program was built.
    pub build_time: String,
}

/// What we were built with, where dockerd tells its Go: clients read the key.
pub const GO_VERSION: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));

/// `Platform` of `/version`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Platform {
    /// [`PLATFORM_NAME`].
    pub name: String,
}

/// One of `Components`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Component {
    /// `Engine`, `containerd`, `runc`, `docker-init`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `GitCommit`, and more of the engine.
    pub details: IndexMap<String, String>,
}

/// `GET /info`, as the newest version of the API has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SystemInfo {
    /// Stays the same over restarts.
    #[serde(rename = "ID")]
    pub id: String,
    /// Containers in all.
    pub containers: usize,
    /// Of which running.
    pub containers_running: usize,
    /// Of which paused.
    pub containers_paused: usize,
    /// Of which neither.
    pub containers_stopped: usize,
    /// Images.
    pub images: usize,
    /// Snapshotter.
    pub driver: String,
    /// Facts on the driver, name and value.
    pub driver_status: Vec<[String; 2]>,
    /// Drivers by kind.
    pub plugins: Plugins,
    /// Memory limits work.
    pub memory_limit: bool,
    /// Swap limits work.
    pub swap_limit: bool,
    /// CPU periods work.
    pub cpu_cfs_period: bool,
    /// CPU quotas work.
    pub cpu_cfs_quota: bool,
    /// CPU shares work.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// CPU sets work.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Limits of processes work.
    pub pids_limit: bool,
    /// The kernel forwards.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// `--debug`.
    pub debug: bool,
    /// Open descriptors of the daemon.
    #[serde(rename = "NFd")]
    pub fds: usize,
    /// The OOM killer can be switched off for a container (cgroup v1).
    pub oom_kill_disable: bool,
    /// Tasks of the daemon.
    #[serde(rename = "NGoroutines")]
    pub tasks: usize,
    /// Now.
    pub system_time: String,
    /// Default log driver.
    pub logging_driver: String,
    /// `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Listeners of events.
    #[serde(rename = "NEventsListener")]
    pub events_listeners: usize,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution's name.
    pub operating_system: String,
    /// Its version.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`. gitlab-runner refuses others.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// As the kernel names it: `x86_64`. Agents make their platform label from it.
    pub architecture: String,
    /// Docker Hub's, which `docker login` takes for its default.
    pub index_server_address: String,
    /// Mirrors and registries without TLS.
    pub registry_config: RegistryConfig,
    /// CPUs that the daemon may use.
    #[serde(rename = "NCPU")]
    pub cpus: usize,
    /// Bytes of memory.
    pub mem_total: u64,
    /// Of swarm; always null.
    pub generic_resources: Option<()>,
    /// `--data-root`.
    pub docker_root_dir: String,
    /// The daemon's own proxy, without credentials.
    pub http_proxy: String,
    /// The same for https.
    pub https_proxy: String,
    /// What is fetched without proxy.
    pub no_proxy: String,
    /// The host's name.
    pub name: String,
    /// `--label`.
    pub labels: Vec<String>,
    /// Always false.
    pub experimental_build: bool,
    /// [`SERVER_VERSION`].
    pub server_version: String,
    /// OCI runtimes by name.
    pub runtimes: IndexMap<String, RuntimePath>,
    /// That of containers that ask for none.
    pub default_runtime: String,
    /// Always inactive.
    pub swarm: Swarm,
    /// Always false.
    pub live_restore_enabled: bool,
    /// Of Windows; empty.
    pub isolation: String,
    /// Program that reaps with `--init`.
    pub init_binary: String,
    /// containerd's commit.
    pub containerd_commit: Commit,
    /// The OCI runtime's commit.
    pub runc_commit: Commit,
    /// The init program's commit.
    pub init_commit: Commit,
    /// `name=seccomp,profile=builtin` …
    pub security_options: Vec<String>,
    /// Pools given by flags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_address_pools: Vec<Pool>,
    /// What carries NAT and published ports.
    pub firewall_backend: FirewallBackend,
    /// Folders of CDI specs: none.
    #[serde(rename = "CDISpecDirs")]
    pub cdi_spec_dirs: Vec<String>,
    /// What people should know of this host; nothing is `null`, as with dockerd.
    #[serde(serialize_with = "empty_as_null")]
    pub warnings: Vec<String>,
}

/// Writes an empty list as `null`: as Go has a list that nothing was ever added to.
fn empty_as_null<S: Serializer>(list: &Vec<String>, serializer: S) -> Result<S::Ok, S::Error> {
    Some(list).filter(|list| !list.is_empty()).serialize(serializer)
}

/// `Plugins`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Plugins {
    /// Volume drivers.
    pub volume: Vec<String>,
    /// Network drivers.
    pub network: Vec<String>,
    /// Always null.
    pub authorization: Option<()>,
    /// Log drivers.
    pub log: Vec<String>,
}

/// `RegistryConfig`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegistryConfig {
    /// Docker Hub and the insecure ones by name.
    pub index_configs: IndexMap<String, IndexConfig>,
    /// Networks whose registries may go without TLS.
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Vec<String>,
    /// Asked before Docker Hub; without any it is `null`, as with dockerd 28.
    #[serde(serialize_with = "empty_as_null")]
    pub mirrors: Vec<String>,
}

/// A registry in `IndexConfigs`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IndexConfig {
    /// Asked before it.
    pub mirrors: Vec<String>,
    /// Its host.
    pub name: String,
    /// Whether it is Docker Hub.
    pub official: bool,
    /// Whether it must have TLS.
    pub secure: bool,
}

/// A runtime's program.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimePath {
    /// Where it is.
    pub path: String,
}

/// `Swarm` of a node that is in none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Swarm {
    /// Empty.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Empty.
    pub node_addr: String,
    /// `inactive`; act, compose and docker inspect ask for it.
    pub local_node_state: String,
    /// False.
    pub control_available: bool,
    /// Empty.
    pub error: String,
    /// Null.
    pub remote_managers: Option<()>,
}

impl Default for Swarm {
    fn default() -> Self {
        Self {
            node_id: String::new(),
            node_addr: String::new(),
            local_node_state: "inactive".to_owned(),
            control_available: false,
            error: String::new(),
            remote_managers: None,
        }
    }
}

/// A program's commit.
#[derive(Clone, Debug, Serialize)]
pub struct Commit {
    /// The commit, or the version where that is all we know.
    #[serde(rename = "ID")]
    pub id: String,
}

/// One of `DefaultAddressPools`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    /// The whole.
    pub base: String,
    /// Prefix length of the parts.
    pub size: u8,
}

/// `FirewallBackend`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FirewallBackend {
    /// `nftables`.
    pub driver: String,
}
