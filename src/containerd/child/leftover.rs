//! What a killed daemon left of its containers: shims, their processes, bundles, mounts, the OCI runtime's state.
//!
//! A containerd whose daemon was killed may be in the middle of starting a container, and goes on with that: whoever
//! asks it what there is gets an answer that is not true any more a moment later. So it is ended first, then
//! everything of its containers, which are ended at a restart in any case; the next containerd begins with none.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    mount::{UnmountFlags, unmount},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tracing::{info, warn};

use super::{ChildOptions, process::stat_fields};
use crate::containerd::{cgroups::Cgroups, io};

/// How long killed processes may take to be gone.
const LIMIT: Duration = Duration::from_secs(10);

/// How long processes may take to stop: one that waits for a disk does so when that has answered.
const STOPPING: Duration = Duration::from_secs(1);

/// What shims get to pass on what the containers wrote last.
const PASSING_ON: Duration = Duration::from_millis(20);

/// Threads that unmount.
const UNMOUNTING: usize = 8;

/// Where containerd keeps bundles, below its state and its data.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// Ends everything and takes it away. Goes on after failures; what a process holds on to is named in the log. Folders that
/// nobody needs any more are set aside, to be removed by [`remove_gone`] when nobody waits for it.
pub(super) fn end_all(options: &ChildOptions) {
    let pipes = options.exec_root.join("io");
    // What containers wrote and nobody has read yet goes with the last end of their pipes.
    let folders = io::container_folders(&pipes);
    let held: Vec<_> = folders.iter().flat_map(|folder| io::hold_all(folder)).collect();
    let address = options.address();
    let is_ours = |arguments: &[u8]| is_shim(arguments, &address);
    let cgroups = end_containers(&is_ours);
    // Their shims still pass on what they wrote.
    if !folders.is_empty() {
        std::thread::sleep(PASSING_ON);
    }
    io::keep_unread(&folders, &options.exec_root.join(io::UNREAD));
    end_processes(&is_ours);
    drop(held);
    let gone = gone(options);
    set_aside(&pipes, &gone);
    let state = options.run().join("state").join(TASKS);
    remove_sockets(&state);
    unmount_below(&state);
    for folder in [state, options.root().join(TASKS), options.exec_root.join("oci")] {
        // What is still mounted somewhere below would be emptied.
        if mounted_below(&folder).is_empty() {
            set_aside(&folder, &gone);
        }
    }
    remove_cgroups(cgroups);
}

/// Which shims there are for a namespace of a containerd, by the containers that they were started for. One whose start was broken off may
/// be unknown to its containerd, and waits for ever.
pub(in crate::containerd) fn shims_of(address: &Path, namespace: &str) -> HashSet<String> {
    let arguments = processes().filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    let ours = arguments.filter(|arguments| is_shim(arguments, address));
    ours.filter(|arguments| argument(arguments, "-namespace") == Some(namespace.as_bytes()))
        .filter_map(|arguments| Some(String::from_utf8_lossy(argument(&arguments, "-id")?).into_owned()))
        .collect()
}

/// Ends the shims that were started for a container, with all that is below them.
pub(in crate::containerd) fn end_shim(address: &Path, namespace: &str, id: &str) {
    let is_ours = |arguments: &[u8]| {
        is_shim(arguments, address)
            && argument(arguments, "-namespace") == Some(namespace.as_bytes())
            && argument(arguments, "-id") == Some(id.as_bytes())
    };
    let cgroups = end_containers(&is_ours);
    end_processes(&is_ours);
    remove_cgroups(cgroups);
}

fn remove_cgroups(cgroups: HashSet<String>) {
    let known = Cgroups::detect();
    for cgroup in cgroups {
        known.remove_if_empty(&cgroup);
    }
}

/// Removes what was set aside, also by a daemon that died before it had done so.
pub(super) fn remove_gone(options: &ChildOptions) {
    let _not_there = fs::remove_dir_all(gone(options));
}

fn gone(options: &ChildOptions) -> PathBuf {
    options.run().join("gone")
}

/// Takes a folder out of the way: thousands of files take their time. At once if it lies on another disk.
fn set_aside(folder: &Path, gone: &Path) {
    let free = (0_u32..).map(|n| gone.join(n.to_string())).find(|place| !place.exists());
    let moved = free.is_some_and(|place| fs::create_dir_all(gone).and_then(|()| fs::rename(folder, place)).is_ok());
    if !moved {
        let _not_there = fs::remove_dir_all(folder);
    }
}

/// Kills what runs below shims, which keep all that descends from a container, but not these. Returns the cgroups of
/// containers.
fn end_containers(is_ours: &dyn Fn(&[u8]) -> bool) -> HashSet<String> {
    let (_shims, below) = of_shims(is_ours);
    let ours = own_cgroups();
    let of_containers = |cgroup: &String| !ours.contains(cgroup) && cgroup.rsplit('/').next().is_some_and(is_id);
    let cgroups: HashSet<String> = below.iter().flat_map(|pid| cgroups_of(*pid)).filter(of_containers).collect();
    below.iter().for_each(|pid| signal(*pid, Signal::KILL));
    let known = Cgroups::detect();
    for cgroup in &cgroups {
        // What is frozen does not die.
        known.thaw(cgroup);
    }
    cgroups
}

/// Kills shims with all that descends from them.
fn end_processes(is_ours: &dyn Fn(&[u8]) -> bool) {
    // Stopped first: none of them starts another one behind our back.
    let mut found = HashSet::new();
    loop {
        let (shims, below) = of_shims(is_ours);
        let fresh: Vec<u32> = shims.into_iter().chain(below).filter(|pid| found.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|pid| signal(*pid, Signal::STOP));
        await_stop(&fresh);
    }
    found.iter().for_each(|pid| signal(*pid, Signal::KILL));
    let deadline = Instant::now() + LIMIT;
    for pid in &found {
        let Some(process) = descriptor(*pid) else { continue };
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) == Ok(0) {
            warn!(process.pid = pid, "process {pid}, which an earlier daemon left, does not end");
        }
    }
    if !found.is_empty() {
        info!("ended {} processes that an earlier daemon left", found.len());
    }
}

/// Until every thread has taken notice of its stop: a fork under way comes to its end first, and its child would be nobody's
/// once the parent is killed (a `runc init` that waits for ever).
fn await_stop(pids: &[u32]) {
    let deadline = Instant::now() + STOPPING;
    while Instant::now() < deadline && !pids.iter().all(|pid| is_stopped(*pid)) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether no thread of a process goes on. One that is gone has none.
fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.all(|stat| {
        matches!(stat_fields(&stat).and_then(|mut fields| fields.next()), Some("T" | "t" | "Z" | "X") | None)
    })
}

fn signal(pid: u32, signal: Signal) {
    if let Some(process) = descriptor(pid) {
        let _ended_already = pidfd_send_signal(process, signal);
    }
}

/// Not kept: there may be more processes than descriptors.
fn descriptor(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

/// Shims by their arguments, those that are about to be one, and all processes below them.
fn of_shims(is_ours: &dyn Fn(&[u8]) -> bool) -> (Vec<u32>, Vec<u32>) {
    let mut parents = HashMap::new();
    let mut shims = HashSet::new();
    for pid in processes() {
        parents.insert(pid, parent_of(pid));
        if is_ours(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()) {
            shims.insert(pid);
        }
    }
    let descends = |mut pid: u32| {
        // A table that changes while it is read may have a circle.
        for _ in 0..parents.len() {
            match parents.get(&pid).copied().flatten() {
                Some(parent) if shims.contains(&parent) => return true,
                Some(parent) => pid = parent,
                None => return false,
            }
        }
        false
    };
    let below = parents.keys().copied().filter(|pid| !shims.contains(pid) && descends(*pid)).collect();
    (shims.into_iter().collect(), below)
}

fn is_shim(arguments: &[u8], address: &Path) -> bool {
    let program = arguments.split(|byte| *byte == 0).next();
    let is_program = program.is_some_and(|program| {
        program.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b"containerd-shim"))
    });
    is_program && argument(arguments, "-address") == Some(address.as_os_str().as_encoded_bytes())
}

/// What follows a flag.
fn argument<'a>(arguments: &'a [u8], flag: &str) -> Option<&'a [u8]> {
    let mut words = arguments.split(|byte| *byte == 0);
    words.find(|word| *word == flag.as_bytes()).and_then(|_| words.next())
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_fields(&stat)?.nth(1)?.parse().ok()
}

fn cgroups_of(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(str::to_owned).collect()
}

/// The daemon's own cgroups, in which its shims are too.
fn own_cgroups() -> HashSet<String> {
    cgroups_of(std::process::id()).into_iter().collect()
}

/// Whether the last part of a cgroup names a container.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Sockets of shims, which lie elsewhere: each bundle tells where.
fn remove_sockets(tasks: &Path) {
    let namespaces = fs::read_dir(tasks).into_iter().flatten().flatten();
    let bundles = namespaces.flat_map(|namespace| fs::read_dir(namespace.path()).into_iter().flatten().flatten());
    for bundle in bundles {
        let address = fs::read_to_string(bundle.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            let _gone_already = fs::remove_file(socket);
        }
    }
}

fn unmount_below(folder: &Path) {
    let points = mounted_below(folder);
    // Each waits for the kernel for 10 to 30 ms.
    std::thread::scope(|scope| {
        for part in points.chunks(points.len().div_ceil(UNMOUNTING).max(1)) {
            scope.spawn(move || part.iter().rev().for_each(|at| unmount_found(at)));
        }
    });
}

fn unmount_found(at: &Path) {
    if let Err(error) = unmount(at, UnmountFlags::DETACH) {
        warn!("unmounting {}, which an earlier daemon left: {error}", at.display());
    }
}

fn mounted_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescaped(point)));
    points.filter(|point| point.starts_with(folder)).collect()
}

/// The kernel writes blanks and the like as three octal digits.
fn unescaped(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_program_and_its_address() {
        let address = Path::new("/run/x/containerd.sock");
        let shim = |text: &str| is_shim(text.replace(' ', "\0").as_bytes(), address);
        assert!(shim("/usr/bin/containerd-shim-runc-v2 -namespace ringer -id a -address /run/x/containerd.sock"));
        assert!(shim(
            "containerd-shim-runc-v2 -address /run/x/containerd.sock -publish-binary /usr/bin/containerd start"
        ));
        assert!(!shim("/usr/bin/containerd-shim-runc-v2 -namespace ringer -id a -address /run/y/containerd.sock"));
        assert!(!shim("cat -address /run/x/containerd.sock"));
    }

    #[test]
    fn a_process_is_stopped_when_all_its_threads_are() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        assert!(!is_stopped(child.id()));
        signal(child.id(), Signal::STOP);
        await_stop(&[child.id()]);
        assert!(is_stopped(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_stopped(child.id()), "it is gone");
        assert!(!is_stopped(std::process::id()), "the threads of this test run");
    }

    #[test]
    fn only_the_cgroup_of_a_container_is_one() {
        assert!(is_id(&"a1".repeat(32)));
        assert!(!is_id("ringer") && !is_id(""));
    }
}
