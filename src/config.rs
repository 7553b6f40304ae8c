//! Level 4: what the daemon is told, by flags named as dockerd's and by a TOML file whose keys are the flags'
//! names. A flag wins over the file.

mod accepted;
pub mod run;
mod tls;

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use ipnet::{IpNet, Ipv4Net};
use ringer::{
    edge::server::{DEFAULT_GROUP, ListenAddress, TlsFiles},
    engine::config::{AddressPool, EngineConfig},
    model::{
        Error, Result,
        error::Context,
        network::{Opening, Protocol},
    },
    network::JobNetworks,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use self::accepted::AcceptedOptions;
use crate::cli::values::{Bytes, Image, Seconds, read_as_flags};

/// Flags of `ringer serve`, and keys of its file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ServeOptions {
    /// Where to listen: unix:///PATH, tcp://[HOST][:PORT] or fd:// [default: unix://EXEC_ROOT/docker.sock, or
    /// tcp://localhost:2376 with TLS]
    #[arg(short = 'H', long, value_name = "HOST")]
    pub host: Vec<String>,
    /// Folder of what is kept [default: /var/lib/ringer]
    #[arg(long, value_name = "PATH")]
    pub data_root: Option<PathBuf>,
    /// Folder of what is kept while it runs [default: /run/ringer]
    #[arg(long, value_name = "PATH")]
    pub exec_root: Option<PathBuf>,
    /// File for the daemon's process number [default: EXEC_ROOT/ringer.pid]
    #[arg(short, long, value_name = "PATH")]
    pub pidfile: Option<PathBuf>,
    /// Group that may use the unix sockets [default: docker]
    #[arg(short = 'G', long, value_name = "GROUP")]
    pub group: Option<String>,
    /// TLS on tcp hosts, and only for clients with a certificate; implied by --tlsverify
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub tls: Option<bool>,
    /// TLS on tcp hosts; with false also for clients without a certificate
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub tlsverify: Option<bool>,
    /// Certificates of those who sign clients' certificates [default: ~/.docker/ca.pem]
    #[arg(long, value_name = "PATH")]
    pub tlscacert: Option<PathBuf>,
    /// The daemon's certificate [default: ~/.docker/cert.pem]
    #[arg(long, value_name = "PATH")]
    pub tlscert: Option<PathBuf>,
    /// Key of the daemon's certificate [default: ~/.docker/key.pem]
    #[arg(long, value_name = "PATH")]
    pub tlskey: Option<PathBuf>,
    /// Name by which pages in browsers may use a tcp host without TLS, besides addresses, localhost and names without dots
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Where the admin API of jobs is, for root alone: unix:///PATH [default: unix://EXEC_ROOT/admin.sock]
    #[arg(long, value_name = "HOST")]
    pub admin_host: Option<String>,
    /// Where the page, the numbers for Prometheus and /healthz are, for whoever reaches it: ADDRESS:PORT or unix:///PATH; `ringer run` has
    /// [http] listen for it [default: nowhere]
    #[arg(long, value_name = "HOST")]
    pub http_host: Option<String>,
    /// Socket of a running containerd; without it, ringer runs one of its own
    #[arg(long, value_name = "ADDRESS")]
    pub containerd: Option<PathBuf>,
    /// The program buildkitd, by which BuildKit builds [default: buildkitd in PATH or beside ringer, if it is there]
    #[arg(long, value_name = "PATH")]
    pub buildkitd: Option<PathBuf>,
    /// How long it runs when nobody uses it, such as 30m [default: 10m]
    #[arg(long, value_name = "DURATION")]
    pub buildkitd_idle: Option<Seconds>,
    /// Namespace within containerd [default: ringer]
    #[arg(long, value_name = "NAME")]
    pub containerd_namespace: Option<String>,
    /// OCI runtime of containers that ask for none: runc, crun or a shim's name [default: crun where it works, else runc]
    #[arg(long, value_name = "NAME")]
    pub default_runtime: Option<String>,
    /// Registry without TLS or with a certificate that nobody signed: HOST[:PORT] or CIDR
    #[arg(long, value_name = "REGISTRY")]
    pub insecure_registry: Vec<String>,
    /// URL that is asked before Docker Hub
    #[arg(long, value_name = "URL")]
    pub registry_mirror: Vec<String>,
    /// Pool that networks are cut from: base=CIDR,size=PREFIX
    #[arg(long, value_name = "POOL")]
    pub default_address_pool: Vec<PoolOption>,
    /// MTU of networks [default: the uplink's]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Name server of containers that ask for none [default: the host's]
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// Pool that the addresses of jobs' ways out are cut from [default: what is free of 198.18.0.0/15 and 100.64.0.0/10]
    #[arg(long, value_name = "CIDR")]
    pub job_address_pool: Vec<Ipv4Net>,
    /// What jobs reach although it is at an address of this machine: PROTOCOL:ADDRESS:PORT
    #[arg(long, value_name = "PLACE")]
    pub job_allow: Vec<OpeningOption>,
    /// Destination that no job reaches, beside this machine, other jobs and clouds' metadata
    #[arg(long, value_name = "CIDR")]
    pub job_deny: Vec<IpNet>,
    /// Policy of jobs that are given none: trusted, ci, strict, or a name of --policy-dir [default: ci]
    #[arg(long, value_name = "NAME")]
    pub job_policy: Option<String>,
    /// Folder of policies that jobs name, NAME.toml each
    #[arg(long, value_name = "PATH")]
    pub policy_dir: Option<PathBuf>,
    /// Image that every job has from its beginning: that of the default socket, pulled at start if it is not there
    #[arg(long, value_name = "IMAGE")]
    pub preload: Vec<Image>,
    /// File of who changed what, rotated there [default: DATA_ROOT/audit.log]
    #[arg(long, value_name = "PATH")]
    pub audit_log: Option<PathBuf>,
    /// Room for images that are kept for jobs to come, the same for cache volumes, and for each build cache, such as 20g [default: 20g]
    #[arg(long, value_name = "BYTES")]
    pub cache_max_bytes: Option<Bytes>,
    /// How long they are kept when no job uses them, such as 72h [default: 336h]
    #[arg(long, value_name = "DURATION")]
    pub cache_max_age: Option<Seconds>,
    /// Give every container an init process that reaps
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub init: Option<bool>,
    /// Label of this daemon, KEY=VALUE
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// What to log [default: info]
    #[arg(short, long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Log everything
    #[arg(short = 'D', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub debug: Option<bool>,
    /// Seconds that requests and containers may take to end when the daemon stops [default: 15]
    #[arg(long, value_name = "SECONDS")]
    pub shutdown_timeout: Option<u64>,
    /// Name of this daemon's links, rules and cgroups, at most 8 of a-z and 0-9 [default: made from the data root]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// TOML file with any of these
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub config_file: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip)]
    accepted: AcceptedOptions,
}

/// `--log-level`, in dockerd's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Milestones and worse.
    #[default]
    Info,
    /// What was coped with and worse.
    Warn,
    /// What someone should look at.
    Error,
    /// As `error`.
    Fatal,
}

impl LogLevel {
    /// The word that tracing knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error | Self::Fatal => "error",
        }
    }
}

/// `base=10.0.0.0/8,size=24`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct PoolOption(AddressPool);

impl FromStr for PoolOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::invalid(format!("invalid address pool {text:?}: expected base=CIDR,size=PREFIX"));
        let (mut base, mut size) = (None, None);
        for part in text.split(',') {
            match part.trim().split_once('=').ok_or_else(invalid)? {
                ("base", value) => base = Some(value.parse::<IpNet>().map_err(|_| invalid())?),
                ("size", value) => size = Some(value.parse::<u8>().map_err(|_| invalid())?),
                _ => return Err(invalid()),
            }
        }
        let (base, size) = base.zip(size).ok_or_else(invalid)?;
        if size < base.prefix_len() || size > base.max_prefix_len() {
            return Err(Error::invalid(format!("invalid address pool {text:?}: size is not within {base}")));
        }
        Ok(Self(AddressPool { base: base.trunc(), size }))
    }
}

/// `tcp:192.0.2.2:3000`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct OpeningOption(Opening);

impl FromStr for OpeningOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid =
            || Error::invalid(format!("invalid place {text:?}: expected tcp:ADDRESS:PORT or udp:ADDRESS:PORT"));
        let (protocol, address) = text.split_once(':').ok_or_else(invalid)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(invalid()),
        };
        Ok(Self(Opening { protocol, address: address.parse().map_err(|_| invalid())? }))
    }
}

read_as_flags!(PoolOption, OpeningOption);

/// The listener that only tells, and takes webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where it is.
    pub address: ListenAddress,
    /// What people and forges call it.
    pub public_url: Option<String>,
}

impl Http {
    /// At an address that has its port: Docker's is no default of it.
    fn at(listen: &str) -> Result<Self> {
        let address: ListenAddress = listen.parse()?;
        let has_port = listen.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        match address {
            ListenAddress::Tcp(..) if !has_port => {
                Err(Error::invalid(format!("{listen:?} has no port: expected ADDRESS:PORT")))
            }
            address => Ok(Self { address, public_url: None }),
        }
    }
}

/// What the daemon runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listener that only tells, if there is one: `ringer run` reads it.
    pub http: Option<Http>,
    /// Where to listen.
    pub hosts: Vec<ListenAddress>,
    /// Group of the unix sockets.
    pub group: String,
    /// Certificates of the tcp hosts; `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Names by which pages in browsers may use the tcp hosts without TLS.
    pub allowed_hosts: Vec<String>,
    /// Where it is written down who changed what.
    pub audit_log: PathBuf,
    /// Where the admin API is.
    pub admin_socket: PathBuf,
    /// File for our process number.
    pub pidfile: PathBuf,
    /// A running containerd's socket; `None` for one of our own.
    pub containerd: Option<PathBuf>,
    /// buildkitd, as it was named.
    pub buildkitd: Option<PathBuf>,
    /// How long it runs when nobody uses it.
    pub buildkitd_idle: Duration,
    /// Namespace within containerd.
    pub containerd_namespace: String,
    /// How long stopping may take.
    pub shutdown_timeout: Duration,
    /// What to log.
    pub log_level: LogLevel,
    /// What the engine is told.
    pub engine: EngineConfig,
    /// What the network adapter is told of jobs.
    pub job_networks: JobNetworks,
    /// For the log, once there is one.
    pub warnings: Vec<String>,
}

const BUILDKITD_IDLE: Duration = Duration::from_secs(600);
const DATA_ROOT: &str = "/var/lib/ringer";
const EXEC_ROOT: &str = "/run/ringer";
/// What the daemon with the default folders is called.
pub const NAME: &str = "ringer";

impl Config {
    /// Lays the flags over the file and fills in the defaults.
    pub fn resolve(flags: ServeOptions) -> Result<Self> {
        let warnings = flags.accepted.check()?;
        let file = match &flags.config_file {
            Some(path) => {
                let text = fs::read_to_string(path).context(format!("reading {}", path.display()))?;
                parse_file(&text).map_err(|error| error.context(path.display()))?
            }
            None => ServeOptions::default(),
        };
        flags.over(file).filled(warnings)
    }
}

/// toml's message quotes the line and points at the key.
fn parse_file(text: &str) -> Result<ServeOptions> {
    toml::from_str(text).map_err(|error| Error::invalid(error.to_string().trim_end().to_owned()))
}

impl ServeOptions {
    /// What both say: these, and `file` where these say nothing. Lists are not joined, so that a flag can shorten one.
    fn over(self, file: Self) -> Self {
        fn list<T>(flags: Vec<T>, file: Vec<T>) -> Vec<T> {
            if flags.is_empty() { file } else { flags }
        }
        Self {
            host: list(self.host, file.host),
            data_root: self.data_root.or(file.data_root),
            exec_root: self.exec_root.or(file.exec_root),
            pidfile: self.pidfile.or(file.pidfile),
            group: self.group.or(file.group),
            tls: self.tls.or(file.tls),
            tlsverify: self.tlsverify.or(file.tlsverify),
            tlscacert: self.tlscacert.or(file.tlscacert),
            tlscert: self.tlscert.or(file.tlscert),
            tlskey: self.tlskey.or(file.tlskey),
            allowed_host: list(self.allowed_host, file.allowed_host),
            admin_host: self.admin_host.or(file.admin_host),
            http_host: self.http_host.or(file.http_host),
            containerd: self.containerd.or(file.containerd),
            buildkitd: self.buildkitd.or(file.buildkitd),
            buildkitd_idle: self.buildkitd_idle.or(file.buildkitd_idle),
            containerd_namespace: self.containerd_namespace.or(file.containerd_namespace),
            default_runtime: self.default_runtime.or(file.default_runtime),
            insecure_registry: list(self.insecure_registry, file.insecure_registry),
            registry_mirror: list(self.registry_mirror, file.registry_mirror),
            default_address_pool: list(self.default_address_pool, file.default_address_pool),
            mtu: self.mtu.or(file.mtu),
            dns: list(self.dns, file.dns),
            job_address_pool: list(self.job_address_pool, file.job_address_pool),
            job_allow: list(self.job_allow, file.job_allow),
            job_deny: list(self.job_deny, file.job_deny),
            job_policy: self.job_policy.or(file.job_policy),
            policy_dir: self.policy_dir.or(file.policy_dir),
            preload: list(self.preload, file.preload),
            audit_log: self.audit_log.or(file.audit_log),
            cache_max_bytes: self.cache_max_bytes.or(file.cache_max_bytes),
            cache_max_age: self.cache_max_age.or(file.cache_max_age),
            init: self.init.or(file.init),
            label: list(self.label, file.label),
            log_level: self.log_level.or(file.log_level),
            debug: self.debug.or(file.debug),
            shutdown_timeout: self.shutdown_timeout.or(file.shutdown_timeout),
            instance: self.instance.or(file.instance),
            config_file: self.config_file,
            accepted: self.accepted,
        }
    }

    fn filled(self, mut warnings: Vec<String>) -> Result<Config> {
        let tls = tls::files(&self);
        let data_root = self.data_root.unwrap_or_else(|| DATA_ROOT.into());
        let exec_root = self.exec_root.unwrap_or_else(|| EXEC_ROOT.into());
        for folder in [&data_root, &exec_root] {
            if !folder.is_absolute() {
                return Err(Error::invalid(format!("{} is not an absolute path", folder.display())));
            }
        }
        let instance = match self.instance {
            Some(name) => checked_instance(name)?,
            None => instance_of(&data_root),
        };
        let namespace = match self.containerd_namespace {
            Some(name) => name,
            // Daemons that share a containerd must not share containers.
            None if self.containerd.is_some() && instance != NAME => format!("{NAME}-{instance}"),
            None => NAME.to_owned(),
        };
        let hosts = if !self.host.is_empty() {
            self.host.iter().map(|host| host.parse()).collect::<Result<_>>()?
        } else if tls.is_some() {
            vec![ListenAddress::Tcp(tls::DEFAULT_HOST.0.to_owned(), tls::DEFAULT_HOST.1)]
        } else {
            vec![ListenAddress::Unix(exec_root.join("docker.sock"))]
        };
        let open_hosts = tls::open_hosts(&hosts, tls.as_ref());
        warnings.extend(open_hosts.iter().map(tls::warning));
        let debug = self.debug.unwrap_or(false);
        let containerd =
            self.containerd.map(|address| match address.to_str().and_then(|text| text.strip_prefix("unix://")) {
                Some(path) => path.into(),
                None => address,
            });
        Ok(Config {
            http: self.http_host.as_deref().map(Http::at).transpose().map_err(|error| error.context("--http-host"))?,
            hosts,
            group: self.group.unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
            tls,
            allowed_hosts: self.allowed_host,
            audit_log: self.audit_log.unwrap_or_else(|| data_root.join("audit.log")),
            admin_socket: admin_socket(self.admin_host, &exec_root)?,
            pidfile: self.pidfile.unwrap_or_else(|| exec_root.join("ringer.pid")),
            containerd,
            buildkitd: self.buildkitd,
            buildkitd_idle: self.buildkitd_idle.map_or(BUILDKITD_IDLE, |Seconds(seconds)| Duration::from_secs(seconds)),
            containerd_namespace: namespace,
            shutdown_timeout: Duration::from_secs(self.shutdown_timeout.unwrap_or(15)),
            log_level: if debug { LogLevel::Debug } else { self.log_level.unwrap_or_default() },
            engine: EngineConfig {
                data_root,
                exec_root,
                instance,
                default_runtime: self.default_runtime.unwrap_or_default(),
                address_pools: self.default_address_pool.into_iter().map(|PoolOption(pool)| pool).collect(),
                mtu: self.mtu,
                dns: self.dns,
                job_openings: self.job_allow.into_iter().map(|OpeningOption(opening)| opening).collect(),
                job_policy: self.job_policy.unwrap_or_default(),
                policy_dir: self.policy_dir,
                preload: self.preload.into_iter().map(|Image(image)| image).collect(),
                insecure_registries: self.insecure_registry,
                registry_authorities: BTreeMap::new(),
                registry_mirrors: self.registry_mirror,
                cache_max_bytes: self.cache_max_bytes.map(|Bytes(bytes)| bytes),
                cache_max_age: self.cache_max_age.map(|Seconds(seconds)| Duration::from_secs(seconds)),
                init: self.init.unwrap_or(false),
                debug,
                labels: self.label,
                open_hosts,
            },
            job_networks: JobNetworks { pools: self.job_address_pool, refused: self.job_deny },
            warnings,
        })
    }
}

/// Only a unix socket: whoever reaches it can do everything.
fn admin_socket(host: Option<String>, exec_root: &std::path::Path) -> Result<PathBuf> {
    let Some(host) = host else { return Ok(exec_root.join("admin.sock")) };
    match host.parse()? {
        ListenAddress::Unix(path) => Ok(path),
        _ => Err(Error::invalid(format!("invalid admin host {host:?}: expected unix:///PATH"))),
    }
}

/// Two daemons on one machine have two data roots; the same root gives the same name after a restart.
fn instance_of(data_root: &std::path::Path) -> String {
    if data_root == std::path::Path::new(DATA_ROOT) {
        return NAME.to_owned();
    }
    let digest = Sha256::digest(data_root.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn checked_instance(name: String) -> Result<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > 8 || !name.chars().all(fits) {
        return Err(Error::invalid(format!("invalid instance {name:?}: only [a-z0-9], at most 8")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let file = parse_file("host = ['unix:///file']\nmtu = 1400\ndebug = true\n").unwrap();
        let flags = ServeOptions { host: vec!["unix:///flag".into()], ..ServeOptions::default() };
        let config = flags.over(file).filled(Vec::new()).unwrap();
        assert_eq!(config.hosts, [ListenAddress::Unix("/flag".into())]);
        assert_eq!((config.engine.mtu, config.log_level), (Some(1400), LogLevel::Debug));
    }

    #[test]
    fn unknown_key_is_an_error_that_names_the_line() {
        let error = parse_file("mtu = 1400\nhosts = []\n").unwrap_err();
        assert!(error.message().contains("line 2"), "{}", error.message());
        assert!(error.message().contains("hosts"), "{}", error.message());
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = ServeOptions::default().filled(Vec::new()).unwrap();
        assert_eq!(config.hosts, ["unix:///run/ringer/docker.sock".parse().unwrap()]);
        assert_eq!(config.containerd_namespace, "ringer");
        assert_eq!(config.engine.instance, "ringer");
    }

    #[test]
    fn other_data_root_is_another_instance() {
        let options = || ServeOptions { data_root: Some("/a".into()), ..ServeOptions::default() };
        let config = options().filled(Vec::new()).unwrap();
        assert_eq!(config.engine.instance.len(), 8);
        assert_eq!(config.engine.instance, options().filled(Vec::new()).unwrap().engine.instance);
    }

    #[test]
    fn what_jobs_reach_is_a_place() {
        let place: OpeningOption = "tcp:[fd00::2]:3000".parse().unwrap();
        assert_eq!(place.0, Opening { protocol: Protocol::Tcp, address: "[fd00::2]:3000".parse().unwrap() });
        assert!("tcp:forge:3000".parse::<OpeningOption>().is_err(), "names change their address");
    }

    #[test]
    fn pools_are_written_as_for_dockerd() {
        let pool: PoolOption = "base=10.10.0.0/16,size=24".parse().unwrap();
        assert_eq!(pool.0, AddressPool { base: "10.10.0.0/16".parse().unwrap(), size: 24 });
        assert!("base=10.10.0.0/16,size=8".parse::<PoolOption>().is_err());
        assert!("base=10.10.0.0/16".parse::<PoolOption>().is_err());
    }
}
