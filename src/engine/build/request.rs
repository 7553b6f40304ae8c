//! What a client asks of a build.

use indexmap::IndexMap;

use crate::{
    dockerfile::args::Arguments,
    model::{
        container::{HostConfig, LogConfig, NetworkMode, Ulimit},
        image::Platform,
        reference::Reference,
        registry_auth::RegistryAuth,
    },
    registry::registry_of,
};

/// A build.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Path of the Dockerfile in the context; empty for `Dockerfile`.
    pub dockerfile: String,
    /// Where the context is instead of in the body: the URL of a tar, of a Dockerfile, of a Git repository.
    pub remote: String,
    /// Names for the image.
    pub tags: Vec<String>,
    /// Only the image's id is told.
    pub quiet: bool,
    /// Nothing built before is used.
    pub no_cache: bool,
    /// Images are pulled also where they are here.
    pub pull: bool,
    /// Containers of steps are removed after success.
    pub remove: bool,
    /// And after a failure.
    pub force_remove: bool,
    /// Stage that is the last.
    pub target: String,
    /// Values for `ARG`.
    pub arguments: Arguments,
    /// Labels for the image.
    pub labels: IndexMap<String, String>,
    /// Images whose history is looked into, instead of what was built here.
    pub cache_from: Vec<String>,
    /// For which platform; this machine's if none.
    pub platform: Option<Platform>,
    /// Credentials by registry.
    pub credentials: IndexMap<String, RegistryAuth>,
    /// How containers of steps run.
    pub limits: BuildLimits,
}

/// What containers of steps may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildLimits {
    /// `networkmode`
    pub network_mode: NetworkMode,
    /// `extrahosts`
    pub extra_hosts: Vec<String>,
    /// `shmsize`
    pub shm_size: i64,
    /// `ulimits`
    pub ulimits: Vec<Ulimit>,
    /// `memory`
    pub memory: i64,
    /// `memswap`
    pub memory_swap: i64,
    /// `cpushares`
    pub cpu_shares: i64,
    /// `cpuperiod`
    pub cpu_period: i64,
    /// `cpuquota`
    pub cpu_quota: i64,
    /// `cpusetcpus`
    pub cpuset_cpus: String,
    /// `cpusetmems`
    pub cpuset_mems: String,
    /// `cgroupparent`
    pub cgroup_parent: String,
}

impl BuildLimits {
    /// For a step's container, which keeps no log.
    pub fn host_config(&self) -> HostConfig {
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        HostConfig {
            log_config: LogConfig { kind: "none".to_owned(), ..LogConfig::default() },
            network_mode: match &self.network_mode {
                NetworkMode::Unset => NetworkMode::Default,
                mode => mode.clone(),
            },
            extra_hosts: some(&self.extra_hosts),
            shm_size: self.shm_size,
            ulimits: (!self.ulimits.is_empty()).then(|| self.ulimits.clone()),
            memory: self.memory,
            memory_swap: self.memory_swap,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            ..HostConfig::default()
        }
    }
}

impl BuildRequest {
    /// The Dockerfile's name.
    pub fn dockerfile_name(&self) -> &str {
        if self.dockerfile.is_empty() { "Dockerfile" } else { &self.dockerfile }
    }

    /// Credentials for the registry of an image: the key is its host, perhaps as a URL; Docker Hub has two names.
    pub fn credentials_for(&self, reference: &Reference) -> RegistryAuth {
        let wanted = reference.registry();
        self.credentials
            .iter()
            .find(|(key, _)| registry_of(key) == wanted)
            .map(|(_, auth)| auth.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_host() {
        let auth = |user: &str| RegistryAuth { username: user.to_owned(), ..RegistryAuth::default() };
        let request = BuildRequest {
            credentials: [("https://index.docker.io/v1/", "hub"), ("reg.test:5000", "own")]
                .map(|(key, user)| (key.to_owned(), auth(user)))
                .into_iter()
                .collect(),
            ..BuildRequest::default()
        };
        let user = |name: &str| request.credentials_for(&Reference::parse(name).unwrap()).username;
        assert_eq!((user("alpine"), user("reg.test:5000/x")), ("hub".to_owned(), "own".to_owned()));
        assert_eq!(user("other.test/x"), "");
    }
}
