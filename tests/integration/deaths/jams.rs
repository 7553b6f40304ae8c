//! What a job can jam from inside: files that are pipes, where the runtime reads a file.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::remains;
use crate::support::daemon::Daemon;

/// Far less than for ever, and enough for a loaded machine.
const LIMIT: Duration = Duration::from_secs(100);

/// runc looks users up inside the container, so that an exec waits there for the pipe's other end.
const JAM: &str = "rm /etc/passwd /etc/group; mknod /etc/passwd p; mknod /etc/group p; touch /data/done; sleep 1000";

async fn jammed(daemon: &Daemon, name: &str, pid_mode: &str) {
    let id = daemon.create(name, JAM, json!({"HostConfig": {"PidMode": pid_mode}})).await;
    daemon.launch(&id).await;
    let deadline = Instant::now() + LIMIT;
    while daemon.client().get(&format!("/containers/{id}/archive?path=/data/done")).await.status != 200 {
        assert!(Instant::now() < deadline, "the container does not make its pipes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let body = json!({"Cmd": ["true"], "AttachStdout": true});
    let exec = daemon.client().post(&format!("/containers/{id}/exec"), body).await.json()["Id"].clone();
    let client = daemon.client().clone();
    tokio::spawn(async move {
        let path = format!("/exec/{}/start", exec.as_str().expect("an id"));
        client.post(&path, json!({"Detach": true})).await
    });
    // Until the runtime has taken the exec up, as far as it gets.
    let deadline = Instant::now() + LIMIT;
    while !daemon.inspect(&id).await["ExecIDs"].is_array() {
        assert!(Instant::now() < deadline, "the exec is not there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// dockerd stops and removes such a container at once; its own exec and top wait for ever.
#[tokio::test]
async fn a_container_whose_user_database_is_a_pipe_can_be_ended() {
    let daemon = Daemon::with_box().await;
    for (name, mode) in [("stopped", ""), ("removed", ""), ("of-the-host", "host")] {
        jammed(&daemon, name, mode).await;
    }
    let client = daemon.client();
    let ended = async {
        let (stopped, removed, of_the_host) = tokio::join!(
            client.post("/containers/stopped/stop?t=1", Value::Null),
            client.delete("/containers/removed?force=1"),
            client.delete("/containers/of-the-host?force=1"),
        );
        assert_eq!(stopped.status, 204, "{}", stopped.text());
        assert_eq!(removed.status, 204, "{}", removed.text());
        assert_eq!(of_the_host.status, 204, "{}", of_the_host.text());
        assert_eq!(daemon.inspect("stopped").await["State"]["Running"], json!(false));
        daemon.remove("stopped").await;
    };
    let ended = tokio::time::timeout(LIMIT, ended).await;
    assert!(ended.is_ok(), "something waits for the pipe\n{}", daemon.log());
    // An exec that still waited would hold its shim up.
    remains::gone(&daemon).await;
}
