//! Processes that a killed daemon left of its containers: shims, what is below them, and first processes that wait for their start.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tracing::{info, warn};

use crate::{containerd::cgroups::Cgroups, processes::ends::stat_fields};

/// How long killed processes may take to be gone.
const LIMIT: Duration = Duration::from_secs(10);

/// How long processes may take to stop: one that waits for a disk does so when that has answered.
const STOPPING: Duration = Duration::from_secs(1);

/// How often it is looked for processes that came while others were killed.
const LOOKS: usize = 5;

/// What there is for the containers of a namespace that its containerd may know nothing of: shims whose start was broken off, which wait
/// for ever, and first processes that wait for theirs. `runtime` is where the OCI runtime keeps its state of the namespace.
pub(in crate::containerd) fn begun(address: &Path, namespace: &str, runtime: &Path) -> HashSet<String> {
    let id_of = |pid| {
        let arguments = arguments(pid);
        let is_ours = is_shim(&arguments, address) && argument(&arguments, "-namespace") == Some(namespace.as_bytes());
        match argument(&arguments, "-id").filter(|_| is_ours) {
            Some(id) => Some(String::from_utf8_lossy(id).into_owned()),
            None => Some(beginning(pid)?.strip_prefix(runtime).ok()?.to_str()?.to_owned()),
        }
    };
    processes().filter_map(id_of).collect()
}

/// Ends that of one container, with all that is below it.
pub(in crate::containerd) fn end_begun(address: &Path, namespace: &str, runtime: &Path, id: &str) {
    let is_ours = |pid: u32| {
        let arguments = arguments(pid);
        let names = |flag: &str, value: &str| argument(&arguments, flag) == Some(value.as_bytes());
        (is_shim(&arguments, address) && names("-namespace", namespace) && names("-id", id))
            || beginning(pid).is_some_and(|container| container == runtime.join(id))
    };
    let cgroups = end_containers(&is_ours);
    end_processes(&is_ours);
    remove_cgroups(cgroups);
}

pub(super) fn remove_cgroups(cgroups: HashSet<String>) {
    let known = Cgroups::detect();
    for cgroup in cgroups {
        known.remove_if_empty(&cgroup);
    }
}

/// Kills what runs below shims, which keep all that descends from a container, but not these. Returns the cgroups of
/// containers.
pub(super) fn end_containers(is_ours: &dyn Fn(u32) -> bool) -> HashSet<String> {
    let (shims, below) = of_shims(is_ours);
    let ours = own_cgroups();
    let of_containers = |cgroup: &String| !ours.contains(cgroup) && cgroup.rsplit('/').next().is_some_and(is_id);
    let cgroups: HashSet<String> =
        below.iter().chain(&shims).flat_map(|pid| cgroups_of(*pid)).filter(of_containers).collect();
    below.iter().for_each(|pid| signal(*pid, Signal::KILL));
    let known = Cgroups::detect();
    for cgroup in &cgroups {
        // What is frozen does not die.
        known.thaw(cgroup);
    }
    cgroups
}

/// Kills shims with all that descends from them, and looks again: what a fork under way made while its parent was killed is nobody's.
pub(super) fn end_processes(is_ours: &dyn Fn(u32) -> bool) {
    let ended: usize = (0..LOOKS).map(|_| end_found(is_ours)).take_while(|found| *found > 0).sum();
    if ended > 0 {
        info!("ended {ended} processes that an earlier daemon left");
    }
}

fn end_found(is_ours: &dyn Fn(u32) -> bool) -> usize {
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
    found.len()
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
fn of_shims(is_ours: &dyn Fn(u32) -> bool) -> (Vec<u32>, Vec<u32>) {
    let mut parents = HashMap::new();
    let mut shims = HashSet::new();
    for pid in processes() {
        parents.insert(pid, parent_of(pid));
        if is_ours(pid) {
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

pub(super) fn arguments(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Where runc keeps its state of the container whose first process this is, while that waits for its start (`runc init`): its parent may
/// be gone.
pub(super) fn beginning(pid: u32) -> Option<PathBuf> {
    let is_init = arguments(pid).split(|byte| *byte == 0).nth(1) == Some(b"init");
    let environment = if is_init { fs::read(format!("/proc/{pid}/environ")).ok()? } else { return None };
    let mut variables = environment.split(|byte| *byte == 0);
    let folder = variables.find_map(|variable| variable.strip_prefix(b"_LIBCONTAINER_STATEDIR="))?;
    Some(PathBuf::from(OsStr::from_bytes(folder)))
}

pub(super) fn is_shim(arguments: &[u8], address: &Path) -> bool {
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
    fn a_first_process_tells_whose_it_is() {
        let mut yes = std::process::Command::new("yes");
        let mut child = yes
            .arg("init")
            .env("_LIBCONTAINER_STATEDIR", "/run/x/oci/ringer/a")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // The kernel tells the environment a moment after the program has begun.
        while beginning(child.id()) != Some(PathBuf::from("/run/x/oci/ringer/a")) {
            assert!(Instant::now() < deadline, "{:?}", beginning(child.id()));
            std::thread::sleep(Duration::from_millis(1));
        }
        let of = |runtime: &str| begun(Path::new("/run/x/sock"), "ringer", Path::new(runtime));
        assert_eq!(
            (of("/run/x/oci/ringer"), of("/run/y/oci/ringer")),
            (HashSet::from(["a".to_owned()]), HashSet::new())
        );
        end_processes(&|pid| beginning(pid).is_some_and(|container| container.starts_with("/run/x/oci")));
        assert!(!child.wait().unwrap().success());
        assert_eq!(beginning(std::process::id()), None);
    }

    #[test]
    fn only_the_cgroup_of_a_container_is_one() {
        assert!(is_id(&"a1".repeat(32)));
        assert!(!is_id("ringer") && !is_id(""));
    }
}
