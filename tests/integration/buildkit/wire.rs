//! The doors without buildkitd, as they are on the wire.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::LIMIT;
use crate::support::daemon::Daemon;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_says_that_there_is_no_buildkit() {
    let daemon = Daemon::start().await;
    for path in ["/grpc", "/v1.41/grpc"] {
        let (head, stream) = daemon.client().upgrade(path, "h2c", Value::Null).await;
        assert_eq!(head.headers()["upgrade"], "h2c");
        let (mut calls, connection) = http2::handshake(TokioExecutor::new(), stream.into_inner()).await.unwrap();
        tokio::spawn(connection);
        for call in
            ["Control/Info", "Control/ListWorkers", "Control/Solve", "frontend.LLBBridge/Ping", "Control/Session"]
        {
            // Longer than what the daemon lets in: the answer does not wait for its end.
            let request = Request::post(format!("http://localhost/moby.buildkit.v1.{call}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(Bytes::from(vec![0; 1 << 20])))
                .unwrap();
            let answer = tokio::time::timeout(LIMIT, calls.send_request(request)).await.expect("an answer").unwrap();
            assert_eq!(
                (answer.status(), answer.headers()["content-type"].to_str().unwrap()),
                (http::StatusCode::OK, "application/grpc")
            );
            assert_eq!(answer.headers()["grpc-status"], "12");
            let text = answer.headers()["grpc-message"].to_str().unwrap();
            assert!(text.contains("install buildkitd") && text.contains("DOCKER_BUILDKIT=0"), "{text}");
            assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        }
    }
    let old = daemon.client().post("/build?version=2&remote=client-session&session=x", Value::Null).await;
    assert_eq!(old.status, 501);
    assert!(old.message().contains("DOCKER_BUILDKIT=0"), "{}", old.text());
    assert_eq!(daemon.client().get("/containers/json?all=1").await.json(), serde_json::json!([]));
}

/// Docker 29 takes HTTP/2 without an upgrade on its normal socket, as BuildKit's own clients speak it.
#[tokio::test(flavor = "multi_thread")]
async fn http2_at_once_is_answered_as_after_an_upgrade() {
    let daemon = Daemon::start().await;
    let stream = tokio::net::UnixStream::connect(daemon.folder().join("docker.sock")).await.unwrap();
    let (mut calls, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let call = Request::post("http://localhost/moby.buildkit.v1.Control/Info").body(Full::<Bytes>::default()).unwrap();
    let answer = tokio::time::timeout(LIMIT, calls.send_request(call)).await.expect("an answer").unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains("install buildkitd"));
    // What begins as HTTP/1 is as it was.
    assert_eq!(daemon.get("/_ping").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_client_and_with_its_share() {
    let daemon = Daemon::start().await;
    let (head, mut stream) = daemon.client().upgrade("/session", "h2c", Value::Null).await;
    assert_eq!(head.status(), 101);
    stream.shutdown().await.unwrap();
    let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await.expect("an end");
    assert_eq!(ended.unwrap(), 0);
    let (_, mut stream) = daemon.client().upgrade("/session", "h2c", Value::Null).await;
    let flood = async { while stream.write_all(&[0; 64 << 10]).await.is_ok() {} };
    tokio::time::timeout(LIMIT, flood).await.expect("an end");
}

/// In dockerd's words.
#[tokio::test(flavor = "multi_thread")]
async fn only_http2_is_let_in() {
    let daemon = Daemon::start().await;
    for (path, status) in [("/grpc", 500), ("/session", 400)] {
        let plain = daemon.client().post(path, Value::Null).await;
        assert_eq!((plain.status, plain.message().as_str()), (status, "no upgrade proto in request"));
        let request = Request::builder().method(Method::POST).uri(path).header("connection", "Upgrade");
        let other = daemon.client().whole(request.header("upgrade", "tcp").body(Full::default()).unwrap()).await;
        assert_eq!((other.status, other.message().as_str()), (status, "protocol tcp not supported"));
    }
}
