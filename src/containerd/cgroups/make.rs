//! Makes cgroups that hold several containers, with limits for all of them together.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{Cgroups, below};
use crate::model::{job::JobLimits, path::clean_absolute};

/// Microseconds in which a cgroup may use its share of the processors; the kernel's and Docker's default.
const PERIOD: u64 = 100_000;

/// Controllers of version 2 that containers' limits need.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb"];

/// Controllers whose limits a job may have.
const LIMITING: [&str; 3] = ["memory", "cpu", "pids"];

impl Cgroups {
    /// Makes a cgroup in all hierarchies; one that is there is left as it is. In a unified tree its children get the controllers
    /// that there are.
    pub(in crate::containerd) fn make(&self, cgroup: &str) -> io::Result<()> {
        for (root, _) in &self.roots {
            fs::create_dir_all(below(root, cgroup))?;
        }
        if self.is_unified()
            && let Some((root, _)) = self.roots.first()
        {
            hand_down_controllers(root, cgroup);
        }
        Ok(())
    }

    /// Makes a cgroup for processes, in the hierarchies that limit, and opens it: whoever writes `0` into each of the files is in it.
    pub(in crate::containerd) fn open(&self, cgroup: &str) -> io::Result<Vec<File>> {
        let mut folders: Vec<PathBuf> =
            LIMITING.iter().filter_map(|controller| self.place(controller, cgroup)).collect();
        folders.dedup();
        let open = |folder: PathBuf| {
            fs::create_dir_all(&folder)?;
            File::options().write(true).open(folder.join("cgroup.procs"))
        };
        folders.into_iter().map(open).collect()
    }

    /// Sets limits of a cgroup that is there; what is not given is not limited.
    pub(in crate::containerd) fn limit(&self, cgroup: &str, limits: &JobLimits) -> io::Result<()> {
        let (memory, pids) = (limits.memory, limits.pids);
        let quota = limits.nano_cpus.map(|cpus| cpus.saturating_mul(PERIOD) / 1_000_000_000);
        if self.is_unified() {
            self.set(cgroup, "memory", "memory.max", &or(memory, "max"), memory.is_some())?;
            self.set(cgroup, "memory", "memory.swap.max", if memory.is_some() { "0" } else { "max" }, false)?;
            self.set(cgroup, "cpu", "cpu.max", &format!("{} {PERIOD}", or(quota, "max")), quota.is_some())?;
        } else {
            self.set(cgroup, "memory", "memory.limit_in_bytes", &or(memory, "-1"), memory.is_some())?;
            self.set(cgroup, "memory", "memory.memsw.limit_in_bytes", &or(memory, "-1"), false)?;
            self.set(cgroup, "cpu", "cpu.cfs_quota_us", &or(quota, "-1"), quota.is_some())?;
        }
        self.set(cgroup, "pids", "pids.max", &or(pids, "max"), pids.is_some())
    }

    /// A value that is not `needed` may fail: the controller, or the file, is not there on every machine.
    fn set(&self, cgroup: &str, controller: &str, file: &str, value: &str, needed: bool) -> io::Result<()> {
        let unlimited =
            || io::Error::other(format!("this machine has no cgroup controller {controller}: nothing can be limited"));
        let written = self.place(controller, cgroup).ok_or_else(unlimited).and_then(|folder| {
            let path: PathBuf = folder.join(file);
            fs::write(&path, value).map_err(|error| {
                io::Error::new(error.kind(), format!("writing {value} into {}: {error}", path.display()))
            })
        });
        if needed { written } else { Ok(()) }
    }
}

/// Each folder on the way hands its controllers down; one that a folder lacks, or that is in use otherwise, is left out.
fn hand_down_controllers(root: &Path, cgroup: &str) {
    let mut folder = root.to_owned();
    let path = clean_absolute(cgroup);
    let names = path.split('/').filter(|name| !name.is_empty());
    for name in std::iter::once("").chain(names) {
        folder.push(name);
        for controller in CONTROLLERS {
            let _not_there = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

/// A limit as the file has it, or the file's word for none.
fn or(limit: Option<u64>, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), |limit| limit.to_string())
}
