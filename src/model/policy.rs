//! What a tenant may do with the machine: one rule per danger. What the rules mean stands in `policy`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The keys of rules: each a danger, and what an entry of its list is.
macro_rules! keys {
    ($($(#[$about:meta])* $name:ident = $word:literal: $entry:ident,)*) => {
        /// Which rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Key {
            $($(#[$about])* #[serde(rename = $word)] $name,)*
        }

        impl Key {
            /// All of them, as they are shown.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As policies write it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// What an entry of its list is.
            pub fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry::$entry,)*
                }
            }
        }
    };
}

keys! {
    /// Containers with all privileges.
    Privileged = "privileged": None,
    /// Execs with all privileges.
    ExecPrivileged = "exec-privileged": None,
    /// Capabilities that are added.
    Capabilities = "capabilities": Pattern,
    /// Devices of the machine, by path.
    Devices = "devices": Path,
    /// Rules of the device cgroup.
    DeviceRules = "device-rules": Pattern,
    /// Devices that a driver hands out (GPUs).
    DeviceRequests = "device-requests": Pattern,
    /// Namespaces of the machine: pid, ipc, uts, user, cgroup.
    Namespaces = "namespaces": Pattern,
    /// The network of the machine; in a job, the job's own.
    HostNetwork = "host-network": None,
    /// The same in steps of builds.
    BuildHostNetwork = "build-host-network": None,
    /// `--security-opt`.
    SecurityOpt = "security-opt": Pattern,
    /// System paths that are shown although they are hidden or read-only by default.
    SystemPaths = "system-paths": Path,
    /// Paths of the machine as sources of binds.
    Binds = "binds": Path,
    /// Propagation of binds that is asked for.
    Propagation = "propagation": Pattern,
    /// What volumes mount by options of the driver `local`: the type of a file system, or bind.
    VolumeMounts = "volume-mounts": Pattern,
    /// Kernel settings of a container's namespaces.
    Sysctls = "sysctls": Pattern,
    /// Runtimes other than the default one.
    Runtimes = "runtimes": Pattern,
    /// Annotations, which runtimes read.
    Annotations = "annotations": Pattern,
    /// Limits of resources of processes.
    Ulimits = "ulimits": Limit,
    /// How much less than others a container is killed for want of memory.
    OomScoreAdj = "oom-score-adj": Lowest,
    /// No killing for want of memory.
    OomKillDisable = "oom-kill-disable": None,
    /// A parent cgroup of the client's choice.
    CgroupParent = "cgroup-parent": Pattern,
    /// Limits that an update makes wider.
    Update = "update": Pattern,
    /// Ports that are published.
    Publish = "publish": Ports,
    /// Published ports of a job that answer on the machine too.
    MachinePorts = "machine-ports": Ports,
    /// Log drivers.
    LogDrivers = "log-drivers": Pattern,
    /// Options of network drivers.
    NetworkOptions = "network-options": Pattern,
    /// Registries that are spoken to.
    Registries = "registries": Pattern,
    /// Mirrors of Docker Hub that are asked for it.
    Mirrors = "mirrors": Mirror,
    /// Images that are pulled.
    Pull = "pull": Pattern,
    /// Images that are pushed.
    Push = "push": Pattern,
    /// Images that come in archives.
    Load = "load": None,
    /// Calls of the API, by their operationId.
    Calls = "calls": Pattern,
}

/// What an entry of a rule's list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// There is no list: yes or no.
    None,
    /// A word in which `*` stands for anything; with `!` before it, what is not allowed after all.
    Pattern,
    /// A path with all that is below it; with `:ro` after it, only read-only.
    Path,
    /// `ADDRESS:PORT`, `ADDRESS:FIRST-LAST`, either with `*`.
    Ports,
    /// `NAME=HIGHEST`, or a name for any value.
    Limit,
    /// The lowest number.
    Lowest,
    /// `https://HOST` or `http://HOST`, perhaps with a port.
    Mirror,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rule {
    /// All or nothing.
    All(bool),
    /// What its entries say.
    Only(Vec<String>),
}

/// The policies that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuiltIn {
    /// As dockerd.
    Trusted,
    /// What jobs get.
    Ci,
    /// Less.
    Strict,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Trusted, Self::Ci, Self::Strict];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Ci => "ci",
            Self::Strict => "strict",
        }
    }

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|built_in| built_in.as_str() == name)
    }
}

/// A policy: every rule, so that what is stored means the same when files and built-in policies have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What it is called in refusals.
    pub name: String,
    /// Whose rules hold where it has none of its own.
    pub base: BuiltIn,
    /// The rules.
    pub rules: BTreeMap<Key, Rule>,
}

impl Policy {
    /// Mirrors of Docker Hub in the order in which they are asked, where the daemon's own are those: a rule without a list has all or none of these.
    pub fn mirrors(&self, of_daemon: &[String]) -> Vec<String> {
        match self.rules.get(&Key::Mirrors) {
            Some(Rule::Only(mirrors)) => mirrors.clone(),
            Some(Rule::All(false)) => Vec::new(),
            Some(Rule::All(true)) | None => of_daemon.to_vec(),
        }
    }
}

/// A policy as it is named or given to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyRef {
    /// A built-in one, or one of the daemon's folder.
    Named(String),
    /// The text of a file.
    Text {
        /// What it is called.
        name: String,
        /// TOML.
        toml: String,
    },
}
