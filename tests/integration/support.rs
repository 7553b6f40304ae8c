//! What the suites share: daemons, containerds, registries, forges and images of their own.

pub mod boxes;
pub mod builder;
pub mod custom_executor;
pub mod daemon;
pub mod forge;
pub mod forgejo;
pub mod github;
pub mod gitlab;
pub mod hooks;
pub mod images;
pub mod launches;
pub mod place;
pub mod registry;
pub mod runtime;
pub mod stand_in;
pub mod woodpecker;

use std::{env, path::PathBuf};

/// A folder of `scripts/parts`, as a variable names it; `None` where it is absent, which CI does not let pass.
pub fn part(variable: &str) -> Option<PathBuf> {
    let folder = env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        assert!(env::var_os("CI").is_none(), "absent in CI: {variable} names no folder of scripts/parts");
        eprintln!("absent: {variable} names no folder of scripts/parts");
    }
    folder
}

/// What a process has in memory, in KiB.
pub fn memory_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).expect("the process runs")
}
