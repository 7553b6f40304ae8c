//! Daemons that are killed while containers start: nothing of these is left once the next one has settled.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// For what the next daemon does behind the back of its clients.
const LIMIT: Duration = Duration::from_secs(60);

/// Kills of one run; `RINGER_TEST_RUSH` multiplies them.
const KILLS: u64 = 6;

/// Containers that start at once.
const STARTS: usize = 3;

fn kills() -> u64 {
    let factor = std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    KILLS * factor.max(1)
}

/// Processes other than the daemon and its containerd that name the folder, as shims do.
fn shims(folder: &Path) -> Vec<String> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let arguments = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let ours = arguments.filter(|text| text.windows(needle.len()).any(|part| part == needle));
    let words = ours.map(|text| String::from_utf8_lossy(&text).replace('\0', " "));
    words.filter(|text| text.contains("containerd-shim") || text.contains("runc")).collect()
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
    let bundles = run.join("containerd/state/io.containerd.runtime.v2.task/ringer");
    let mut remains = shims(daemon.folder());
    remains.extend(mounts(daemon.folder()));
    remains.extend(veths(daemon));
    for folder in [bundles, run.join("netns"), run.join("io"), run.join("oci/ringer")] {
        remains.extend(entries(&folder).into_iter().map(|name| format!("{}/{name}", folder.display())));
    }
    remains
}

async fn remove_all(daemon: &Daemon) {
    for container in daemon.client().get("/containers/json?all=1").await.json().as_array().expect("a list") {
        let id = container["Id"].as_str().expect("an id");
        let answer = daemon.client().delete(&format!("/containers/{id}?force=1&v=1")).await;
        assert!(matches!(answer.status, 204 | 404), "{}", answer.text());
    }
}

#[tokio::test]
async fn nothing_is_left_of_starts_that_a_death_interrupts() {
    let mut daemon = Daemon::with_box().await;
    for round in 0..kills() {
        let mut starting = Vec::new();
        for n in 0..STARTS {
            let bridge = json!({"HostConfig": {"NetworkMode": "bridge"}});
            let id = daemon.create(&format!("box{n}"), "sleep 1000", bridge).await;
            let client = daemon.client().clone();
            starting
                .push(tokio::spawn(async move { client.post(&format!("/containers/{id}/start"), Value::Null).await }));
        }
        // Through all of a start, which takes 100 to 300 ms.
        tokio::time::sleep(Duration::from_millis(20 + (round * 67) % 400)).await;
        daemon.kill();
        for task in starting {
            task.abort();
            let _aborted = task.await;
        }
        daemon.restart().await;
        // Starts as if nothing had been, before all of it is taken away.
        daemon.launch("box0").await;
        assert_eq!(daemon.exec("box0", &["echo", "fine"]).await, (0, "fine\n".to_owned()), "round {round}");
        remove_all(&daemon).await;
        let deadline = Instant::now() + LIMIT;
        loop {
            let remains = remains(&daemon);
            if remains.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {remains:#?}\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
