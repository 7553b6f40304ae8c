//! What `ringer run` tells of the runners that it launches, and what it must not leave.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::daemon::Daemon;

/// For whatever a job waits for on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// All launches, oldest first, as `ringer jobs` tells them.
pub fn all(daemon: &Daemon) -> Vec<Value> {
    let output = daemon.ringer(&["jobs", "--all", "--json"]).output().expect("ringer runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("launches as JSON")
}

/// If it has come to its end.
pub fn is_ended(launch: &Value) -> bool {
    launch["state"] == "ended"
}

/// Waits until the launches are as they should be.
pub async fn until(daemon: &Daemon, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let launches = all(daemon);
        if is_so(&launches) {
            return launches;
        }
        assert!(Instant::now() < deadline, "not {what}: {launches:#?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until the daemon has said these words.
pub async fn until_logged(daemon: &Daemon, words: &str) {
    until_logged_times(daemon, words, 1).await;
}

/// The same so often, in all its lives.
pub async fn until_logged_times(daemon: &Daemon, words: &str, times: usize) {
    let deadline = Instant::now() + LIMIT;
    while daemon.log().matches(words).count() < times {
        assert!(Instant::now() < deadline, "{words:?} is not logged {times} times: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until there are so many and all of them have ended.
pub async fn until_all_ended(daemon: &Daemon, count: usize) -> Vec<Value> {
    until(daemon, "all ended", |launches| launches.len() >= count && launches.iter().all(is_ended)).await
}

/// The one that waits has the job that `comes` waits for, another takes its place, and a drain ends that.
pub async fn warm_one_is_replaced(daemon: &Daemon, comes: impl AsyncFnOnce()) {
    let waits = |launches: &[Value]| launches.last().is_some_and(|launch| launch["state"] == "waiting");
    let warm = until(daemon, "one waits", waits).await;
    comes().await;
    let all = until(daemon, "another waits", |launches| launches.len() == 2 && waits(launches)).await;
    assert_eq!((&all[0]["name"], &all[0]["outcome"]), (&warm[0]["name"], &json!("success")), "{all:#?}");
    assert!(daemon.ringer(&["drain"]).status().expect("ringer runs").success());
    let ended = until_all_ended(daemon, 2).await;
    assert!(ended[1]["outcome"].as_str().is_some_and(|words| words.contains("draining")), "{ended:#?}");
}

/// Nothing of any job is left on the machine.
pub fn none_is_left(daemon: &Daemon) {
    let jobs = daemon.ringer(&["job", "ls", "--json"]).output().expect("ringer runs").stdout;
    assert_eq!(serde_json::from_slice::<Value>(&jobs).expect("JSON"), json!([]));
    let left = |folder: &str| fs::read_dir(daemon.folder().join(folder)).map_or(0, Iterator::count);
    assert_eq!((left("data/tenants"), left("run/jobs"), left("run/hosts")), (0, 0, 0), "folders of jobs");
}

/// The log of a launch's runner, which outlives it.
pub fn log_of(daemon: &Daemon, launch: &Value) -> String {
    let name = launch["name"].as_str().expect("a name");
    let output = daemon.ringer(&["logs", name]).output().expect("ringer runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
