//! What clients do to a daemon: leave in the middle, come all at once, ask for the impossible.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::{boxes::unframed, daemon::Daemon};

/// How many come at once.
const CLIENTS: usize = 64;

/// For how long: `RINGER_TEST_RUSH` seconds, or only so long that each has its turn.
fn rush() -> Duration {
    let seconds = std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

/// The most memory that a process has had so far, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Everything of a container's life that CI uses, once.
async fn one_round(daemon: &Daemon, name: &str) {
    let id = daemon.create(name, "sleep 100", Value::Null).await;
    daemon.launch(&id).await;
    let (code, output) = daemon.exec(&id, &["sh", "-c", "echo in; exit 3"]).await;
    assert_eq!((code, output.as_str()), (3, "in\n"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    tar.append_data(&mut header, "put", b"here".as_slice()).unwrap();
    let put = Request::put(format!("/containers/{id}/archive?path=/tmp"))
        .header("content-type", "application/x-tar")
        .body(Full::from(Bytes::from(tar.into_inner().unwrap())))
        .unwrap();
    assert_eq!(daemon.client().whole(put).await.status, 200);
    let got = daemon.client().get(&format!("/containers/{id}/archive?path=/tmp/put")).await;
    assert!(got.status == 200 && got.body.windows(4).any(|bytes| bytes == b"here"));
    daemon.remove(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_get_what_each_asked_for() {
    let daemon = Daemon::with_box().await;
    let end = Instant::now() + rush();
    let clients = (0..CLIENTS).map(|client| {
        let daemon = &daemon;
        async move {
            let mut rounds = 0;
            while Instant::now() < end {
                // The name is free again when its removal is answered.
                one_round(daemon, &format!("client-{client}")).await;
                rounds += 1;
            }
            rounds
        }
    });
    let rounds = join_all(clients).await;
    assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
    assert_eq!(daemon.client().get("/containers/json?all=1").await.json(), json!([]));
}

#[tokio::test]
async fn removal_by_force_works_in_every_state() {
    let daemon = Daemon::with_box().await;
    let restarting = json!({"HostConfig": {"RestartPolicy": {"Name": "always"}}});
    for (state, script, extra) in [
        ("created", "true", Value::Null),
        ("running", "sleep 100", Value::Null),
        ("paused", "sleep 100", Value::Null),
        ("exited", "true", Value::Null),
        ("restarting", "exit 1", restarting),
    ] {
        let id = daemon.create("one", script, extra).await;
        if state != "created" {
            daemon.launch(&id).await;
        }
        if state == "paused" {
            assert_eq!(daemon.client().post("/containers/one/pause", Value::Null).await.status, 204);
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while daemon.inspect(&id).await["State"]["Status"] != state {
            assert!(Instant::now() < deadline, "never {state}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon.remove("one").await;
        assert_eq!(daemon.client().get(&format!("/containers/{id}/json")).await.status, 404, "{state}");
    }
}

#[tokio::test]
async fn of_two_removals_at_once_one_is_answered_and_the_other_refused() {
    let daemon = Daemon::with_box().await;
    for _ in 0..5 {
        let id = daemon.create("one", "sleep 100", Value::Null).await;
        daemon.launch(&id).await;
        let delete = || async { daemon.client().delete("/containers/one?force=1").await.status };
        let (first, second) = tokio::join!(delete(), delete());
        let mut statuses = [first, second];
        statuses.sort_unstable();
        // Whoever comes late finds a removal under way, or nothing any more.
        assert!(matches!(statuses, [204, 404 | 409]), "{statuses:?}");
    }
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_disturb_nobody() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("one", "while :; do echo x; sleep 0.05; done", Value::Null).await;
    daemon.launch(&id).await;
    for path in
        ["/containers/one/logs?stdout=1&follow=1", "/containers/one/stats", "/events", "/containers/one/archive?path=/"]
    {
        let request = Request::get(path).body(Full::default()).unwrap();
        let mut body = daemon.client().open(request).await.into_body();
        if path != "/events" {
            body.frame().await.expect("something comes").unwrap();
        }
        drop(body);
    }
    let wait = Request::post("/containers/one/wait").body(Full::default()).unwrap();
    drop(daemon.client().open(wait).await);
    let attach = "/containers/one/attach?stream=1&stdout=1&stderr=1";
    let (_, mut stream) = daemon.client().hijack(attach, Value::Null).await;
    stream.read_u8().await.unwrap();
    drop(stream);
    let exec = daemon.client().post("/containers/one/exec", json!({"Cmd": ["sleep", "1"], "AttachStdout": true})).await;
    let exec = exec.json()["Id"].as_str().unwrap().to_owned();
    drop(daemon.client().hijack(&format!("/exec/{exec}/start"), json!({})).await);
    let (code, output) = daemon.exec(&id, &["echo", "still here"]).await;
    assert_eq!((code, output.as_str()), (0, "still here\n"));
    // Nobody is left that listens to the container or the daemon.
    let deadline = Instant::now() + Duration::from_secs(20);
    while daemon.client().get("/info").await.json()["NEventsListener"] != 0 {
        assert!(Instant::now() < deadline, "a listener of events stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.remove(&id).await;
}

#[tokio::test]
async fn a_client_that_never_reads_holds_nobody_up() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("loud", "yes xxxxxxxxx | head -c 20000000; exit 5", Value::Null).await;
    let request = Request::get("/containers/loud/logs?stdout=1&follow=1").body(Full::default()).unwrap();
    daemon.launch(&id).await;
    let never_read = daemon.client().open(request.clone()).await;
    let followed = daemon.client().whole(request).await;
    assert_eq!(daemon.exit_code(&id).await, 5);
    assert_eq!(unframed(&followed.body).len(), 20_000_000);
    drop(never_read);
}

#[tokio::test]
async fn processes_that_run_out_are_refused_and_the_container_stays() {
    let daemon = Daemon::with_box().await;
    let limited = json!({"HostConfig": {"PidsLimit": 6}});
    let id = daemon.create("few", "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; sleep 100", limited).await;
    daemon.launch(&id).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !daemon.output(&id).await.contains("can't fork") {
        assert!(Instant::now() < deadline, "never refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.remove(&id).await;
}

#[tokio::test]
async fn what_is_sent_and_fetched_passes_through_whatever_its_size() {
    const SIZE: u64 = 512 << 20;
    let daemon = Daemon::with_box().await;
    let id = daemon.create("large", "true", Value::Null).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let before = peak_memory(daemon.pid());

    let docker = |arguments: &[&str]| {
        let output = daemon.docker().args(arguments).stdout(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    docker(&["cp", file.path().to_str().unwrap(), &format!("{id}:/tmp/large")]);
    let head = Request::head(format!("/containers/{id}/archive?path=/tmp/large")).body(Full::default()).unwrap();
    let stat = daemon.client().whole(head).await.headers["x-docker-container-path-stat"].clone();
    let stat: Value = serde_json::from_slice(&STANDARD.decode(stat).unwrap()).unwrap();
    assert_eq!(stat["size"], SIZE);
    docker(&["cp", &format!("{id}:/tmp/large"), "-"]);
    docker(&["commit", &id, "large"]);
    docker(&["save", "large"]);
    docker(&["export", &id]);

    let grown = peak_memory(daemon.pid()) - before;
    assert!(grown < 64 << 10, "the daemon grew by {grown} KiB");
}
