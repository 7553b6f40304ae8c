//! A daemon that is stopped and started again on the same folders: which containers run again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// Ends at once when it is asked to, so that a stopping daemon need not wait.
const POLITE: &str = "trap 'exit 7' TERM; while :; do sleep 0.05; done";

fn policy(name: &str) -> Value {
    json!({"HostConfig": {"RestartPolicy": {"Name": name}}})
}

/// What starts with the daemon does so while clients are served.
async fn comes_to(daemon: &Daemon, name: &str, wanted: (String, i64, i64)) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while state(daemon, name).await != wanted {
        assert!(Instant::now() < deadline, "{name}: {:?}\n{}", state(daemon, name).await, daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn state(daemon: &Daemon, name: &str) -> (String, i64, i64) {
    let body = daemon.inspect(name).await;
    let number = |value: &Value| value.as_i64().unwrap();
    let status = body["State"]["Status"].as_str().unwrap().to_owned();
    (status, number(&body["State"]["ExitCode"]), number(&body["RestartCount"]))
}

fn running() -> (String, i64, i64) {
    ("running".to_owned(), 0, 0)
}

fn exited(code: i64) -> (String, i64, i64) {
    ("exited".to_owned(), code, 0)
}

/// As dockerd 20 and 28, asked the same.
#[tokio::test]
async fn restart_policies_are_served_at_the_start() {
    let mut daemon = Daemon::with_box().await;
    for (name, restart) in [
        ("always", "always"),
        ("stopped-always", "always"),
        ("unless", "unless-stopped"),
        ("stopped-unless", "unless-stopped"),
        ("failing", "on-failure"),
        ("never", "no"),
    ] {
        let id = daemon.create(name, POLITE, policy(restart)).await;
        daemon.launch(&id).await;
    }
    // Joins a network that is there only when the other one runs again.
    let joining = json!({"HostConfig": {"NetworkMode": "container:always", "RestartPolicy": {"Name": "always"}}});
    let id = daemon.create("aa-joins", POLITE, joining).await;
    daemon.launch(&id).await;
    daemon.create("new", POLITE, policy("always")).await;
    daemon.create("gone", POLITE, json!({"HostConfig": {"AutoRemove": true}})).await;
    daemon.launch("gone").await;
    for name in ["stopped-always", "stopped-unless"] {
        assert_eq!(daemon.client().post(&format!("/containers/{name}/stop?t=5"), Value::Null).await.status, 204);
    }
    let before = daemon.inspect("always").await["State"]["StartedAt"].clone();

    assert!(daemon.end().success());
    daemon.restart().await;

    for name in ["always", "stopped-always", "unless", "failing", "aa-joins"] {
        comes_to(&daemon, name, running()).await;
    }
    assert_ne!(daemon.inspect("always").await["State"]["StartedAt"], before, "it was ended with the daemon");
    for name in ["stopped-unless", "never"] {
        assert_eq!(state(&daemon, name).await, exited(7), "{name}");
    }
    assert_eq!(state(&daemon, "new").await.0, "created", "what never ran is not started");
    assert_eq!(daemon.client().get("/containers/gone/json").await.status, 404);
    // The new life knows its containers as the old one did.
    assert_eq!(daemon.client().post("/containers/unless/stop?t=5", Value::Null).await.status, 204);
    assert!(daemon.end().success());
    daemon.restart().await;
    assert_eq!(state(&daemon, "unless").await, exited(7));
    comes_to(&daemon, "always", running()).await;
    assert!(daemon.end().success());
}
