//! What the engine is told at start.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    model::{network::Opening, reference::Reference},
    registry::RegistryConfig,
};

/// A pool that networks without a wanted subnet are cut from (`--default-address-pool`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole.
    pub base: IpNet,
    /// Prefix length of each network's part.
    pub size: u8,
}

/// A tcp host that everybody who reaches it can use, which `/info` warns of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHost {
    /// `HOST:PORT`.
    pub address: String,
    /// Whether there is TLS, only without certificates of clients.
    pub is_encrypted: bool,
}

/// Bytes that are kept for jobs to come, unless the configuration says otherwise.
const CACHE_BYTES: u64 = 20 << 30;

/// For how long, likewise.
const CACHE_AGE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Settings of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineConfig {
    /// Where things are kept (`--data-root`).
    pub data_root: PathBuf,
    /// Where things are kept while they run (`--exec-root`).
    pub exec_root: PathBuf,
    /// Names links, rules and cgroups, so that several daemons on one machine do not meet; at most 8 of `[a-z0-9]`.
    pub instance: String,
    /// Runtime of containers that ask for none; empty takes what the probe at start found.
    pub default_runtime: String,
    /// Pools for networks; empty is the built-in list.
    pub address_pools: Vec<AddressPool>,
    /// MTU of all networks; `None` is the uplink's.
    pub mtu: Option<u32>,
    /// Name servers of containers that ask for none; empty takes the host's.
    pub dns: Vec<IpAddr>,
    /// What jobs reach although it is at an address of the machine, or at one that none may reach.
    pub job_openings: Vec<Opening>,
    /// Policy of jobs that are given none; empty is `ci` (`--job-policy`).
    pub job_policy: String,
    /// Folder of policies that jobs name, `NAME.toml` (`--policy-dir`).
    pub policy_dir: Option<PathBuf>,
    /// Images that jobs have from their beginning (`--preload`).
    pub preload: Vec<Reference>,
    /// Registries without TLS or with certificates that nobody signed: `host[:port]` or CIDR.
    pub insecure_registries: Vec<String>,
    /// Authorities that single registries are trusted by beside the machine's, PEM by `host[:port]`.
    pub registry_authorities: BTreeMap<String, String>,
    /// Asked before Docker Hub: URLs.
    pub registry_mirrors: Vec<String>,
    /// Bytes of images that are kept for jobs to come, and the same of cache volumes; `None` is 20 GiB.
    pub cache_max_bytes: Option<u64>,
    /// How long they are kept when no job uses them; `None` is two weeks.
    pub cache_max_age: Option<Duration>,
    /// Whether containers get an init process that reaps, unless they say otherwise (`--init`).
    pub init: bool,
    /// `--debug`, for `/info`.
    pub debug: bool,
    /// Labels of the daemon, for `/info`.
    pub labels: Vec<String>,
    /// Hosts that `/info` warns of.
    pub open_hosts: Vec<OpenHost>,
}

impl EngineConfig {
    /// Where registries are and how far they are trusted.
    pub fn registry(&self) -> RegistryConfig {
        RegistryConfig {
            mirrors: self.registry_mirrors.clone(),
            insecure: self.insecure_registries.clone(),
            authorities: self.registry_authorities.clone(),
            ..RegistryConfig::default()
        }
    }

    /// Bytes that each kind of what is kept for jobs to come may take, and for how long it is kept unused.
    pub fn cache_limits(&self) -> (u64, Duration) {
        (self.cache_max_bytes.unwrap_or(CACHE_BYTES), self.cache_max_age.unwrap_or(CACHE_AGE))
    }
}
