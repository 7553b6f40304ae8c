//! What can be left of containers outside of the daemon's memory.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::daemon::{Daemon, OUTER};

/// For what a daemon does behind the back of its clients.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until nothing is left.
pub async fn gone(daemon: &Daemon) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let remains = remains(daemon);
        if remains.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{remains:#?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Shims and runtimes that name the folder: in their arguments, or, as the `runc init` of a start, in their environment.
fn shims(folder: &Path) -> Vec<String> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let names_it = |text: Vec<u8>| text.windows(needle.len()).any(|part| part == needle);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let arguments = |process: &Path| {
        let text = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let ours = processes.filter_map(|process| {
        let words = arguments(&process);
        let is_of_runtime = words.contains("containerd-shim") || words.contains("runc");
        let read = |name| fs::read(process.join(name)).unwrap_or_default();
        (is_of_runtime && (names_it(read("cmdline")) || names_it(read("environ")))).then_some(words)
    });
    ours.collect()
}

/// Mounts below the folder: of root file systems, network namespaces, volumes.
fn mounts(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Ends of veth pairs in the daemon's network namespace.
fn veths(daemon: &Daemon) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{}/net/dev", daemon.pid())).unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
    names.filter(|name| *name != "lo" && !name.starts_with("rng")).map(str::to_owned).collect()
}

/// All that is left of containers.
fn remains(daemon: &Daemon) -> Vec<String> {
    let run = daemon.folder().join("run");
    let bundles = |run: &Path| run.join("containerd/state/io.containerd.runtime.v2.task/ringer");
    let mut remains = shims(daemon.folder());
    remains.extend(mounts(daemon.folder()));
    remains.extend(veths(daemon));
    let bundles = [bundles(&run), bundles(&daemon.folder().join(OUTER))];
    let ours = [run.join("netns"), run.join("io"), run.join("oci/ringer"), run.join("containerd/gone")];
    for folder in bundles.iter().chain(&ours) {
        remains.extend(entries(folder).into_iter().map(|name| format!("{}/{name}", folder.display())));
    }
    remains
}
