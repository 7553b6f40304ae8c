//! One job that stores without end, sends bodies that do not end and reads no answer: the daemon stays within its memory, and another
//! job notices nothing.

use std::{fmt::Write, time::Duration};

use http::Request;
use http_body_util::Full;
use ringer::model::limits;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::floods::{half_open, others_go_on};
use crate::{
    bombs::{fort::Fort, naive},
    jobs::Job,
    support::{boxes, daemon::http::Client},
};

/// Of volumes, also of those that have names: `{"all":["1"]}`.
const PRUNE: &str = "/volumes/prune?filters=%7B%22all%22%3A%5B%221%22%5D%7D";

/// Rounds after which a wall must have been met.
const MANY: usize = 64;

/// Lists of some 10 MiB that nobody reads: with all of them the daemon would be far beyond its limit.
const UNREAD: usize = 32;

/// So many short labels.
fn labels(count: usize) -> Value {
    (0..count).map(|n| (format!("k{n}"), json!(""))).collect::<serde_json::Map<_, _>>().into()
}

/// Makes one after the other until there is no room, and tells how many there are.
async fn made(client: &Client, path: &str, body: impl Fn(usize) -> Value) -> usize {
    for round in 0..MANY {
        let answer = client.post(path, body(round)).await;
        if answer.status == 409 {
            assert!(answer.message().contains("there is no room for more: "), "{}", answer.text());
            return round;
        }
        assert_eq!(answer.status, 201, "{path} {round}: {}", answer.text());
    }
    panic!("{path}: no end after {MANY}");
}

/// A body of which the end does not come.
async fn half_body(socket: &str, sent: usize) -> UnixStream {
    let mut request = String::from("POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n");
    let _a_string_takes_all = write!(request, "Content-Length: {}\r\n\r\n\"{}", limits::BODY, "x".repeat(sent));
    half_open(socket, request.as_bytes()).await
}

#[tokio::test]
async fn what_a_job_has_stored_or_does_not_read_has_an_end() {
    let fort = Fort::build().await;
    let (hoard, other) = (Job::with_box(fort.daemon(), &[]).await, Job::with_box(fort.daemon(), &[]).await);
    let log = fort.log_length();
    let long = |megabytes: usize| json!({"long": "x".repeat(megabytes << 20)});

    // Of the default socket, which has no such wall, more is taken.
    for round in 0..=limits::JOB_RECORDS >> 20 {
        let volume = json!({"Name": format!("naive{round}"), "Labels": long(1)});
        assert_eq!(fort.daemon().client().post("/volumes/create", volume).await.status, 201);
    }
    assert_eq!(fort.daemon().client().post(PRUNE, Value::Null).await.status, 200);

    let client = &hoard.client;
    // A million labels.
    let many = labels(100_000);
    let volumes =
        made(client, "/volumes/create", |round| json!({"Name": format!("many{round}"), "Labels": many})).await;
    assert!((1..10).contains(&volumes), "{volumes}");
    others_go_on(&fort, &other, "a million labels of volumes", log).await;
    assert_eq!(client.post(PRUNE, Value::Null).await.status, 200);
    let network =
        |round: usize| json!({"Name": format!("net{round}"), "ConfigOnly": true, "Driver": "null", "Labels": long(1)});
    let networks = made(client, "/networks/create", network).await;
    assert!((8..=16).contains(&networks), "{networks}");
    let container = json!({"Image": boxes::IMAGE, "Cmd": ["true"], "Labels": long(2)});
    assert_eq!(made(client, "/containers/create", |_| container.clone()).await, 0, "what networks took is taken");
    for round in 0..networks {
        assert_eq!(client.delete(&format!("/networks/net{round}")).await.status, 204);
    }
    let containers = made(client, "/containers/create", |_| container.clone()).await;
    assert!((5..=8).contains(&containers), "{containers}");
    // What goes makes room.
    let again = client.create("again", "true", json!({"Labels": {"half": "x".repeat(64 << 10)}})).await;
    client.remove(&again).await;
    others_go_on(&fort, &other, "containers with long labels", log).await;

    // Nobody reads the lists of all that.
    let list = client.get("/containers/json?all=1").await.body;
    assert!(naive::dies_of_holding(&list, UNREAD), "lists that nobody reads are no flood");
    let mut unread = Vec::new();
    let mut refused = 0;
    for _ in 0..UNREAD {
        let answer = client.open(Request::get("/containers/json?all=1").body(Full::default()).unwrap()).await;
        refused += usize::from(answer.status() == 503);
        unread.push(answer);
    }
    assert!(refused + 2 >= UNREAD, "{refused}");
    others_go_on(&fort, &other, "lists that nobody reads", log).await;
    drop(unread);

    // Bodies that do not end: small ones, and large ones behind which others of the same job wait.
    let half = vec![b'x'; limits::BODY / 2];
    assert!(naive::dies_of_holding(&half, limits::JOB_CONNECTIONS), "bodies that do not end are no flood");
    let socket = hoard.host().trim_start_matches("unix://").to_owned();
    let mut held = Vec::new();
    for _ in 0..limits::LARGE_REQUESTS {
        held.push(half_body(&socket, limits::BODY / 2).await);
    }
    for _ in 0..limits::JOB_CONNECTIONS - 16 {
        held.push(half_body(&socket, limits::SMALL_BODY - 64).await);
    }
    let large = json!({"Name": "large", "Labels": {"long": "x".repeat(2 * limits::SMALL_BODY)}});
    let waits = tokio::time::timeout(Duration::from_secs(1), client.post("/volumes/create", large.clone())).await;
    assert!(waits.is_err(), "a large body waits for those before it");
    assert_eq!(other.client.post("/volumes/create", large).await.status, 201);
    others_go_on(&fort, &other, "bodies that do not end", log).await;
    drop(held);
    for job in [&hoard, &other] {
        job.remove(fort.daemon());
    }
}
