//! What a killed daemon was storing: its leases end at the next start, and the content goes with them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use containerd_client::services::v1::{ListContentRequest, ListRequest};
use futures_util::StreamExt;
use http::Request;
use http_body_util::Full;
use ringer::containerd::Client;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixStream};

use crate::support::daemon::Daemon;

/// For containerd's collector, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What containerd has in the daemon's namespace.
struct Store(Client);

impl Store {
    fn of(daemon: &Daemon) -> Self {
        let address = daemon.folder().join("run/containerd/containerd.sock");
        Self(Client::new(&address, "ringer").expect("a name fit for a header"))
    }

    async fn leases(&self) -> BTreeSet<String> {
        let answer = self.0.leases().list(ListRequest { filters: Vec::new() }).await.expect("containerd answers");
        answer.into_inner().leases.into_iter().map(|lease| lease.id).collect()
    }

    /// Digests of all blobs.
    async fn blobs(&self) -> BTreeSet<String> {
        let request = ListContentRequest { filters: Vec::new() };
        let mut answer = self.0.content().list(request).await.expect("containerd answers").into_inner();
        let mut blobs = BTreeSet::new();
        while let Some(part) = answer.next().await {
            blobs.extend(part.expect("the list comes whole").info.into_iter().map(|info| info.digest));
        }
        blobs
    }

    /// How many uploads are not finished.
    async fn ingests(&self) -> usize {
        let request = containerd_client::services::v1::ListStatusesRequest { filters: Vec::new() };
        let answer = self.0.content().list_statuses(request).await.expect("containerd answers");
        answer.into_inner().statuses.len()
    }
}

async fn eventually(what: &str, look: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A tar of a small file, and of a large one whose end is missing.
fn half_a_tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let noise: Vec<u8> = (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for name in ["blobs/first", "blobs/second"] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(noise.len() as u64);
        tar.append_data(&mut header, name, noise.as_slice()).unwrap();
    }
    let mut bytes = tar.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1_000_000);
    bytes
}

/// Sends a request whose body does not come to its end.
async fn begin(daemon: &Daemon, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.folder().join("docker.sock")).await.expect("the daemon listens");
    let body = half_a_tar();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len() + 1_000_000
    );
    stream.write_all(head.as_bytes()).await.expect("the daemon reads");
    stream.write_all(&body).await.expect("the daemon reads");
    stream
}

/// Kills the daemon in the middle of `work`, and looks at what is there when the next one has settled.
async fn dies_in_the_middle(daemon: &mut Daemon, work: &str, stored: impl AsyncFn(&Store) -> bool) {
    let store = Store::of(daemon);
    eventually(&format!("{work} has begun"), async || stored(&store).await).await;
    let held = store.leases().await;
    assert!(!held.is_empty(), "{work} has a lease");
    daemon.kill();
    daemon.restart().await;
    let store = Store::of(daemon);
    eventually(&format!("no lease of the dead daemon is left after {work}"), async || {
        store.leases().await.is_disjoint(&held)
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_daemon_was_storing_goes_at_the_next_start() {
    let mut daemon = Daemon::with_box().await;
    let store = Store::of(&daemon);
    // The import's own lease may still be on its way out.
    eventually("nothing is under way", async || store.leases().await.is_empty()).await;
    let before = store.blobs().await;

    for path in ["/images/create?fromSrc=-&repo=half", "/images/load"] {
        let upload = begin(&daemon, path).await;
        dies_in_the_middle(&mut daemon, path, async |store| store.ingests().await > 0).await;
        drop(upload);
        let store = Store::of(&daemon);
        eventually("its content goes", async || store.ingests().await == 0 && store.blobs().await == before).await;
    }

    let id = daemon.create("noisy", "dd if=/dev/urandom of=/noise bs=1M count=100", Value::Null).await;
    daemon.launch(&id).await;
    assert_eq!(daemon.exit_code(&id).await, 0);
    let client = daemon.client().clone();
    let commit = tokio::spawn(async move {
        let request = Request::post("/commit?container=noisy&repo=half").body(Full::from(Bytes::new())).unwrap();
        client.open(request).await
    });
    dies_in_the_middle(&mut daemon, "a commit", async |store| store.ingests().await > 0).await;
    commit.abort();
    let store = Store::of(&daemon);
    eventually("its content goes", async || store.ingests().await == 0 && store.blobs().await == before).await;
    daemon.remove(&id).await;

    let mut context = tar::Builder::new(Vec::new());
    let file = b"FROM box\nRUN sleep 1000\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(file.len() as u64);
    context.append_data(&mut header, "Dockerfile", &file[..]).unwrap();
    let context = Bytes::from(context.into_inner().unwrap());
    let client = daemon.client().clone();
    let build = tokio::spawn(async move {
        let request = Request::post("/build?networkmode=none").header("content-type", "application/x-tar");
        client.open(request.body(Full::from(context)).unwrap()).await
    });
    let client = daemon.client().clone();
    let runs = async |_: &Store| {
        let running = client.get("/containers/json").await.json();
        running.as_array().is_some_and(|running| !running.is_empty())
    };
    dies_in_the_middle(&mut daemon, "a build", runs).await;
    build.abort();
    let left = daemon.client().get("/containers/json").await.json();
    assert_eq!(left, json!([]));
}
