//! `GET /info`.

use indexmap::IndexMap;

use crate::{
    backend::runtime::RuntimeInfo,
    engine::{
        Engine,
        config::OpenHost,
        host::{self, Host},
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::ContainerState,
        system::{
            Commit, FirewallBackend, IndexConfig, Plugins, Pool, RegistryConfig, RuntimePath, SERVER_VERSION, Swarm,
            SystemInfo,
        },
        time::Timestamp,
    },
    oci::{HostFacts, host::CgroupVersion},
};

/// What `docker login` takes for Docker Hub.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

/// Loopback registries may always go without TLS.
const INSECURE_NETWORKS: [&str; 2] = ["::1/128", "127.0.0.0/8"];

impl Engine {
    /// The daemon, its host, and how much the tenant has.
    pub async fn system_info(&self, scope: &Scope) -> Result<SystemInfo> {
        let host = Host::get();
        let limits = self.host.features;
        let counts = self.count_containers(scope);
        let runtime = self.backends.runtime.info();
        let images = self.images.count(scope).await?;
        Ok(SystemInfo {
            id: self.id.as_str().to_owned(),
            containers: counts.running + counts.paused + counts.stopped,
            containers_running: counts.running,
            containers_paused: counts.paused,
            containers_stopped: counts.stopped,
            images,
            driver: self.backends.images.snapshotter().to_owned(),
            driver_status: vec![["driver-type".to_owned(), "io.containerd.snapshotter.v1".to_owned()]],
            plugins: plugins(),
            memory_limit: limits.memory,
            swap_limit: limits.swap,
            cpu_cfs_period: limits.cpu_cfs,
            cpu_cfs_quota: limits.cpu_cfs,
            cpu_shares: limits.cpu_shares,
            cpu_set: limits.cpuset,
            pids_limit: limits.pids,
            ipv4_forwarding: host::forwards_ipv4(),
            debug: self.config.debug,
            fds: host::open_descriptors(),
            oom_kill_disable: limits.oom_kill_disable,
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            system_time: Timestamp::now().to_string(),
            logging_driver: "json-file".to_owned(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: self.host.cgroup.number().to_owned(),
            events_listeners: self.events.listeners(scope.tenant()),
            kernel_version: host.kernel.clone(),
            operating_system: host.os_name.clone(),
            os_version: host.os_version.clone(),
            os_type: "linux".to_owned(),
            architecture: host.machine.clone(),
            index_server_address: INDEX_SERVER.to_owned(),
            registry_config: self.registry_config(scope),
            cpus: self.host.cpus as usize,
            mem_total: host.memory,
            generic_resources: None,
            docker_root_dir: self.config.data_root.display().to_string(),
            http_proxy: proxy("HTTP_PROXY", "http_proxy"),
            https_proxy: proxy("HTTPS_PROXY", "https_proxy"),
            no_proxy: environment("NO_PROXY", "no_proxy"),
            name: host::hostname(),
            labels: self.config.labels.clone(),
            experimental_build: false,
            server_version: SERVER_VERSION.to_owned(),
            runtimes: runtimes(runtime),
            default_runtime: runtime.default_runtime.clone(),
            swarm: Swarm::default(),
            live_restore_enabled: false,
            isolation: String::new(),
            init_binary: runtime.init.as_ref().map(|init| init.name.clone()).unwrap_or_default(),
            containerd_commit: Commit { id: runtime.containerd_commit.clone() },
            runc_commit: Commit { id: default_runtime_commit(runtime) },
            init_commit: Commit { id: runtime.init.as_ref().map(|init| init.commit.clone()).unwrap_or_default() },
            security_options: security_options(&self.host),
            default_address_pools: self.configured_pools(),
            firewall_backend: FirewallBackend { driver: "nftables".to_owned() },
            cdi_spec_dirs: Vec::new(),
            warnings: warnings(&self.host, &self.config.open_hosts, self.backends.builders.is_here()),
        })
    }

    fn count_containers(&self, scope: &Scope) -> Counts {
        let mut counts = Counts::default();
        for container in self.containers.list(scope.tenant()) {
            match container.record().state {
                ContainerState::Running(_) | ContainerState::Restarting(_) => counts.running += 1,
                ContainerState::Paused(_) => counts.paused += 1,
                ContainerState::Created(_)
                | ContainerState::Exited(_)
                | ContainerState::Removing(_)
                | ContainerState::Dead(_) => counts.stopped += 1,
            }
        }
        counts
    }

    fn registry_config(&self, scope: &Scope) -> RegistryConfig {
        let mirrors = self.mirrors_of(scope.as_tenant());
        let (networks, hosts): (Vec<_>, Vec<_>) =
            self.config.insecure_registries.iter().cloned().partition(|entry| entry.contains('/'));
        let hub = IndexConfig { mirrors: mirrors.clone(), name: "docker.io".to_owned(), official: true, secure: true };
        let insecure = |name: String| IndexConfig { mirrors: Vec::new(), name, official: false, secure: false };
        let mut index_configs = IndexMap::from([("docker.io".to_owned(), hub)]);
        index_configs.extend(hosts.into_iter().map(|host| (host.clone(), insecure(host))));
        let insecure_registry_cidrs = INSECURE_NETWORKS.iter().map(ToString::to_string).chain(networks).collect();
        RegistryConfig { index_configs, insecure_registry_cidrs, mirrors }
    }

    fn configured_pools(&self) -> Vec<Pool> {
        let pools = self.config.address_pools.iter();
        pools.map(|pool| Pool { base: pool.base.to_string(), size: pool.size }).collect()
    }
}

#[derive(Default)]
struct Counts {
    running: usize,
    paused: usize,
    stopped: usize,
}

fn plugins() -> Plugins {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Plugins {
        volume: list(&["local"]),
        network: list(&["bridge", "host", "null"]),
        authorization: None,
        log: list(&["json-file", "local", "none"]),
    }
}

fn runtimes(info: &RuntimeInfo) -> IndexMap<String, RuntimePath> {
    info.runtimes.iter().map(|runtime| (runtime.name.clone(), RuntimePath { path: runtime.path.clone() })).collect()
}

fn default_runtime_commit(info: &RuntimeInfo) -> String {
    let default = info.runtimes.iter().find(|runtime| runtime.name == info.default_runtime);
    default.map(|runtime| runtime.commit.clone()).unwrap_or_default()
}

/// Containers get a cgroup namespace of their own by default only where there is one tree.
fn security_options(host: &HostFacts) -> Vec<String> {
    let mut options = Vec::new();
    if host.seccomp {
        options.push("name=seccomp,profile=builtin".to_owned());
    }
    if host.cgroup == CgroupVersion::V2 {
        options.push("name=cgroupns".to_owned());
    }
    options
}

fn warnings(host: &HostFacts, open_hosts: &[OpenHost], has_buildkit: bool) -> Vec<String> {
    let mut warnings = host::missing_limits(host);
    if !host::forwards_ipv4() {
        warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
    }
    if !has_buildkit {
        warnings.push(format!("WARNING: {}", Error::no_buildkit().message()));
    }
    warnings.extend(open_hosts.iter().map(open_host_warning));
    warnings
}

/// docker CLI prints it after `docker info`, with these line breaks.
fn open_host_warning(host: &OpenHost) -> String {
    let (scheme, lacks) = if host.is_encrypted { ("https", "TLS client verification") } else { ("http", "encryption") };
    format!(
        "WARNING: API is accessible on {scheme}://{} without {lacks}.\n         Access to the remote API is equivalent to \
         root access on the host. Refer\n         to the 'Docker daemon attack surface' section in the documentation \
         for\n         more information: https://docs.docker.com/go/attack-surface/",
        host.address
    )
}

fn environment(upper: &str, lower: &str) -> String {
    std::env::var(upper).or_else(|_| std::env::var(lower)).unwrap_or_default()
}

fn proxy(upper: &str, lower: &str) -> String {
    without_credentials(environment(upper, lower))
}

/// `http://user:secret@host` becomes `http://xxxxx:xxxxx@host`.
fn without_credentials(url: String) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://xxxxx:xxxxx@{host}"),
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_proxy_are_masked() {
        assert_eq!(without_credentials("http://a:b@c:1".to_owned()), "http://xxxxx:xxxxx@c:1");
        assert_eq!(without_credentials("http://c:1".to_owned()), "http://c:1");
    }
}
