//! One job that asks for more than there is: the daemon stays within its memory, and another job notices nothing.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    bombs::{fort::Fort, naive},
    jobs::Job,
};

/// Connections that a job may have at once.
const SERVED: usize = ringer::model::limits::JOB_CONNECTIONS;

/// What a client may wait for on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A request whose headers do not end, as far as it is taken.
pub async fn half_open(socket: &str, head: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let _until_it_is_refused =
        tokio::time::timeout(LIMIT, stream.write_all(head)).await.expect("it is read or refused");
    stream
}

/// The status, if an answer comes.
async fn status(stream: &mut UnixStream) -> Option<String> {
    let mut line = [0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut line)).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&line).into_owned())
}

pub async fn others_go_on(fort: &Fort, other: &Job, what: &str, log: usize) {
    let asked = Instant::now();
    let (code, output) = other.client.run("busy", "echo fine", json!({})).await;
    assert_eq!((code, output.as_str()), (0, "fine\n"), "{what}");
    assert!(asked.elapsed() < LIMIT, "{what}: {:?}", asked.elapsed());
    other.client.remove("busy").await;
    fort.stands(what, log).await;
}

#[tokio::test]
async fn a_jobs_flood_drowns_nobody_else() {
    let fort = Fort::build().await;
    let (flood, other) = (Job::with_box(fort.daemon(), &[]).await, Job::with_box(fort.daemon(), &[]).await);
    let log = fort.log_length();

    // Of the default socket, which has no such wall, more are served.
    let open = fort.daemon().folder().join("docker.sock").display().to_string();
    let mut naive = Vec::new();
    for _ in 0..=SERVED {
        naive.push(half_open(&open, b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await);
    }
    assert_eq!(status(naive.last_mut().unwrap()).await.as_deref(), Some("HTTP/1.1 200"));
    drop(naive);

    let socket = flood.host().trim_start_matches("unix://").to_owned();
    let head = format!("GET /_ping HTTP/1.1\r\nHost: d\r\nX-Long: {}", "x".repeat(ringer::model::limits::HEAD - 64));
    let mut held = Vec::new();
    for _ in 0..SERVED {
        held.push(half_open(&socket, head.as_bytes()).await);
    }
    for _ in 0..200 {
        let mut refused = half_open(&socket, b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert!(status(&mut refused).await.is_none_or(|status| status == "HTTP/1.1 503"));
    }
    others_go_on(&fort, &other, "half-open connections", log).await;
    drop(held);
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut again = half_open(&socket, b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        match status(&mut again).await.as_deref() {
            Some("HTTP/1.1 200") => break,
            _ => assert!(Instant::now() < deadline, "places come back"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Events of long labels, for many who do not read them.
    let mut listeners = Vec::new();
    for _ in 0..100 {
        listeners.push(flood.client.open(Request::get("/events").body(Full::default()).unwrap()).await);
    }
    let labels = json!({"Labels": {"long": "x".repeat(1 << 20)}});
    assert!(naive::dies_of_holding(labels.to_string().as_bytes(), 200), "events with long labels are no flood");
    let id = flood.client.create("long", "sleep 1000", labels).await;
    for round in 0..200 {
        let renamed = flood.client.post(&format!("/containers/{id}/rename?name=long{round}"), Value::Null).await;
        assert_eq!(renamed.status, 204, "{}", renamed.text());
    }
    others_go_on(&fort, &other, "events with long labels", log).await;
    drop(listeners);

    flood.client.launch(&id).await;
    let exec = json!({"Cmd": ["true"], "Env": [format!("A={}", "x".repeat(4 << 20))]});
    assert!(naive::dies_of_holding(exec.to_string().as_bytes(), 40), "execs that nobody starts are no flood");
    let mut refused = 0;
    for _ in 0..40 {
        let made = flood.client.post(&format!("/containers/{id}/exec"), exec.clone()).await;
        assert!([201, 409].contains(&made.status), "{}", made.text());
        refused += usize::from(made.status == 409);
    }
    assert!(refused > 30, "{refused}");
    others_go_on(&fort, &other, "execs that nobody starts", log).await;
    for job in [&flood, &other] {
        job.remove(fort.daemon());
    }
}
