//! What each request wants of the machine. What is a default wants nothing.

use indexmap::IndexMap;

use super::{Asked, Demand, Value, entries::capability};
use crate::model::{
    container::{
        CgroupnsMode, DeviceMapping, DeviceRequest, Effective, HostConfig, IpcMode, MountKind, NetworkMode, PidMode,
        PortBinding, ReadOnlyDepth, SourceRoot, Ulimit, UsernsMode, UtsMode, mount_spec::WantedMount,
    },
    network::EndpointSettings,
    path::clean_absolute,
    policy::Key,
};

/// Log drivers that keep a log among the daemon's own files, or none.
const OWN_LOG_DRIVERS: [&str; 3] = ["", "json-file", "none"];

/// Kernel's own limits and weights where nothing is said.
const DEFAULT_CPU_SHARES: i64 = 1024;
const DEFAULT_CPU_PERIOD: i64 = 100_000;
const DEFAULT_BLKIO_WEIGHT: i64 = 500;

/// All that is demanded, in the order of the rules.
pub(super) fn of(asked: Asked<'_>) -> Vec<Demand> {
    let mut demands = Demands::default();
    match asked {
        Asked::Call(operation) => demands.word(Key::Calls, operation),
        Asked::Create(effective) => demands.create(effective),
        Asked::Update { before, after } => demands.update(before, after),
        Asked::Exec { privileged } => demands.flag(Key::ExecPrivileged, privileged),
        Asked::Build(host_config) => {
            demands.flag(Key::BuildHostNetwork, host_config.network_mode == NetworkMode::Host);
            demands.host_config(host_config);
        }
        Asked::NetworkCreate(request) => demands.words(Key::NetworkOptions, request.options.keys()),
        Asked::NetworkConnect(settings) => demands.endpoint(settings),
        Asked::VolumeCreate(options) => demands.volume(options),
        Asked::Pull(reference) => {
            demands.word(Key::Registries, reference.registry());
            demands.word(Key::Pull, &reference.to_string());
        }
        Asked::Push(reference) => {
            demands.word(Key::Registries, reference.registry());
            demands.word(Key::Push, &reference.to_string());
        }
        Asked::Registry(host) => demands.word(Key::Registries, host),
        Asked::Load => demands.flag(Key::Load, true),
    }
    demands.0
}

#[derive(Default)]
struct Demands(Vec<Demand>);

impl Demands {
    fn add(&mut self, key: Key, value: Value) {
        self.0.push(Demand { key, value });
    }

    fn flag(&mut self, key: Key, is_wanted: bool) {
        if is_wanted {
            self.add(key, Value::Flag);
        }
    }

    fn word(&mut self, key: Key, word: &str) {
        self.add(key, Value::Word(word.to_owned()));
    }

    fn words<'w>(&mut self, key: Key, words: impl IntoIterator<Item = &'w String>) {
        words.into_iter().for_each(|word| self.word(key, word));
    }

    fn path(&mut self, key: Key, path: &str, read_only: bool) {
        self.add(key, Value::Path { path: clean_absolute(path), read_only });
    }

    fn create(&mut self, effective: &Effective) {
        let host_config = &effective.host_config;
        self.host_config(host_config);
        let is_host = |name: &str| name == "host";
        let joins_host = effective.attachments.iter().any(|attachment| is_host(&attachment.name));
        self.flag(Key::HostNetwork, host_config.network_mode == NetworkMode::Host || joins_host);
        for path in &effective.uncovered_paths {
            self.path(Key::SystemPaths, path, false);
        }
        for mount in effective.mounts.iter().filter(|mount| !mount.is_inherited && !mount.is_own) {
            self.mount(mount);
        }
        self.words(Key::Runtimes, &effective.other_runtime);
        for attachment in &effective.attachments {
            self.endpoint(&attachment.settings);
        }
        if host_config.network_mode != NetworkMode::Host {
            self.published(host_config);
        }
    }

    fn host_config(&mut self, config: &HostConfig) {
        self.flag(Key::Privileged, config.privileged);
        for name in config.cap_add.iter().flatten() {
            self.word(Key::Capabilities, &capability(name));
        }
        for device in config.devices.iter().flatten() {
            self.device(device);
        }
        self.words(Key::DeviceRules, config.device_cgroup_rules.iter().flatten());
        for request in config.device_requests.iter().flatten() {
            self.word(Key::DeviceRequests, &device_request(request));
        }
        for (name, is_wanted) in [
            ("pid", config.pid_mode == PidMode::Host),
            ("ipc", config.ipc_mode == IpcMode::Host),
            ("uts", config.uts_mode == UtsMode::Host),
            ("user", config.userns_mode == UsernsMode::Host),
            ("cgroup", config.cgroupns_mode == CgroupnsMode::Host),
        ] {
            if is_wanted {
                self.word(Key::Namespaces, name);
            }
        }
        for option in config.security_opt.iter().flatten() {
            self.word(Key::SecurityOpt, &security_option(option));
        }
        self.words(Key::Sysctls, config.sysctls.iter().flatten().map(|(key, _)| key));
        self.words(Key::Annotations, config.annotations.iter().flatten().map(|(key, _)| key));
        for ulimit in config.ulimits.iter().flatten() {
            self.ulimit(ulimit);
        }
        if config.oom_score_adj < 0 {
            self.add(Key::OomScoreAdj, Value::Number(config.oom_score_adj));
        }
        self.flag(Key::OomKillDisable, config.oom_kill_disable == Some(true));
        if !config.cgroup_parent.is_empty() {
            self.word(Key::CgroupParent, &config.cgroup_parent);
        }
        let driver = config.log_config.kind.as_str();
        if !OWN_LOG_DRIVERS.contains(&driver) {
            self.word(Key::LogDrivers, driver);
        }
    }

    fn device(&mut self, device: &DeviceMapping) {
        let can_write = device.cgroup_permissions.is_empty() || device.cgroup_permissions.contains('w');
        self.path(Key::Devices, &device.path_on_host, !can_write);
    }

    fn ulimit(&mut self, ulimit: &Ulimit) {
        let limits = [ulimit.soft, ulimit.hard].map(|limit| u64::try_from(limit).ok());
        let highest = match limits {
            [Some(soft), Some(hard)] => Some(soft.max(hard)),
            _ => None,
        };
        self.add(Key::Ulimits, Value::Limit { name: ulimit.name.clone(), highest });
    }

    fn mount(&mut self, mount: &WantedMount) {
        let point = &mount.point;
        match point.kind {
            MountKind::Bind => {
                if matches!(point.root, SourceRoot::Machine | SourceRoot::Exact) {
                    // What is mounted below stays writable where it is said so.
                    let read_only = !point.rw && point.read_only_depth != ReadOnlyDepth::Shallow;
                    self.path(Key::Binds, &point.source, read_only);
                }
                if point.propagation_given {
                    self.word(Key::Propagation, &point.propagation);
                }
            }
            MountKind::Volume => self.volume(&mount.volume_options),
            MountKind::Tmpfs | MountKind::Image => {}
        }
    }

    /// Options of the driver `local`, which mounts by them.
    fn volume(&mut self, options: &IndexMap<String, String>) {
        if options.is_empty() {
            return;
        }
        let said = |key: &str| options.get(key).map_or("", String::as_str);
        let binds = said("o").split(',').any(|option| matches!(option, "bind" | "rbind"));
        self.word(Key::VolumeMounts, if binds { "bind" } else { said("type") });
    }

    fn endpoint(&mut self, settings: &EndpointSettings) {
        self.words(Key::NetworkOptions, settings.driver_opts.iter().flatten().map(|(key, _)| key));
    }

    fn published(&mut self, config: &HostConfig) {
        if config.publish_all_ports {
            self.add(Key::Publish, Value::Ports { address: None, ports: None });
        }
        let bindings = config.port_bindings.iter().flatten().filter_map(|(_, bindings)| bindings.as_ref());
        for binding in bindings.flatten() {
            self.add(Key::Publish, published(binding));
        }
    }

    /// What an update makes wider. Where there was no limit, none is lifted.
    fn update(&mut self, before: &HostConfig, after: &HostConfig) {
        let cpuset = |before: &str, after: &str| !before.is_empty() && before != after;
        let widened = [
            ("memory", is_lifted(before.memory, after.memory)),
            ("memory-swap", is_lifted(swap_limit(before), swap_limit(after))),
            ("cpus", is_lifted(before.nano_cpus, after.nano_cpus) || quota_is_lifted(before, after)),
            ("cpu-shares", or(after.cpu_shares, DEFAULT_CPU_SHARES) > or(before.cpu_shares, DEFAULT_CPU_SHARES)),
            ("cpu-realtime", after.cpu_realtime_runtime > before.cpu_realtime_runtime),
            (
                "cpuset",
                cpuset(&before.cpuset_cpus, &after.cpuset_cpus) || cpuset(&before.cpuset_mems, &after.cpuset_mems),
            ),
            (
                "blkio-weight",
                or(after.blkio_weight.into(), DEFAULT_BLKIO_WEIGHT)
                    > or(before.blkio_weight.into(), DEFAULT_BLKIO_WEIGHT),
            ),
            ("pids", is_lifted(before.pids_limit.unwrap_or(0), after.pids_limit.unwrap_or(0))),
        ];
        for (name, _) in widened.into_iter().filter(|(_, is_wider)| *is_wider) {
            self.word(Key::Update, name);
        }
    }
}

fn or(value: i64, default: i64) -> i64 {
    if value == 0 { default } else { value }
}

/// Of limits for which zero and less mean none.
fn is_lifted(before: i64, after: i64) -> bool {
    before > 0 && (after <= 0 || after > before)
}

/// Memory and swap together: twice the memory where nothing is said.
fn swap_limit(config: &HostConfig) -> i64 {
    if config.memory_swap == 0 { config.memory.saturating_mul(2) } else { config.memory_swap }
}

fn quota_is_lifted(before: &HostConfig, after: &HostConfig) -> bool {
    let period = |config: &HostConfig| i128::from(or(config.cpu_period, DEFAULT_CPU_PERIOD));
    let (was, is) = (i128::from(before.cpu_quota), i128::from(after.cpu_quota));
    was > 0 && (is <= 0 || is * period(before) > was * period(after))
}

fn device_request(request: &DeviceRequest) -> String {
    if !request.driver.is_empty() {
        return request.driver.clone();
    }
    let wanted: Vec<&str> = request.capabilities.iter().flatten().flatten().map(String::as_str).collect();
    wanted.join(",")
}

/// An option as rules write it: `name=value`, whichever way a client writes it. A profile that is sent whole is named.
fn security_option(option: &str) -> String {
    let separator = if option.contains('=') { '=' } else { ':' };
    match option.split_once(separator) {
        None if option == "no-new-privileges" => "no-new-privileges=true".to_owned(),
        None if option == "disable" => "label=disable".to_owned(),
        None => option.to_owned(),
        Some(("seccomp", profile)) if profile.trim_start().starts_with('{') => "seccomp=profile".to_owned(),
        Some((name, "1" | "t" | "T" | "TRUE" | "True")) => format!("{name}=true"),
        Some((name, "0" | "f" | "F" | "FALSE" | "False")) => format!("{name}=false"),
        Some((name, value)) => format!("{name}={value}"),
    }
}

fn published(binding: &PortBinding) -> Value {
    let address = binding.host_ip.parse().ok().filter(|address: &std::net::IpAddr| !address.is_unspecified());
    let ports = match binding.host_port.split_once('-') {
        Some((first, last)) => first.parse().ok().zip(last.parse().ok()),
        None => binding.host_port.parse().ok().map(|port: u16| (port, port)),
    };
    Value::Ports { address, ports: ports.filter(|(first, _)| *first != 0) }
}
