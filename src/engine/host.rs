//! What the host is called and has: kernel, distribution, memory. Read once, but for what changes. What it can do for
//! containers is `oci::HostFacts`, which the engine is given: `/info` tells what create's warnings and specs go by.

use std::{collections::HashMap, fs, sync::OnceLock};

use rustix::system::uname;

use crate::oci::{HostFacts, host::CgroupVersion};

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
    /// Bytes of memory.
    pub memory: u64,
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
            memory: memory(),
        }
    }
}

/// What cannot be limited, in dockerd's words.
pub fn missing_limits(facts: &HostFacts) -> Vec<String> {
    let (has, separate) = (&facts.features, facts.cgroup == CgroupVersion::V1);
    let missing = [
        (has.memory, "No memory limit support"),
        (has.swap, "No swap limit support"),
        (has.oom_kill_disable || !separate, "No oom kill disable support"),
        (has.cpu_cfs, "No cpu cfs quota support"),
        (has.cpu_cfs, "No cpu cfs period support"),
        (has.cpu_shares, "No cpu shares support"),
        (has.cpuset, "No cpuset support"),
        (has.blkio_weight || separate, "No io.weight support"),
        (has.blkio_weight_device || separate, "No io.weight (per device) support"),
        (has.blkio_throttle || separate, "No io.max (rbps) support"),
        (has.blkio_throttle || separate, "No io.max (wbps) support"),
        (has.blkio_throttle || separate, "No io.max (riops) support"),
        (has.blkio_throttle || separate, "No io.max (wiops) support"),
    ];
    missing.iter().filter(|(works, _)| !works).map(|(_, text)| format!("WARNING: {text}")).collect()
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

fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or_default();
    kibibytes * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::host::CgroupFeatures;

    #[test]
    fn this_host_is_known() {
        let host = Host::get();
        assert!(host.memory > 0, "{host:?}");
        assert!(!host.kernel.is_empty() && !host.machine.is_empty());
    }

    #[test]
    fn what_cannot_be_limited_is_told() {
        assert!(missing_limits(&HostFacts::capable()).is_empty());
        let bare = HostFacts { features: CgroupFeatures::default(), cgroup: CgroupVersion::V2, ..HostFacts::capable() };
        let told = missing_limits(&bare);
        assert_eq!(told[..2], ["WARNING: No memory limit support", "WARNING: No swap limit support"]);
        assert!(!told.iter().any(|text| text.contains("oom kill")), "cgroup v2 has no such switch: {told:?}");
    }
}
