//! All that could be left of a job.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::daemon::Daemon;

/// For what the kernel does in its own time: links of a namespace that was dropped.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until nothing of the daemon names a job any more; `job-` means all of them.
pub async fn gone_of(daemon: &Daemon, job: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = of(daemon, job);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:#?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Records, folders and sockets, mounts, cgroups, namespaces of builders, names of images and containers in containerd, links and rules.
pub fn of(daemon: &Daemon, job: &str) -> Vec<String> {
    let mut left = named(daemon.folder(), job);
    let parent = format!("/ringer-{}/", daemon.instance());
    left.extend(named(Path::new("/sys/fs/cgroup"), job).into_iter().filter(|path| path.contains(&parent)));
    let (mounts, folder) =
        (fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), daemon.folder().display().to_string());
    left.extend(mounts.lines().filter(|line| line.contains(job) && line.contains(&folder)).map(str::to_owned));
    for kind in
        [&["namespaces", "ls"][..], &["images", "ls"], &["containers", "ls"], &["snapshots", "ls"], &["leases", "ls"]]
    {
        let listed = daemon.ctr("ringer", kind);
        left.extend(listed.lines().filter(|line| line.contains(job)).map(str::to_owned));
    }
    let links = within(daemon, &["ip", "-details", "link"]);
    left.extend(links.lines().filter(|line| line.contains(job)).map(str::to_owned));
    left.extend(elements_of_nothing(daemon, &links));
    left
}

/// Elements of nft sets do not name a job, but its link: those of links that are not there.
fn elements_of_nothing(daemon: &Daemon, links: &str) -> Vec<String> {
    let rules = within(daemon, &["nft", "list", "ruleset"]);
    let named = rules.split('"').skip(1).step_by(2).filter(|name| name.starts_with("rng"));
    let is_there = |name: &&str| links.contains(&format!(": {name}@")) || links.contains(&format!(": {name}:"));
    named.filter(|name| !is_there(name)).map(|name| format!("an element of {name}, which is no link")).collect()
}

/// What a program prints in the daemon's network namespace.
pub fn within(daemon: &Daemon, command: &[&str]) -> String {
    let namespace = format!("--net=/proc/{}/ns/net", daemon.pid());
    let output = Command::new("nsenter").arg(namespace).args(command).output().expect("nsenter is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Paths below a folder whose last part has the name in it. The daemon's log may speak of it.
fn named(folder: &Path, name: &str) -> Vec<String> {
    let pattern = format!("*{name}*");
    let output = Command::new("find").arg(folder).args(["-name", &pattern]).output().expect("find is there");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
