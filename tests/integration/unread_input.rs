//! Processes that do not read their input, with clients that go on sending it: nobody loses an exit code or a line.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        // A command that there is not: said, and 127.
        let refused = flooded(&daemon, &["exec", "-i", "there", "/nope"]);
        assert_eq!(refused.status.code(), Some(127), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(said.contains("no such file or directory"), "{refused:?}");
    });
    daemon.remove(&id).await;
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
        let (_, mut stream) = daemon.client().hijack(&path, json!({})).await;
        let talk = async {
            stream.write_all(&vec![0; 16 << 20]).await.unwrap();
            let mut output = Vec::new();
            stream.read_to_end(&mut output).await.unwrap();
            unframed(&output)
        };
        assert_eq!(tokio::time::timeout(LIMIT, talk).await.expect("an end"), "out\n");
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
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
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
