//! Descriptors: how many the daemon may have, what its containers see of that, and what happens when they run out.

use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::support::daemon::Daemon;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn own_limit_is_raised_and_programs_get_the_inherited_one() {
    let programs = tempfile::tempdir().unwrap();
    let seen = programs.path().join("seen");
    let script = format!("#!/bin/sh\nulimit -Sn > {}\nexec /bin/ps \"$@\"\n", seen.display());
    std::fs::write(programs.path().join("ps"), script).unwrap();
    std::fs::set_permissions(programs.path().join("ps"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let daemon = Daemon::start_under(&["prlimit", "--nofile=200:4000", "env", &path], &[]).await;
    daemon.import_box().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let own = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(own.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["4000", "4000"]);
    let id = daemon.create("limits", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    assert_eq!(daemon.client().get(&format!("/containers/{id}/top")).await.status, 200);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "200\n");
    // As of dockerd: runc raises its own.
    let (code, limit) = daemon.exec(&id, &["sh", "-c", "ulimit -Hn"]).await;
    assert_eq!((code, limit.as_str()), (0, "4000\n"));
}

#[tokio::test]
async fn client_is_told_that_descriptors_are_scarce() {
    let daemon = Daemon::start_under(&["prlimit", "--nofile=256:256"], &[]).await;
    let socket = daemon.folder().join("docker.sock");
    let mut holders = Vec::new();
    let deadline = Instant::now() + LIMIT;
    let refusal = loop {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(LIMIT, stream.read(&mut answer)).await.expect("an answer comes").unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        holders.push(stream);
        assert!(Instant::now() < deadline && holders.len() < 300, "nobody is refused");
    };
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("file descriptors"), "{refusal}");
    assert!(holders.len() >= 64, "refused too early: {}", holders.len());
    drop(holders);
    let client = daemon.client();
    while client.get("/_ping").await.status != 200 {
        assert!(Instant::now() < deadline, "the daemon does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes `ports` from `first` on, each at its own number.
fn published(first: u32, ports: u32) -> Value {
    let numbers = || (first..first + ports).map(|number| format!("{number}/tcp"));
    let bound: serde_json::Map<String, Value> =
        numbers().zip(first..).map(|(port, number)| (port, json!([{ "HostPort": number.to_string() }]))).collect();
    let exposed: serde_json::Map<String, Value> = numbers().map(|port| (port, json!({}))).collect();
    json!({ "ExposedPorts": exposed, "HostConfig": { "PortBindings": bound, "NetworkMode": "bridge" } })
}

#[tokio::test]
async fn ports_leave_descriptors_for_everything_else() {
    let daemon = Daemon::start_under(&["prlimit", "--nofile=2000:2000"], &[]).await;
    daemon.import_box().await;
    let many = daemon.create("many", "sleep 1000", published(20_000, 20_000)).await;
    let refusal = daemon.client().post(&format!("/containers/{many}/start"), Value::Null).await;
    assert_eq!(refusal.status, 500, "{}", refusal.text());
    assert!(refusal.message().contains("cannot publish 20000 ports: they take 40000 sockets"), "{}", refusal.text());
    // What fits is carried, and given back.
    for _ in 0..2 {
        let some = daemon.create("some", "sleep 1000", published(20_000, 400)).await;
        daemon.launch(&some).await;
        let more = daemon.create("more", "sleep 1000", published(30_000, 400)).await;
        let refusal = daemon.client().post(&format!("/containers/{more}/start"), Value::Null).await;
        assert!(refusal.message().contains("of which 800 are taken"), "{}", refusal.text());
        assert_eq!(daemon.run("fine", "echo fine", published(40_000, 1)).await, (0, "fine\n".to_owned()));
        daemon.remove("fine").await;
        daemon.remove("some").await;
        daemon.remove("more").await;
    }
}

/// One transaction of the firewall, whose acknowledgements must fit into a socket.
#[tokio::test]
async fn thousands_of_ports_are_published_together() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("many", "sleep 1000", published(20_000, 3_000)).await;
    daemon.launch(&id).await;
    let shown = daemon.inspect("many").await["NetworkSettings"]["Ports"].as_object().map(serde_json::Map::len);
    assert_eq!(shown, Some(3_000));
    daemon.remove("many").await;
    let again = daemon.create("again", "sleep 1000", published(20_000, 1)).await;
    daemon.launch(&again).await;
    daemon.remove("again").await;
}
