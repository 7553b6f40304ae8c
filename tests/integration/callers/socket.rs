//! Binds of the daemon's socket from inside a container.

use serde_json::json;

use super::client::{Caller, SOCKET};
use crate::support::{boxes::IMAGE, daemon::Daemon};

/// Asks through the socket at `/other.sock`, from a container that has only that.
fn ping_at(socket: &str) -> serde_json::Value {
    let folders = ["/usr/lib:/usr/lib", "/lib:/lib", "/lib64:/lib64", "/usr/bin:/usr/bin"].map(str::to_owned);
    let binds: Vec<String> = folders.into_iter().chain([format!("{socket}:/other.sock")]).collect();
    json!({"Binds": binds})
}

const PING: &str = "/usr/bin/curl --silent --unix-socket /other.sock http://docker/_ping";

#[tokio::test]
async fn usual_name_is_the_callers_own_socket_wherever_that_is() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &[], json!({})).await;
    caller.shell(&format!("ln -s {SOCKET} /link.sock")).await;
    for socket in ["/var/run/docker.sock", "/run/docker.sock", SOCKET, "/link.sock", "/work/../sock/docker.sock"] {
        assert_eq!(caller.run("see", PING, ping_at(socket)).await, (0, "OK".to_owned()), "{socket}");
        daemon.remove("see").await;
    }
    // As one of `Mounts`, whose source must be there.
    let mount = json!({"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/m"});
    let (code, _) = caller.run("mount", "test -S /m", json!({"Mounts": [mount]})).await;
    assert_eq!(code, 0);
    assert_eq!(daemon.inspect("mount").await["Mounts"][0]["Source"], "/var/run/docker.sock");
    // It needs nothing of the caller's.
    daemon.remove(&caller.id).await;
    daemon.launch("mount").await;
    assert_eq!(daemon.exit_code("mount").await, 0);
}

#[tokio::test]
async fn what_the_caller_has_at_the_usual_name_is_its_own() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &[], json!({})).await;
    caller.shell("mkdir -p /run/docker.sock && echo mine > /run/docker.sock/file").await;
    assert_eq!(caller.see("/var/run/docker.sock:/s", "cat /s/file").await, "mine\n");
}

#[tokio::test]
async fn daemon_that_is_gone_and_back_is_reached_by_a_new_start() {
    let mut daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &[], json!({})).await;
    let made = caller.create("made", "test -S /m", json!({"Binds": ["/run/docker.sock:/m"]})).await;
    assert_eq!(made.status, 201);
    daemon.kill();
    daemon.restart().await;
    assert_eq!(daemon.inspect("made").await["Config"]["Image"], IMAGE);
    daemon.launch("made").await;
    assert_eq!(daemon.exit_code("made").await, 0);
}
