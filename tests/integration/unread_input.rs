//! Processes that do not read their input, with clients that go on sending it: nobody loses an exit code or a line.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::{boxes::unframed, daemon::Daemon};

/// Nothing here takes this long.
const LIMIT: Duration = Duration::from_secs(120);

/// How often each way is gone: `RINGER_TEST_RUSH` times, or often enough to have failed before.
fn rounds() -> usize {
    std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// docker CLI, whose input is zeros without end.
fn flooded(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut head = Command::new("head");
    let mut zeros =
        head.args(["-c", "200M", "/dev/zero"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let input = zeros.stdout.take().unwrap();
    let output = daemon.docker().args(arguments).stdin(input).output().unwrap();
    zeros.wait().unwrap();
    output
}

#[track_caller]
fn check(output: &Output, code: i32, said: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let seen = (output.status.code(), text(&output.stdout));
    assert_eq!(seen, (Some(code), said.to_owned()), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_cli_gets_code_and_output() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("there", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    let script = ["sh", "-c", "echo out; exit 7"];
    tokio::task::block_in_place(|| {
        for _ in 0..rounds() {
            let exec = [&["exec", "-i", "there"][..], &script].concat();
            check(&flooded(&daemon, &exec), 7, "out\n");
            let run = [&["run", "--rm", "-i", "--network=none", "box"][..], &script].concat();
            check(&flooded(&daemon, &run), 7, "out\n");
        }
        // A start that fails while input comes.
        let refused = flooded(&daemon, &["run", "--rm", "-i", "--network=none", "box", "/nope"]);
        assert_eq!(refused.status.code(), Some(127), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("no such file or directory"), "{refused:?}");
        // A command that there is not: said, and 127.
        let refused = flooded(&daemon, &["exec", "-i", "there", "/nope"]);
        assert_eq!(refused.status.code(), Some(127), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(said.contains("no such file or directory"), "{refused:?}");
    });
    daemon.remove(&id).await;
}

/// Sends far more than anybody reads, then reads what there is to the end.
async fn flood(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<u8> {
    let talk = async {
        stream.write_all(&vec![0; 16 << 20]).await.unwrap();
        let mut output = Vec::new();
        stream.read_to_end(&mut output).await.unwrap();
        output
    };
    tokio::time::timeout(LIMIT, talk).await.expect("an end")
}

/// A container that takes input and does not read it.
async fn deaf(daemon: &Daemon) -> String {
    let interactive = json!({"OpenStdin": true, "StdinOnce": true, "AttachStdin": true});
    daemon.create("deaf", "sleep 0.1; echo out; exit 7", interactive).await
}

#[tokio::test(flavor = "multi_thread")]
async fn attached_streams_end_without_a_reset() {
    let daemon = Daemon::with_box().await;
    for _ in 0..rounds() {
        let id = deaf(&daemon).await;
        let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        let (_, stream) = daemon.client().hijack(&path, Value::Null).await;
        daemon.launch(&id).await;
        assert_eq!(unframed(&flood(stream).await), "out\n");
        assert_eq!(daemon.exit_code(&id).await, 7);
        daemon.remove(&id).await;
    }
}

/// A frame of a client's, masked with zeros.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u64::try_from(bytes.len()).unwrap();
    [&[0x82, 0xff], &length.to_be_bytes()[..], &[0; 4], bytes].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_end_with_their_output() {
    let daemon = Daemon::with_box().await;
    for _ in 0..rounds() {
        let id = deaf(&daemon).await;
        let mut stream = tokio::net::UnixStream::connect(daemon.folder().join("docker.sock")).await.unwrap();
        let path = format!("/containers/{id}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1");
        let key = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{key}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        daemon.launch(&id).await;
        let (mut reading, mut writing) = stream.into_split();
        let sending = tokio::spawn(async move {
            // Until nobody takes any more.
            while writing.write_all(&frame(&[0; 1 << 20])).await.is_ok() {}
        });
        let mut output = Vec::new();
        let read = tokio::time::timeout(LIMIT, reading.read_to_end(&mut output)).await.expect("an end");
        assert!(output.windows(4).any(|part| part == b"out\n"), "{read:?} {output:?}");
        sending.abort();
        assert_eq!(daemon.exit_code(&id).await, 7);
        daemon.remove(&id).await;
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A client that reads only when it has sent all.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_without_a_reset() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("there", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    let body =
        json!({"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Cmd": ["sh", "-c", "echo out"]});
    for _ in 0..rounds() {
        let exec = daemon.client().post(&format!("/containers/{id}/exec"), body.clone()).await.json();
        let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
        let (_, stream) = daemon.client().hijack(&path, json!({})).await;
        assert_eq!(unframed(&flood(stream).await), "out\n");
    }
    daemon.remove(&id).await;
}

/// One that got no upgrade on its way here, through a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn input_needs_no_upgrade() {
    let daemon = Daemon::with_box().await;
    let interactive = json!({"OpenStdin": true, "StdinOnce": true, "AttachStdin": true});
    let id = daemon.create("there", "cat; echo end", interactive).await;
    let talk = async |path: &str, body: &str, started: &str| {
        let mut stream = tokio::net::UnixStream::connect(daemon.folder().join("docker.sock")).await.unwrap();
        let length = body.len();
        let type_and_length = format!("Content-Type: application/json\r\nContent-Length: {length}");
        stream
            .write_all(format!("POST {path} HTTP/1.1\r\nHost: x\r\n{type_and_length}\r\n\r\n{body}").as_bytes())
            .await
            .unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("vnd.docker.raw-stream"), "{head}");
        if !started.is_empty() {
            daemon.launch(started).await;
        }
        stream.write_all(b"in\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut output = Vec::new();
        tokio::time::timeout(LIMIT, stream.read_to_end(&mut output)).await.expect("an end").unwrap();
        unframed(&output)
    };
    let attach = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1");
    assert_eq!(talk(&attach, "", &id).await, "in\nend\n");
    let holder = daemon.create("holder", "sleep 1000", Value::Null).await;
    daemon.launch(&holder).await;
    let body = json!({"AttachStdin": true, "AttachStdout": true, "Cmd": ["sh", "-c", "cat; echo end"]});
    let exec = daemon.client().post(&format!("/containers/{holder}/exec"), body).await.json();
    let start = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
    assert_eq!(talk(&start, "{\"Detach\":false}", "").await, "in\nend\n");
    daemon.remove(&id).await;
    daemon.remove(&holder).await;
}
