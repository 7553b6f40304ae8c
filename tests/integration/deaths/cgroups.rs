//! Cgroups: none is left that only a daemon could have made.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// Every cgroup of the machine that ends in `name`.
fn called(name: &str) -> Vec<PathBuf> {
    let output = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*{name}")])
        .output()
        .expect("find is there");
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

/// For the end of a task, which goes on when its container's removal is answered.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until no cgroup ends in `name` any more.
async fn gone(daemon: &Daemon, name: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = called(name);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes what a failed test leaves.
struct Remains(String);

impl Drop for Remains {
    fn drop(&mut self) {
        for folder in called(&format!("{}*", self.0)) {
            let _ = fs::remove_dir(folder);
        }
    }
}

async fn launched(daemon: &Daemon, name: &str, parent: &str) -> String {
    let id = daemon.create(name, "sleep 1000", json!({"HostConfig": {"CgroupParent": parent}})).await;
    daemon.launch(&id).await;
    id
}

/// The cgroup of a container's process in the first hierarchy that is listed.
async fn cgroup(daemon: &Daemon, id: &str) -> String {
    let pid = daemon.inspect(id).await["State"]["Pid"].as_i64().expect("it runs");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process lives");
    text.lines().next().expect("a hierarchy").splitn(3, ':').nth(2).expect("a path").to_owned()
}

async fn memory(daemon: &Daemon, id: &str) -> Option<u64> {
    let stats = daemon.client().get(&format!("/containers/{id}/stats?stream=0&one-shot=1")).await;
    stats.json()["memory_stats"]["usage"].as_u64()
}

/// dockerd hands any path to its runtime, and reads where that path leads.
#[tokio::test]
async fn a_parent_cannot_climb_and_goes_with_its_last_container() {
    let daemon = Daemon::with_box().await;
    let name = format!("ringertest-{}", daemon.pid());
    let _remains = Remains(name.clone());
    let relative = launched(&daemon, "relative", &format!("../../{name}-in")).await;
    let absolute = launched(&daemon, "absolute", &format!("/../../../{name}-out/deep")).await;
    let plain = launched(&daemon, "plain", "").await;
    let own = cgroup(&daemon, &plain).await.strip_suffix(&format!("/{plain}")).expect("a parent").to_owned();
    assert_eq!(cgroup(&daemon, &relative).await, format!("{own}/{name}-in/{relative}"));
    assert!(cgroup(&daemon, &absolute).await.ends_with(&format!("/{name}-out/deep/{absolute}")));
    for id in [&relative, &absolute, &plain] {
        assert!(memory(&daemon, id).await > Some(0), "what it uses is read from where it is");
    }
    // Their ends meet each other and the start of another one.
    let next = daemon.create("next", "sleep 1000", Value::Null).await;
    tokio::join!(daemon.remove(&relative), daemon.remove(&absolute), daemon.remove(&plain), daemon.launch(&next));
    gone(&daemon, &format!("/{name}*")).await;
}

#[tokio::test]
async fn a_start_removes_the_cgroups_that_killed_daemons_left() {
    let mut daemon = Daemon::with_box().await;
    let name = format!("ringertest-{}", daemon.pid());
    let _remains = Remains(name.clone());
    let plain = launched(&daemon, "plain", "").await;
    let elsewhere = launched(&daemon, "elsewhere", &format!("/{name}")).await;
    // What a daemon leaves that dies between making a container's cgroup and its process.
    let left = "0123456789abcdef".repeat(4);
    for folder in called(&format!("/{plain}")) {
        fs::create_dir_all(folder.with_file_name(&left).join("nested")).unwrap();
    }
    assert!(!called(&format!("/{left}")).is_empty());
    daemon.kill();
    daemon.restart().await;
    assert_eq!(called(&format!("/{left}*")), Vec::<PathBuf>::new());
    for id in [&plain, &elsewhere] {
        assert_eq!(daemon.client().delete(&format!("/containers/{id}?force=1")).await.status, 204);
    }
    assert_eq!(daemon.client().get("/containers/json?all=1").await.json(), Value::Array(Vec::new()));
    assert!(daemon.end().success(), "{}", daemon.log());
    assert_eq!(called(&format!("/{name}*")), Vec::<PathBuf>::new());
    assert_eq!(called(&format!("/{plain}")), Vec::<PathBuf>::new());
}
