//! What a container has used, out of its cgroup's files. Read here and not by the shim: it saves two round trips a
//! reading, and the files are the same that a shim would read.

use std::{collections::BTreeMap, fs, path::PathBuf, str::FromStr};

use super::cgroups::Cgroups;
use crate::model::{
    Result,
    error::Context,
    stats::{BlockCounter, BlockUsage, CpuUsage, MemoryUsage, PidsUsage, ResourceUsage},
};

/// The kernel counts `cpuacct.stat` in these.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

/// What dockerd tells of `memory.stat`, no more and no less, whatever the kernel knows: typed clients want every one.
const UNIFIED_DETAILS: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

/// The same on cgroup v1.
const SEPARATE_DETAILS: [&str; 32] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "total_cache",
    "total_rss",
    "total_rss_huge",
    "total_mapped_file",
    "total_dirty",
    "total_writeback",
    "total_pgpgin",
    "total_pgpgout",
    "total_pgfault",
    "total_pgmajfault",
    "total_inactive_anon",
    "total_active_anon",
    "total_inactive_file",
    "total_active_file",
    "total_unevictable",
];

/// Reads everything, beside the runtime's own threads: the kernel may have to add a lot up. `None` without the cgroup.
pub(super) async fn find(cgroups: &Cgroups, cgroup: String) -> Result<Option<ResourceUsage>> {
    if !cgroups.exists(&cgroup) {
        return Ok(None);
    }
    let cgroups = cgroups.clone();
    tokio::task::spawn_blocking(move || Some(read(&cgroups, &cgroup))).await.context("reading the cgroup")
}

/// What the kernel does not tell stays zero.
fn read(cgroups: &Cgroups, cgroup: &str) -> ResourceUsage {
    let files = |controller: &str| Files(cgroups.place(controller, cgroup));
    if cgroups.is_unified() { unified(&files("")) } else { separate(files) }
}

/// cgroup v1: a tree for each controller.
fn separate(files: impl Fn(&str) -> Files) -> ResourceUsage {
    let (cpuacct, cpu, memory, pids, block) =
        (files("cpuacct"), files("cpu"), files("memory"), files("pids"), files("blkio"));
    let (times, quota) = (cpuacct.table("cpuacct.stat"), cpu.table("cpu.stat"));
    ResourceUsage {
        cpu: CpuUsage {
            total: cpuacct.number("cpuacct.usage"),
            kernel: of(&times, "system") * NANOSECONDS_A_TICK,
            user: of(&times, "user") * NANOSECONDS_A_TICK,
            per_cpu: numbers(&cpuacct.text("cpuacct.usage_percpu")),
            periods: of(&quota, "nr_periods"),
            throttled_periods: of(&quota, "nr_throttled"),
            throttled_time: of(&quota, "throttled_time"),
        },
        memory: MemoryUsage {
            usage: memory.number("memory.usage_in_bytes"),
            max_usage: memory.number("memory.max_usage_in_bytes"),
            failures: memory.number("memory.failcnt"),
            limit: memory.number("memory.limit_in_bytes"),
            details: details(&memory.table("memory.stat"), &SEPARATE_DETAILS),
        },
        pids: PidsUsage { current: pids.number("pids.current"), limit: pids.number("pids.max") },
        block: BlockUsage {
            bytes: counters(&block.text("blkio.throttle.io_service_bytes")),
            operations: Some(counters(&block.text("blkio.throttle.io_serviced"))),
        },
    }
}

/// cgroup v2: one tree.
fn unified(files: &Files) -> ResourceUsage {
    let cpu = files.table("cpu.stat");
    ResourceUsage {
        cpu: CpuUsage {
            total: of(&cpu, "usage_usec") * 1000,
            kernel: of(&cpu, "system_usec") * 1000,
            user: of(&cpu, "user_usec") * 1000,
            per_cpu: Vec::new(),
            periods: of(&cpu, "nr_periods"),
            throttled_periods: of(&cpu, "nr_throttled"),
            throttled_time: of(&cpu, "throttled_usec") * 1000,
        },
        memory: MemoryUsage {
            usage: files.number("memory.current"),
            max_usage: 0,
            failures: of(&files.table("memory.events"), "oom"),
            limit: files.limit("memory.max"),
            details: details(&files.table("memory.stat"), &UNIFIED_DETAILS),
        },
        pids: PidsUsage { current: files.number("pids.current"), limit: files.limit("pids.max") },
        block: BlockUsage { bytes: io_stat(&files.text("io.stat")), operations: None },
    }
}

/// A cgroup's folder in one tree; nothing can be read of a controller that the machine does not have.
struct Files(Option<PathBuf>);

impl Files {
    fn text(&self, name: &str) -> String {
        self.0.as_ref().and_then(|folder| fs::read_to_string(folder.join(name)).ok()).unwrap_or_default()
    }

    /// `max` is 0.
    fn number(&self, name: &str) -> u64 {
        self.text(name).trim().parse().unwrap_or_default()
    }

    /// `max` is the largest number.
    fn limit(&self, name: &str) -> u64 {
        match self.text(name).trim() {
            "max" => u64::MAX,
            number => number.parse().unwrap_or_default(),
        }
    }

    /// Lines of a name and a number.
    fn table(&self, name: &str) -> BTreeMap<String, u64> {
        let text = self.text(name);
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
    }
}

fn details(table: &BTreeMap<String, u64>, names: &[&str]) -> BTreeMap<String, u64> {
    names.iter().map(|name| ((*name).to_owned(), of(table, name))).collect()
}

fn of(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or_default()
}

fn numbers<T: FromStr>(text: &str) -> Vec<T> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 Read 4096`; the sums at the end have no device.
fn counters(text: &str) -> Vec<BlockCounter> {
    let counter = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let operation = words.next()?.to_owned();
        Some(BlockCounter { major, minor, operation, value: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(counter).collect()
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 …`
fn io_stat(text: &str) -> Vec<BlockCounter> {
    let of_line = |line: &str| {
        let (id, counts) = line.split_once(' ')?;
        let (major, minor) = device(id)?;
        let count = |key: &str| {
            let number = counts.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            number.and_then(|number| number.parse().ok()).unwrap_or_default()
        };
        let counter = |operation: &str, key: &str| BlockCounter {
            major,
            minor,
            operation: operation.to_owned(),
            value: count(key),
        };
        Some([counter("read", "rbytes"), counter("write", "wbytes")])
    };
    text.lines().filter_map(of_line).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &std::path::Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn v1_is_read_tree_by_tree() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[
                ("cpuacct.usage", "31871944\n"),
                ("cpuacct.usage_percpu", "9393041 22478903 \n"),
                ("cpuacct.stat", "user 2\nsystem 1\n"),
                ("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 7\n"),
                ("memory.usage_in_bytes", "548864\n"),
                ("memory.max_usage_in_bytes", "3821568\n"),
                ("memory.limit_in_bytes", "67108864\n"),
                ("memory.stat", "cache 0\nrss 49152\n"),
                ("pids.current", "1\n"),
                ("pids.max", "max\n"),
                ("blkio.throttle.io_service_bytes", "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n"),
            ],
        );
        let usage = separate(|_| Files(Some(folder.path().to_owned())));
        assert_eq!((usage.cpu.total, usage.cpu.user, usage.cpu.kernel), (31_871_944, 20_000_000, 10_000_000));
        assert_eq!(usage.cpu.per_cpu, [9_393_041, 22_478_903]);
        assert_eq!((usage.cpu.periods, usage.cpu.throttled_periods, usage.cpu.throttled_time), (3, 2, 7));
        assert_eq!((usage.memory.usage, usage.memory.limit, usage.memory.details["rss"]), (548_864, 67_108_864, 49152));
        assert_eq!(usage.pids, PidsUsage { current: 1, limit: 0 });
        assert_eq!(usage.block.bytes.len(), 2);
        assert_eq!((usage.block.bytes[0].major, usage.block.bytes[0].operation.as_str()), (8, "Read"));
        assert_eq!(usage.block.operations, Some(Vec::new()));
    }

    #[test]
    fn v2_is_read_from_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[
                ("cpu.stat", "usage_usec 31871\nuser_usec 20000\nsystem_usec 11871\nnr_periods 0\nthrottled_usec 5\n"),
                ("memory.current", "548864\n"),
                ("memory.max", "max\n"),
                ("memory.events", "low 0\noom 2\noom_kill 1\n"),
                ("memory.stat", "anon 49152\nfile 0\nzswap 7\n"),
                ("pids.current", "4\n"),
                ("pids.max", "100\n"),
                ("io.stat", "8:0 rbytes=4096 wbytes=512 rios=1 wios=1 dbytes=0 dios=0\n"),
            ],
        );
        let usage = unified(&Files(Some(folder.path().to_owned())));
        assert_eq!((usage.cpu.total, usage.cpu.throttled_time), (31_871_000, 5000));
        assert_eq!((usage.memory.limit, usage.memory.failures), (u64::MAX, 2));
        assert_eq!((usage.memory.details["anon"], usage.memory.details["workingset_refault"]), (49152, 0));
        assert!(!usage.memory.details.contains_key("zswap"), "dockerd does not tell it");
        assert_eq!(usage.pids, PidsUsage { current: 4, limit: 100 });
        let bytes: Vec<_> = usage.block.bytes.iter().map(|io| (io.operation.as_str(), io.value)).collect();
        assert_eq!(bytes, [("read", 4096), ("write", 512)]);
        assert_eq!(usage.block.operations, None);
    }
}
