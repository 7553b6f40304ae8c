//! What the host is: kernel, distribution, CPUs, memory, cgroups. Read once, but for what changes.

use std::{collections::HashMap, fs, path::Path, sync::OnceLock};

use rustix::{system::uname, thread::CpuSet};

/// Facts that stay the same while the daemon runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// The machine as the kernel names it: `x86_64`.
    pub machine: String,
    /// The distribution's name, `Debian GNU/Linux 12 (bookworm)`.
    pub os_name: String,
    /// Its version, `12`.
    pub os_version: String,
    /// CPUs that we may use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// What can be limited.
    pub cgroups: Cgroups,
    /// Whether the kernel has seccomp filters.
    pub seccomp: bool,
}

/// Which limits work here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// One tree (version 2).
    pub unified: bool,
    /// Memory.
    pub memory: bool,
    /// Swap.
    pub swap: bool,
    /// CPU shares, quotas and periods.
    pub cpu: bool,
    /// CPU sets.
    pub cpuset: bool,
    /// Processes.
    pub pids: bool,
    /// Block devices.
    pub io: bool,
    /// The OOM killer can be switched off (version 1).
    pub oom_control: bool,
}

impl Host {
    /// The host we run on.
    pub fn get() -> &'static Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(Self::read)
    }

    fn read() -> Self {
        let names = uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        let release = os_release();
        Self {
            kernel: text(names.release()),
            machine: text(names.machine()),
            os_name: release.get("PRETTY_NAME").cloned().unwrap_or_else(|| "Linux".to_owned()),
            os_version: release.get("VERSION_ID").cloned().unwrap_or_default(),
            cpus: cpus(),
            memory: memory(),
            cgroups: Cgroups::read(Path::new("/sys/fs/cgroup")),
            seccomp: fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nSeccomp:")),
        }
    }

    /// The machine as Go names it: `amd64`.
    pub fn go_architecture(&self) -> &str {
        match self.machine.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i586" | "i686" => "386",
            "armv6l" | "armv7l" | "armv8l" => "arm",
            other => other,
        }
    }
}

impl Cgroups {
    /// Looks at the tree mounted at `root`.
    fn read(root: &Path) -> Self {
        match fs::read_to_string(root.join("cgroup.controllers")) {
            Ok(controllers) => Self::unified(&controllers),
            Err(_) => Self::separate(root),
        }
    }

    fn unified(controllers: &str) -> Self {
        let has = |name: &str| controllers.split_ascii_whitespace().any(|word| word == name);
        Self {
            unified: true,
            memory: has("memory"),
            swap: has("memory") && Path::new("/proc/swaps").exists(),
            cpu: has("cpu"),
            cpuset: has("cpuset"),
            pids: has("pids"),
            io: has("io"),
            oom_control: false,
        }
    }

    fn separate(root: &Path) -> Self {
        let has = |file: &str| root.join(file).exists();
        Self {
            unified: false,
            memory: has("memory/memory.limit_in_bytes"),
            swap: has("memory/memory.memsw.limit_in_bytes"),
            cpu: has("cpu/cpu.cfs_quota_us"),
            cpuset: has("cpuset/cpuset.cpus"),
            pids: has("pids"),
            io: has("blkio"),
            oom_control: has("memory/memory.oom_control"),
        }
    }

    /// What cannot be limited, in dockerd's words.
    pub fn warnings(&self) -> Vec<String> {
        let missing = [
            (self.memory, "No memory limit support"),
            (self.swap, "No swap limit support"),
            (self.oom_control || self.unified, "No oom kill disable support"),
            (self.cpu, "No cpu cfs quota support"),
            (self.cpu, "No cpu cfs period support"),
            (self.cpu, "No cpu shares support"),
            (self.cpuset, "No cpuset support"),
            (self.io || !self.unified, "No io.weight support"),
            (self.io || !self.unified, "No io.weight (per device) support"),
            (self.io || !self.unified, "No io.max (rbps) support"),
            (self.io || !self.unified, "No io.max (wbps) support"),
            (self.io || !self.unified, "No io.max (riops) support"),
            (self.io || !self.unified, "No io.max (wiops) support"),
        ];
        missing.iter().filter(|(works, _)| !works).map(|(_, text)| format!("WARNING: {text}")).collect()
    }
}

/// The host's name, which may change.
pub fn hostname() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// Whether the kernel forwards packets at the moment.
pub fn forwards_ipv4() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|value| value.trim() == "1")
}

/// Our open descriptors.
pub fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn os_release() -> HashMap<String, String> {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

fn cpus() -> usize {
    let allowed = rustix::thread::sched_getaffinity(None).map(|set: CpuSet| set.count() as usize);
    allowed.unwrap_or_else(|_| std::thread::available_parallelism().map_or(1, Into::into))
}

fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or_default();
    kibibytes * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_known() {
        let host = Host::get();
        assert!(host.cpus > 0 && host.memory > 0, "{host:?}");
        assert!(!host.kernel.is_empty() && !host.machine.is_empty());
    }

    #[test]
    fn controllers_of_the_unified_tree_are_found_by_word() {
        let cgroups = Cgroups::unified("cpuset cpu pids\n");
        assert!(cgroups.unified && cgroups.cpu && cgroups.cpuset && cgroups.pids && !cgroups.memory);
        assert_eq!(cgroups.warnings()[..2], ["WARNING: No memory limit support", "WARNING: No swap limit support"]);
    }
}
