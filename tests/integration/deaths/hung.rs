//! A containerd that is there and says nothing.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// Several limits of calls in a row, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A containerd that is stopped as long as this lives.
struct Hung(Pid);

impl Hung {
    fn of(daemon: &Daemon) -> Self {
        let text = std::fs::read_to_string(daemon.folder().join("run/containerd/containerd.pid")).expect("a pid file");
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let pid = pid.expect("a number");
        kill_process(pid, Signal::STOP).expect("it runs");
        Self(pid)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ended = kill_process(self.0, Signal::CONT);
    }
}

#[tokio::test]
async fn a_hung_containerd_makes_nobody_wait_for_ever() {
    let daemon = Daemon::with_box().await;
    for name in ["killed", "stopped", "removed", "other"] {
        let id = daemon.create(name, "sleep 1000", Value::Null).await;
        daemon.launch(&id).await;
    }
    assert_eq!(daemon.client().get("/info").await.json()["Images"], json!(1));
    let known = daemon.client().get("/v1.41/system/df").await.json();
    let pid = daemon.inspect("killed").await["State"]["Pid"].as_i64().expect("a number");
    let hung = Hung::of(&daemon);
    let client = daemon.client();
    let started = Instant::now();
    let asked = async {
        tokio::join!(
            client.get("/info"),
            client.get("/images/json"),
            client.get("/v1.41/system/df"),
            daemon.try_create("new", "true", Value::Null),
            client.get("/containers/other/top"),
            client.post("/containers/killed/kill", Value::Null),
            client.post("/containers/stopped/stop?t=1", Value::Null),
            client.get("/containers/other/stats?stream=0&one-shot=1"),
            client.post("/containers/other/start", Value::Null),
            client.get("/containers/json"),
        )
    };
    let answers = tokio::time::timeout(LIMIT, asked).await.expect("all are answered");
    let (info, images, df, created, top, killed, stopped, _stats, again, list) = answers;
    eprintln!("all were answered after {:?}", started.elapsed());
    assert_eq!((info.status, info.json()["Images"].clone()), (200, json!(1)), "{}", info.text());
    assert_eq!((again.status, list.status), (304, 200), "what needs no containerd is as ever");
    assert_eq!(images.status, 200, "{}", images.text());
    assert_eq!(images.json()[0]["RepoTags"], known["Images"][0]["RepoTags"], "what is known is shown");
    assert_eq!(df.status, 200, "{}", df.text());
    for part in ["LayersSize", "Images"] {
        assert_eq!(df.json()[part], known[part], "{part} as it was known");
    }
    assert_eq!(df.json()["Containers"].as_array().expect("a list").len(), 4);
    for (verb, answer) in [("create", created), ("top", top)] {
        assert_eq!(answer.status, 503, "{verb}: {}", answer.text());
        assert!(answer.message().contains("context deadline exceeded"), "{verb}: {}", answer.text());
    }
    // The process is ended without containerd, and its end is seen.
    for (verb, answer) in [("kill", killed), ("stop", stopped)] {
        assert_eq!(answer.status, 204, "{verb}: {}", answer.text());
    }
    assert!(!std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists(), "the process has ended");
    drop(hung);
    let deadline = Instant::now() + LIMIT;
    while client.get("/images/json").await.status != 200 {
        assert!(Instant::now() < deadline, "containerd goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemon.remove("removed").await;
    assert_eq!(daemon.run("after", "echo fine", Value::Null).await, (0, "fine\n".to_owned()));
}

/// What a removal asks of containerd one after the other is in vain once, not each time: two changes of its database wait for a
/// minute each.
#[tokio::test]
async fn a_hung_containerd_is_found_out_before_the_limits_of_slow_calls() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("removed", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    let hung = Hung::of(&daemon);
    let client = daemon.client();
    let started = Instant::now();
    let (usage, removed) = tokio::join!(client.get("/system/df"), client.delete("/containers/removed?force=1"));
    let waited = started.elapsed();
    assert_eq!(usage.status, 200, "nobody asked for it before: {}", usage.text());
    assert_eq!(removed.status, 503, "{}", removed.text());
    assert!(removed.message().contains("context deadline exceeded"), "{}", removed.text());
    assert!(waited < LIMIT, "{waited:?}");
    drop(hung);
    daemon.remove("removed").await;
}

/// Something that says of itself that it is the shim of a container, of which containerd knows nothing.
struct ForgottenShim(std::process::Child);

impl ForgottenShim {
    fn of(daemon: &Daemon) -> Self {
        use std::os::unix::process::CommandExt;
        let address = daemon.folder().join("run/containerd/containerd.sock");
        let mut shim = std::process::Command::new("/bin/sh");
        shim.arg0("containerd-shim-runc-v2").args(["-c", "sleep 1000 & wait", "-namespace", "ringer", "-id"]);
        let shim = shim.arg("0123456789abcdef".repeat(4)).arg("-address").arg(address);
        Self(shim.spawn().expect("there is a shell"))
    }
}

impl Drop for ForgottenShim {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// As after a containerd that died while it deleted a task.
#[tokio::test]
async fn a_shim_that_containerd_has_forgotten_ends_with_the_daemon() {
    let mut daemon = Daemon::with_box().await;
    assert_eq!(daemon.run("fine", "true", Value::Null).await.0, 0);
    let mut forgotten = ForgottenShim::of(&daemon);
    assert!(daemon.end().success());
    assert!(forgotten.0.try_wait().expect("a child can be asked").is_some(), "the shim is still there");
}
