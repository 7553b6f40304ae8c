//! What a container uses, as `GET /containers/{id}/stats` tells it.

use std::collections::BTreeMap;

use super::time::Timestamp;

/// Time on the CPUs, in nanoseconds, and how often a quota held the container back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In user space.
    pub user: u64,
    /// By CPU; empty where the kernel does not tell (cgroup v2).
    pub per_cpu: Vec<u64>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Those in which it was used up.
    pub throttled_periods: u64,
    /// Time that was lost so.
    pub throttled_time: u64,
}

/// Bytes of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Now.
    pub usage: u64,
    /// The most there ever was; 0 where the kernel does not tell.
    pub max_usage: u64,
    /// How often the limit was met.
    pub failures: u64,
    /// The limit; the largest number where there is none.
    pub limit: u64,
    /// The kernel's own figures, which differ between cgroup v1 and v2.
    pub details: BTreeMap<String, u64>,
}

impl MemoryUsage {
    /// As the docker CLI tells it: without files that only lie in memory and go when somebody needs the room.
    pub fn without_idle_files(&self) -> u64 {
        let idle = self.details.get("total_inactive_file").or_else(|| self.details.get("inactive_file"));
        self.usage.saturating_sub(idle.copied().unwrap_or_default())
    }
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsUsage {
    /// Now.
    pub current: u64,
    /// The limit; 0 for none on cgroup v1, the largest number on v2, as dockerd passes it on.
    pub limit: u64,
}

/// A counter of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockCounter {
    /// Of the device.
    pub major: u64,
    /// Of the device.
    pub minor: u64,
    /// `Read`, `Write` … on cgroup v1, `read` and `write` on v2.
    pub operation: String,
    /// The count.
    pub value: u64,
}

/// Input and output of block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockUsage {
    /// Bytes.
    pub bytes: Vec<BlockCounter>,
    /// Operations; `None` on cgroup v2, where dockerd does not tell them.
    pub operations: Option<Vec<BlockCounter>>,
}

/// What the container's cgroup has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// CPUs.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Processes.
    pub pids: PidsUsage,
    /// Block devices.
    pub block: BlockUsage,
}

/// Counters of a network link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkUsage {
    /// Bytes, packets, errors and drops of what came in.
    pub received: [u64; 4],
    /// The same of what went out.
    pub sent: [u64; 4],
}

/// CPUs of the container and of the machine at one moment; a client needs two to tell a percentage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuReading {
    /// The container's.
    pub usage: CpuUsage,
    /// The machine's time, idle too, in nanoseconds; 0 if it was not read.
    pub system: u64,
    /// CPUs that are on.
    pub online: u32,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When; zero for a container that does not run.
    pub read: Timestamp,
    /// When the reading before was made.
    pub read_before: Timestamp,
    /// CPUs.
    pub cpu: CpuReading,
    /// CPUs at the reading before.
    pub cpu_before: CpuReading,
    /// The rest; `None` for a container that does not run.
    pub usage: Option<ResourceUsage>,
    /// Links by their name inside; empty without networks of its own.
    pub links: BTreeMap<String, LinkUsage>,
}
