//! What this host can do, as far as a container's spec depends on it.

use std::{fs, path::Path};

use super::caps::CapabilitySet;
use crate::model::image::Platform;

/// Which cgroup tree the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Separate trees, perhaps with an empty unified one beside them.
    V1,
    /// The unified tree.
    V2,
}

impl CgroupVersion {
    /// As `GET /info` has it.
    pub fn number(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
        }
    }
}

/// Limits that the host's cgroups can enforce (the flags of `GET /info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "one independent flag of the kernel each")]
pub struct CgroupFeatures {
    /// `Memory`.
    pub memory: bool,
    /// `MemorySwap`.
    pub swap: bool,
    /// `MemoryReservation`.
    pub memory_reservation: bool,
    /// `MemorySwappiness`.
    pub swappiness: bool,
    /// `OomKillDisable`.
    pub oom_kill_disable: bool,
    /// `KernelMemoryTCP`.
    pub kernel_memory_tcp: bool,
    /// `CpuShares`.
    pub cpu_shares: bool,
    /// `CpuQuota`, `CpuPeriod`, `NanoCpus`.
    pub cpu_cfs: bool,
    /// `CpuRealtimePeriod`, `CpuRealtimeRuntime`.
    pub cpu_realtime: bool,
    /// `CpusetCpus`, `CpusetMems`.
    pub cpuset: bool,
    /// `PidsLimit`.
    pub pids: bool,
    /// `BlkioWeight`.
    pub blkio_weight: bool,
    /// `BlkioWeightDevice`.
    pub blkio_weight_device: bool,
    /// The four throttles.
    pub blkio_throttle: bool,
}

/// Facts about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Which cgroup tree.
    pub cgroup: CgroupVersion,
    /// What it can limit.
    pub features: CgroupFeatures,
    /// CPUs that can be used, as in `cpuset.cpus.effective`, and memory nodes.
    pub cpuset: (String, String),
    /// CPUs that we may be scheduled on, as Go counts them; what our own cgroup may take of them is not asked.
    pub cpus: u32,
    /// Our own bounding set.
    pub bounding: CapabilitySet,
    /// Whether the kernel filters system calls.
    pub seccomp: bool,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// The machine as Go names it: `amd64`, `arm64` …
    pub arch: String,
    /// Whether AppArmor is on, and whether Docker's profile is loaded.
    pub apparmor: AppArmor,
    /// Whether SELinux is on. Labels are not carried out.
    pub selinux: bool,
    /// Our own score; without CAP_SYS_RESOURCE a container cannot have a lower one.
    pub oom_score_adj: i64,
    /// Files of the CPUs' temperature that must be hidden.
    pub thermal_throttle: Vec<String>,
}

/// State of AppArmor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppArmor {
    /// Not there.
    Off,
    /// On, `docker-default` is not loaded.
    On,
    /// On, `docker-default` is loaded.
    WithDockerDefault,
}

impl HostFacts {
    /// The score of a process for which `wanted` was asked. Without CAP_SYS_RESOURCE nobody can go below the daemon's own, so such a wish is met
    /// as far as it can be.
    pub fn least_oom_score_adj(&self, wanted: i64) -> i32 {
        let reachable = if self.bounding.contains("SYS_RESOURCE") { wanted } else { wanted.max(self.oom_score_adj) };
        i32::try_from(reachable).unwrap_or_default()
    }

    /// Asks the kernel. Costs some file reads: once at start. What cannot be read counts as not there.
    pub fn detect() -> Self {
        let cgroup =
            if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { CgroupVersion::V2 } else { CgroupVersion::V1 };
        let kernel = kernel_version(&read("/proc/sys/kernel/osrelease"));
        let status = read("/proc/self/status");
        Self {
            cgroup,
            features: match cgroup {
                CgroupVersion::V1 => features_v1(),
                CgroupVersion::V2 => features_v2(&read("/sys/fs/cgroup/cgroup.controllers")),
            },
            cpuset: effective_cpuset(cgroup),
            cpus: rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count()),
            bounding: CapabilitySet::from_mask(capability_mask(&status)),
            seccomp: status.lines().any(|line| line.starts_with("Seccomp:")),
            kernel,
            arch: Platform::host().architecture,
            apparmor: detect_apparmor(),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
            thermal_throttle: thermal_throttle(),
        }
    }
}

#[cfg(test)]
impl HostFacts {
    /// A host where everything works, so that tests see the same everywhere.
    pub fn capable() -> Self {
        Self {
            cgroup: CgroupVersion::V1,
            features: CgroupFeatures {
                memory: true,
                swap: true,
                memory_reservation: true,
                swappiness: true,
                oom_kill_disable: true,
                kernel_memory_tcp: true,
                cpu_shares: true,
                cpu_cfs: true,
                cpu_realtime: true,
                cpuset: true,
                pids: true,
                blkio_weight: true,
                blkio_weight_device: true,
                blkio_throttle: true,
            },
            cpuset: ("0-1".to_owned(), "0".to_owned()),
            cpus: 2,
            bounding: CapabilitySet::from_mask(0x1ff_feff_ffff),
            seccomp: true,
            kernel: (6, 18),
            arch: "amd64".to_owned(),
            apparmor: AppArmor::Off,
            selinux: false,
            oom_score_adj: 0,
            thermal_throttle: Vec::new(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// `6.18.1-x` → (6, 18).
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn capability_mask(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
}

fn detect_apparmor() -> AppArmor {
    if !read("/sys/module/apparmor/parameters/enabled").starts_with('Y') {
        return AppArmor::Off;
    }
    let profiles = read("/sys/kernel/security/apparmor/profiles");
    if profiles.lines().any(|line| line.starts_with("docker-default ")) {
        AppArmor::WithDockerDefault
    } else {
        AppArmor::On
    }
}

fn features_v1() -> CgroupFeatures {
    let has = |file: &str| Path::new("/sys/fs/cgroup").join(file).exists();
    CgroupFeatures {
        memory: has("memory/memory.limit_in_bytes"),
        swap: has("memory/memory.memsw.limit_in_bytes"),
        memory_reservation: has("memory/memory.soft_limit_in_bytes"),
        swappiness: has("memory/memory.swappiness"),
        oom_kill_disable: has("memory/memory.oom_control"),
        kernel_memory_tcp: has("memory/memory.kmem.tcp.limit_in_bytes"),
        cpu_shares: has("cpu/cpu.shares"),
        cpu_cfs: has("cpu/cpu.cfs_quota_us"),
        cpu_realtime: has("cpu/cpu.rt_runtime_us"),
        cpuset: has("cpuset/cpuset.cpus"),
        pids: has("pids/pids.max") || has("pids/cgroup.procs"),
        blkio_weight: has("blkio/blkio.weight"),
        blkio_weight_device: has("blkio/blkio.weight_device"),
        blkio_throttle: has("blkio/blkio.throttle.read_bps_device"),
    }
}

fn features_v2(controllers: &str) -> CgroupFeatures {
    let has = |controller: &str| controllers.split_whitespace().any(|word| word == controller);
    CgroupFeatures {
        memory: has("memory"),
        swap: has("memory"),
        memory_reservation: has("memory"),
        cpu_shares: has("cpu"),
        cpu_cfs: has("cpu"),
        cpuset: has("cpuset"),
        pids: has("pids"),
        blkio_weight: has("io"),
        blkio_weight_device: has("io"),
        blkio_throttle: has("io"),
        ..CgroupFeatures::default()
    }
}

fn effective_cpuset(version: CgroupVersion) -> (String, String) {
    let trimmed = |path: &str| read(path).trim().to_owned();
    match version {
        CgroupVersion::V1 => {
            (trimmed("/sys/fs/cgroup/cpuset/cpuset.cpus"), trimmed("/sys/fs/cgroup/cpuset/cpuset.mems"))
        }
        CgroupVersion::V2 => {
            (trimmed("/sys/fs/cgroup/cpuset.cpus.effective"), trimmed("/sys/fs/cgroup/cpuset.mems.effective"))
        }
    }
}

fn thermal_throttle() -> Vec<String> {
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let paths = cpus.map(|cpu| cpu.path().join("thermal_throttle")).filter(|path| path.exists());
    let mut paths: Vec<String> = paths.map(|path| path.to_string_lossy().into_owned()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(kernel_version("6.18.1-cloud-amd64\n"), (6, 18));
        assert_eq!(kernel_version("4.8"), (4, 8));
        assert_eq!(kernel_version(""), (0, 0));
    }

    #[test]
    fn bounding_set_is_read() {
        assert_eq!(capability_mask("Name:\tx\nCapBnd:\t000001fffeffffff\n"), 0x0001_ffff_feff_ffff & 0x1ff_ffff_ffff);
    }

    #[test]
    fn unified_tree_limits_what_its_controllers_limit() {
        let features = features_v2("cpu memory pids\n");
        assert!(features.memory && features.cpu_cfs && features.pids);
        assert!(!features.cpuset && !features.blkio_weight && !features.oom_kill_disable);
    }

    #[test]
    fn this_host_can_be_asked() {
        let facts = HostFacts::detect();
        assert!(facts.kernel > (3, 0));
        assert!(facts.bounding.contains("CHOWN"));
    }
}
