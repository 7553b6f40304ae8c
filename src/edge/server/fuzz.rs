//! Bytes on a connection that no client would send: none ends in a panic, and each connection ends with its client.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, response::IntoResponse};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::model::fuzz;

/// Longer takes no connection whose client has said all.
const LIMIT: Duration = Duration::from_secs(30);

/// Reads bodies to their end; takes over what asks for an upgrade, and sends back what comes.
struct Echo(TaskTracker);

impl Api for Echo {
    fn answer(&self, mut request: Request<Body>) -> Answer {
        let tasks = self.0.clone();
        Box::pin(async move {
            let takeover = request.extensions_mut().remove::<Takeover>().expect("every request has one");
            if request.headers().contains_key(header::UPGRADE) {
                return takeover.answer(
                    &tasks,
                    StatusCode::SWITCHING_PROTOCOLS.into_response(),
                    |mut stream| async move {
                        let mut input = Vec::new();
                        let _read = stream.read_to_end(&mut input).await;
                        let _written = stream.write_all(&input).await;
                        let _closed = stream.shutdown().await;
                    },
                );
            }
            match request.into_body().collect().await {
                Ok(body) => body.to_bytes().into_response(),
                Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
            }
        })
    }
}

async fn talk(worker: Worker, input: &[u8]) -> Vec<u8> {
    let (mut client, server) = duplex(64 << 10);
    let caller = Caller::Remote(SocketAddr::from(([127, 0, 0, 1], 1)));
    let tag = Tag { caller, fate: Fate::default(), pages: Some(Arc::default()), held: Held::default() };
    let asks = async {
        let _it_may_have_hung_up = client.write_all(input).await;
        let _it_may_have_hung_up = client.shutdown().await;
        let mut answer = Vec::new();
        let _it_may_have_hung_up = client.read_to_end(&mut answer).await;
        answer
    };
    // Not on a task of its own, where a panic would be the runtime's.
    let both = async { tokio::join!(worker.serve(server, tag), asks).1 };
    tokio::time::timeout(LIMIT, both).await.expect("the connection ends")
}

#[test]
fn no_connection_makes_it_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { Server::new().unwrap() });
    let tasks = TaskTracker::new();
    let worker = || Worker {
        api: Arc::new(Echo(tasks.clone())),
        hangups: server.hangups.clone(),
        allowed_hosts: Arc::default(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
        connections: TaskTracker::new(),
        served: TaskTracker::new(),
        refusals: Refusals::default(),
        places: Arc::new(Semaphore::new(1)),
        held: Held::default(),
    };
    let good: [&[u8]; 6] = [
        b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: x\r\n\r\n",
        b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: d\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\nbody",
        b"POST /exec/1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}input",
        b"GET / HTTP/1.0\r\nOrigin: http://x\r\nSec-Fetch-Site: same-origin\r\nHost: localhost:2375\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let first = runtime.block_on(talk(worker(), good[0]));
    assert!(first.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", first.escape_ascii());
    fuzz::each(&good, |input| drop(runtime.block_on(talk(worker(), input))));
}
