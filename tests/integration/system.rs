//! The daemon itself, for real: start, calls on it, stop.

use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::daemon::Daemon;

#[tokio::test]
async fn ping_is_dockerds() {
    let daemon = Daemon::start().await;
    let get = daemon.client().get("/_ping").await;
    assert_eq!((get.status, get.text().as_str()), (200, "OK"));
    assert_eq!(get.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    for (name, value) in
        [("api-version", "1.53"), ("ostype", "linux"), ("docker-experimental", "false"), ("swarm", "inactive")]
    {
        assert_eq!(get.headers[name], value);
    }
    let head = daemon.client().send(http::Method::HEAD, "/v1.24/_ping", None).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn info_and_version_name_the_parts() {
    let daemon = Daemon::start().await;
    let version = daemon.client().get("/version").await.json();
    assert_eq!(version["Platform"]["Name"], "ringer");
    // Clients read the key, whatever it says.
    assert!(
        version["GoVersion"].is_string() && version["Components"][0]["Details"]["GoVersion"].is_string(),
        "{version}"
    );
    let names: Vec<_> = version["Components"].as_array().unwrap().iter().map(|part| part["Name"].clone()).collect();
    assert_eq!(names[..2], ["Engine", "containerd"]);
    let info = daemon.client().get("/v1.41/info").await.json();
    assert_eq!((info["OSType"].as_str(), info["Containers"].as_i64()), (Some("linux"), Some(0)));
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    assert!(info["RuncCommit"]["Expected"].is_string(), "1.41 has expected commits");
    let again = daemon.client().get("/info").await.json();
    assert_eq!(again["ID"], info["ID"]);
    assert!(again["RuncCommit"]["Expected"].is_null());
    // `scripts/test` runs the tests once more with the other runtime, and wants to be sure of it.
    if let Ok(runtime) = std::env::var("RINGER_TEST_RUNTIME") {
        assert_eq!(again["DefaultRuntime"], runtime);
    }
}

#[tokio::test]
async fn head_of_events_comes_at_once_and_stream_ends_with_until() {
    let daemon = Daemon::start().await;
    let request = Request::get("/events").body(Full::default()).unwrap();
    let open =
        tokio::time::timeout(Duration::from_secs(10), daemon.client().open(request)).await.expect("a head at once");
    assert_eq!(open.headers()[header::CONTENT_TYPE], "application/jsonl");
    drop(open);
    let past = daemon.client().get("/v1.41/events?until=1").await;
    assert_eq!((past.status, past.body.len()), (200, 0));
    let wrong = daemon.client().get("/events?since=2&until=1").await;
    assert_eq!((wrong.status, wrong.message().as_str()), (400, "`since` time (2) cannot be after `until` time (1)"));
}

/// What a start that fails writes, run as `uid`.
fn failed_start(uid: u32, flags: &[&str]) -> String {
    use std::os::unix::process::CommandExt;
    let folder = Daemon::folder_of_its_own();
    let path = |name: &str| folder.path().join(name);
    // Not everybody may go where it was built.
    std::fs::copy(env!("CARGO_BIN_EXE_ringer"), path("ringer")).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
    let start = std::process::Command::new(path("ringer"))
        .arg("serve")
        .arg(format!("--host=unix://{}", path("docker.sock").display()))
        .arg(format!("--data-root={}", path("data").display()))
        .arg(format!("--exec-root={}", path("run").display()))
        .args(flags)
        .env("PATH", folder.path())
        .uid(uid)
        .gid(uid)
        .output()
        .unwrap();
    assert!(!start.status.success());
    String::from_utf8(start.stderr).unwrap()
}

#[test]
fn first_words_name_what_is_wrong() {
    let stranger = failed_start(65534, &[]);
    assert!(stranger.contains("ringer needs to be started with root privileges"), "{stranger}");
    let alone = failed_start(0, &[]);
    assert!(alone.contains("install containerd") && alone.matches("No such file").count() == 1, "{alone}");
    let waiting = failed_start(0, &["--containerd=/proc/0/nobody.sock"]);
    let (first, last) = waiting.trim_end().split_once('\n').expect("two lines");
    assert!(first.contains("waiting up to 5 s for containerd at /proc/0/nobody.sock"), "{waiting}");
    assert_eq!(last.matches("No such file").count(), 1, "{waiting}");
}

#[tokio::test]
async fn unknown_paths_are_told() {
    let daemon = Daemon::start().await;
    let unknown = daemon.client().get("/v1.41/foo").await;
    assert_eq!((unknown.status, unknown.text().as_str()), (404, "{\"message\":\"page not found\"}\n"));
}

#[tokio::test]
async fn garbage_on_the_socket_hurts_nobody() {
    let daemon = Daemon::start().await;
    let mut stream = tokio::net::UnixStream::connect(daemon.folder().join("docker.sock")).await.unwrap();
    stream.write_all(b"\x16\x03\x01 not http\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(daemon.client().get("/_ping").await.status, 200);
}

#[tokio::test]
async fn second_daemon_is_refused_with_the_holders_name() {
    let daemon = Daemon::start().await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_ringer"))
        .arg("serve")
        .arg(format!("--data-root={}", daemon.folder().join("data").display()))
        .arg(format!("--exec-root={}", daemon.folder().join("run2").display()))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(told.contains(&format!("pid {}, {}", daemon.pid(), daemon.host())), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn term_leaves_nothing_behind() {
    let mut daemon = Daemon::start().await;
    let events = Request::get("/events").body(Full::default()).unwrap();
    let events = daemon.client().open(events).await;
    let status = tokio::task::block_in_place(|| daemon.end());
    assert!(status.success(), "{status}");
    let folder = daemon.folder();
    // A stream without an end of its own does not hold the stop up; it ends well-formed.
    assert!(events.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert!(!folder.join("docker.sock").exists());
    assert!(!folder.join("run").exists());
}
