//! The server on a real socket, with handlers of its own.

use std::{os::fd::AsRawFd, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{Notify, mpsc},
};

use crate::{
    api::{ApiState, extract::ClientGone, for_tenant, hijack::Hijack, router::Router, stream, testing},
    edge::{
        route::Route,
        server::{Api, ListenAddress, Listener, Listening, Server},
    },
    engine::tenants::Scope,
    model::{Error, caller::PeerProcess, id::TenantId},
};

/// Nothing here takes this long.
const LIMIT: Duration = Duration::from_secs(20);

struct World {
    server: Server,
    socket: PathBuf,
    state: ApiState,
    listening: Vec<Listening>,
    _folder: tempfile::TempDir,
}

/// Sends back what it gets, and after its end who it was.
async fn echo(hijack: Hijack) -> Response {
    hijack.answer(false, |mut stream| async move {
        let mut input = String::new();
        stream.read_to_string(&mut input).await.unwrap();
        stream.write_all(format!("you said {input:?}").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    })
}

async fn refuses(hijack: Hijack) -> Response {
    hijack.refuse(Error::invalid("not now"))
}

async fn who(scope: Scope) -> String {
    let peer = scope.caller().process().expect("it comes through a unix socket");
    let PeerProcess::Known(pidfd) = &peer.process else { panic!("it has not ended") };
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    let pid = told.lines().find_map(|line| line.strip_prefix("Pid:\t")).unwrap();
    format!("{} {} {pid}", scope.tenant(), peer.uid)
}

async fn panics() -> Response {
    panic!("on purpose")
}

/// Never says a word, and tells the test when its client is gone.
async fn silent(State(_): State<ApiState>, gone: ClientGone) -> Response {
    let body = stream::bytes(HeaderValue::from_static("x/y"), gone, futures_util::stream::pending());
    body.into_response()
}

/// `/slow`, which says that it has begun, and is done when it is released.
fn slow() -> (Route<ApiState>, mpsc::Receiver<()>, Arc<Notify>) {
    let (begun, has_begun) = mpsc::channel::<()>(1);
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let slow = move || {
        let (begun, released) = (begun.clone(), released.clone());
        async move {
            begun.send(()).await.unwrap();
            released.notified().await;
            "done"
        }
    };
    (get("/slow").to(slow), has_begun, release)
}

async fn world(routes: Vec<Route<ApiState>>) -> World {
    let (state, folder) = testing::state().await;
    let socket = folder.path().join("docker.sock");
    let server = Server::new().unwrap();
    let api = api(routes, &state);
    let listeners = Listener::open(&ListenAddress::Unix(socket.clone()), "", None).unwrap();
    let listening = listeners.into_iter().map(|listener| server.listen(listener, api.clone())).collect();
    World { server, socket, state, listening, _folder: folder }
}

/// The API of a few routes for the default tenant.
fn api(routes: Vec<Route<ApiState>>, state: &ApiState) -> Arc<dyn Api> {
    let router = Router::new(routes, state.clone(), HeaderValue::from_static("test"));
    for_tenant(&router, TenantId::default_tenant())
}

fn get(path: &'static str) -> Route<ApiState> {
    Route::new(Method::GET, path, "Test")
}

impl World {
    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// Sends `request` and, with `half_close`, ends the sending side; reads to the end.
    async fn talk(&self, request: &str, half_close: bool) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        if half_close {
            stream.shutdown().await.unwrap();
        }
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
        answer
    }
}

const UPGRADE: &str = "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

#[tokio::test]
async fn hijacked_stream_goes_on_after_a_half_close() {
    let world = world(vec![get("/echo").to(echo)]).await;
    let answer = world.talk(&format!("{UPGRADE}hello"), true).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    for line in ["Content-Type: application/vnd.docker.multiplexed-stream", "Connection: Upgrade", "Upgrade: tcp"] {
        assert!(head.lines().any(|told| told.eq_ignore_ascii_case(line)), "{line} is missing in {head}");
    }
    assert_eq!(body, "you said \"hello\"");
}

#[tokio::test]
async fn refusal_of_an_upgrade_ends_the_connection() {
    let world = world(vec![get("/refused").to(refuses)]).await;
    // dockerode does not end its request, since it means to go on writing.
    let request = UPGRADE.replace("/echo", "/refused").replace("Host: x", "Host: x\r\nTransfer-Encoding: chunked");
    let answer = world.talk(&request, false).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("not now"), "{answer}");
    let answer = world.talk("GET /refused HTTP/1.1\r\nHost: x\r\n\r\n", false).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn old_versions_call_every_stream_raw() {
    let world = world(vec![get("/echo").to(echo)]).await;
    let answer = world.talk(&UPGRADE.replace("/echo", "/v1.41/echo"), true).await;
    assert!(answer.contains("application/vnd.docker.raw-stream"), "{answer}");
}

/// As dockerd 28 answers exec's start.
const PLAIN_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nApi-Version: 1.53\r\n\
                          Docker-Experimental: false\r\nOstype: linux\r\nServer: test\r\n\r\n";

#[tokio::test]
async fn without_upgrade_bytes_go_both_ways_too() {
    let world = world(vec![get("/echo").to(echo), get("/who").to(who)]).await;
    for request in [
        "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        // A proxy may take off one header of the two.
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n",
        "GET /echo HTTP/1.0\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_eq!(world.talk(&format!("{request}hello"), true).await, format!("{PLAIN_HEAD}you said \"hello\""));
    }
    // What comes after the head, on a connection that served before.
    let mut stream = world.connect().await;
    stream.write_all(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let read_until = async |stream: &mut UnixStream, end: &str| {
        let mut answer = String::new();
        while !answer.ends_with(end) {
            answer.push(char::from(tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("an answer").unwrap()));
        }
        answer
    };
    read_until(&mut stream, &std::process::id().to_string()).await;
    stream.write_all(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, PLAIN_HEAD);
    stream.write_all(b"GET /who HTTP/1.1").await.unwrap();
    stream.shutdown().await.unwrap();
    read_until(&mut stream, "you said \"GET /who HTTP/1.1\"").await;
}

#[tokio::test]
async fn an_upgrade_is_one_in_old_http_too() {
    let world = world(vec![get("/echo").to(echo)]).await;
    let answer = world.talk(&format!("{}hello", UPGRADE.replace("HTTP/1.1", "HTTP/1.0")), true).await;
    assert!(answer.starts_with("HTTP/1.1 101 UPGRADED\r\n") && answer.ends_with("you said \"hello\""), "{answer}");
}

/// More than the kernel keeps for a reader who does not read.
const MUCH: usize = 16 << 20;

#[tokio::test]
async fn who_still_sends_when_the_stream_ends_reads_it_to_its_end() {
    let deaf = async |hijack: Hijack| {
        hijack.answer(true, |mut stream| async move { stream.write_all(b"all that is said").await.unwrap() })
    };
    let world = world(vec![get("/deaf").to(deaf)]).await;
    for request in [UPGRADE.replace("/echo", "/deaf"), "GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()] {
        let (mut reader, mut writer) = world.connect().await.into_split();
        writer.write_all(request.as_bytes()).await.unwrap();
        // It reads only when all is sent, as a simple client does.
        let sent = tokio::time::timeout(LIMIT, writer.write_all(&vec![0; MUCH])).await.expect("somebody reads");
        sent.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, reader.read_to_string(&mut answer)).await.expect("an end").unwrap();
        assert!(answer.ends_with("\r\n\r\nall that is said"), "{answer}");
    }
}

#[tokio::test]
async fn handlers_learn_tenant_and_peer() {
    let world = world(vec![get("/who").to(who)]).await;
    let answer = world.talk("GET /who HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", false).await;
    let me = format!("default {} {}", rustix::process::getuid().as_raw(), std::process::id());
    assert!(answer.ends_with(&me), "{answer}");
}

#[tokio::test]
async fn panic_of_a_handler_is_a_500_and_the_connection_goes_on() {
    let world = world(vec![get("/panic").to(panics), get("/who").to(who)]).await;
    let requests = "GET /panic HTTP/1.1\r\nHost: x\r\n\r\nGET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = world.talk(requests, false).await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn silent_stream_ends_when_its_client_leaves() {
    let watched = |State(state): State<ApiState>, gone: ClientGone| {
        state.tasks.spawn(gone.0.clone().cancelled_owned());
        silent(State(state), gone)
    };
    let world = world(vec![get("/silent").to(watched)]).await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK", "the head comes before the first byte of the body");
    stream.shutdown().await.unwrap();
    drop(stream);
    world.state.tasks.close();
    tokio::time::timeout(LIMIT, world.state.tasks.wait()).await.expect("the stream notices");
    tokio::time::timeout(LIMIT, world.server.drain()).await.expect("no connection is left");
}

#[tokio::test]
async fn drain_lets_a_request_end_and_takes_the_socket_away() {
    let (slow, mut has_begun, release) = slow();
    let world = world(vec![slow]).await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    has_begun.recv().await.unwrap();
    let drained =
        tokio::time::timeout(LIMIT, async { tokio::join!(world.server.drain(), async { release.notify_one() }) });
    drained.await.expect("the request ends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    assert!(!world.socket.exists());
}

#[tokio::test]
async fn listener_that_is_taken_away_lets_its_request_end_and_leaves_the_others() {
    let (slow, mut has_begun, release) = slow();
    let mut world = world(vec![slow, get("/who").to(who)]).await;
    let other = world.socket.with_file_name("other.sock");
    let api = api(vec![get("/who").to(who)], &world.state);
    let listener = Listener::open(&ListenAddress::Unix(other.clone()), "", None).unwrap().remove(0);
    let _other = world.server.listen(listener, api);
    let mut idle = world.connect().await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    has_begun.recv().await.unwrap();
    let listening = world.listening.remove(0);
    let ended = tokio::spawn(listening.end());
    tokio::time::timeout(LIMIT, async {
        while world.socket.exists() {
            tokio::task::yield_now().await;
        }
        let mut nothing = Vec::new();
        idle.read_to_end(&mut nothing).await.unwrap();
    })
    .await
    .expect("the socket goes, and idle connections with it, while a request is at work");
    assert!(!ended.is_finished(), "the request is not at its end");
    release.notify_one();
    tokio::time::timeout(LIMIT, ended).await.expect("an end").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    world.socket = other;
    assert!(world.talk("GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false).await.contains("200 OK"));
}
