//! tcp hosts for real: plain and with TLS, docker CLI over both, and bodies of any size.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::support::{daemon::Daemon, place};

/// Certificates of a CA, of the daemon and of a client, made with openssl.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"
            set -e
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=ca 2> errors
            for who in server client; do
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $who-key.pem -out $who.csr -subj /CN=$who 2> errors
                printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=%sAuth\n' $who > extensions
                openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out $who.pem -days 2 -extfile extensions 2> errors
            done
            mkdir client stranger
            cp ca.pem client/ca.pem; cp client.pem client/cert.pem; cp client-key.pem client/key.pem
            cp ca.pem stranger/ca.pem
        "#;
        let made = Command::new("sh").args(["-c", script]).current_dir(folder.path()).status().unwrap();
        assert!(made.success(), "{}", fs::read_to_string(folder.path().join("errors")).unwrap_or_default());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn flags(&self) -> [String; 4] {
        let flag = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        [
            "--tlsverify".into(),
            flag("tlscacert", "ca.pem"),
            flag("tlscert", "server.pem"),
            flag("tlskey", "server-key.pem"),
        ]
    }
}

/// docker CLI in the daemon's network.
fn docker(daemon: &Daemon, host: &str, certificates: Option<&Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", daemon.pid())).arg("docker");
    command.env("DOCKER_HOST", host).env("DOCKER_CONFIG", daemon.folder().join("docker-config"));
    if let Some(folder) = certificates {
        command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", folder);
    }
    command
}

/// Runs it with some input.
fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nsenter is there");
    // It may end before it has read all.
    let _not_wanted = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A connection that belongs to the daemon's network.
fn connect(daemon: &Daemon, address: &str) -> TcpStream {
    let namespace = format!("/proc/{}/ns/net", daemon.pid());
    place::connect(namespace.as_ref(), address.parse().unwrap()).unwrap()
}

/// Sends bytes and reads to the end.
fn talk(daemon: &Daemon, address: &'static str, request: &str) -> String {
    let mut stream = connect(daemon, address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A client that reads only when it has sent all, of a process that reads nothing: it is not cut off by a reset.
fn check_unread_input(daemon: &Daemon, address: &'static str, container: &str) {
    let post = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n\r\n{body}"
        )
    };
    let command = json!({
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Cmd": ["sh", "-c", "echo out; exit 7"],
    });
    let made = talk(
        daemon,
        address,
        &post(&format!("/containers/{container}/exec"), "Connection: close", &command.to_string()),
    );
    let id = made.split("\"Id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("{made}"));
    let mut stream = connect(daemon, address);
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp";
    stream.write_all(post(&format!("/exec/{id}/start"), upgrade, "{}").as_bytes()).unwrap();
    for _ in 0..16 {
        stream.write_all(&vec![0; 1 << 20]).expect("what nobody reads is taken");
    }
    let mut output = Vec::new();
    stream.read_to_end(&mut output).expect("an end, not a reset");
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(output.starts_with("HTTP/1.1 101 ") && output.ends_with("out\n"), "{output:?}");
    let exec =
        talk(daemon, address, &format!("GET /exec/{id}/json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    assert!(exec.contains("\"ExitCode\":7"), "{exec}");
}

/// docker CLI's ways to take a connection over, each with an input that ends before the output does.
fn check_streams(daemon: &Daemon, host: &str, certificates: Option<&Path>) {
    let docker = |arguments: &[&str]| {
        let mut command = docker(daemon, host, certificates);
        command.args(arguments);
        command
    };
    let ran = with_input(
        &mut docker(&["run", "--rm", "-i", "--network=none", "box", "sh", "-c", "cat; echo end; exit 3"]),
        "in\n",
    );
    assert_eq!((ran.status.code(), text(&ran).as_str()), (Some(3), "in\nend\n"));
    let started = docker(&["run", "-d", "--name=there", "--network=none", "box", "sleep", "1000"]).output().unwrap();
    assert!(started.status.success(), "{}", text(&started));
    let exec = with_input(&mut docker(&["exec", "-i", "there", "sh", "-c", "cat; sleep 1; echo late; exit 4"]), "in\n");
    assert_eq!((exec.status.code(), text(&exec).as_str()), (Some(4), "in\nlate\n"));
    // A process that does not read what is still sent.
    let much = "0123456789abcdef".repeat(1 << 20);
    for _ in 0..5 {
        let exec = with_input(&mut docker(&["exec", "-i", "there", "sh", "-c", "echo out; exit 7"]), &much);
        assert_eq!((exec.status.code(), text(&exec).as_str()), (Some(7), "out\n"));
        let run = ["run", "--rm", "-i", "--network=none", "box", "sh", "-c", "echo out; exit 7"];
        let run = with_input(&mut docker(&run), &much);
        assert_eq!((run.status.code(), text(&run).as_str()), (Some(7), "out\n"));
    }
    let refused = with_input(&mut docker(&["run", "--rm", "-i", "--network=none", "box", "/nope"]), &much);
    assert_eq!(refused.status.code(), Some(127), "{}", text(&refused));
    assert!(text(&refused).contains("no such file or directory"), "{}", text(&refused));
    // script gives the CLI a terminal.
    let line = "docker exec -it there sh -c 'test -t 0 && echo terminal; exit 5'";
    let mut terminal = Command::new("nsenter");
    terminal.arg(format!("--net=/proc/{}/ns/net", daemon.pid())).args(["script", "-qec", line, "/dev/null"]);
    let env = docker(&[]);
    terminal.envs(env.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let exec = terminal.output().unwrap();
    // The end of its own input shows as ^@ somewhere.
    assert_eq!((exec.status.code(), text(&exec).contains("terminal")), (Some(5), true), "{}", text(&exec));
    let removed = docker(&["rm", "-f", "there"]).output().unwrap();
    assert!(removed.status.success(), "{}", text(&removed));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_a_certificate_are_served_and_no_others() {
    let certificates = Certificates::make();
    let flags = certificates.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.push("--host=tcp://127.0.0.1:2376");
    let daemon = Daemon::start_with(&flags).await;
    daemon.import_box().await;
    let host = "tcp://127.0.0.1:2376";
    tokio::task::block_in_place(|| {
        check_streams(&daemon, host, Some(&certificates.path("client")));
        let stranger = docker(&daemon, host, Some(&certificates.path("stranger"))).arg("version").output().unwrap();
        assert!(!stranger.status.success() && text(&stranger).contains("certificate required"), "{}", text(&stranger));
        let plain = talk(&daemon, "127.0.0.1:2376", "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(plain, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    });
    let warnings = daemon.client().get("/info").await.json()["Warnings"].to_string();
    assert!(!warnings.contains("API is accessible"), "{warnings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_tcp_is_served_with_a_warning() {
    let daemon = Daemon::start_with(&[
        "--host=tcp://127.0.0.1:4444",
        "--host=tcp://:4445",
        "--tls=false",
        "--allowed-host=ours.example",
    ])
    .await;
    daemon.import_box().await;
    let kept = daemon.create("kept", "sleep 1000", Value::Null).await;
    daemon.launch(&kept).await;
    tokio::task::block_in_place(|| {
        check_streams(&daemon, "tcp://127.0.0.1:4444", None);
        for _ in 0..5 {
            check_unread_input(&daemon, "127.0.0.1:4444", &kept);
        }
        let request = "OPTIONS /containers/json HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\n\
                       Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
        let preflight = talk(&daemon, "127.0.0.1:4445", request).to_lowercase();
        assert!(preflight.starts_with("http/1.1 403 forbidden\r\n"), "{preflight}");
        assert!(!preflight.contains("access-control"), "a browser must not let pages in: {preflight}");
        // Without a preflight a page can send text, which is no JSON to us.
        let request = "POST /containers/create HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\nContent-Type: text/plain\r\n\
                       Content-Length: 15\r\nConnection: close\r\n\r\n{\"Image\":\"box\"}";
        let answer = talk(&daemon, "127.0.0.1:4445", request);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        // What needs no preflight: a POST without a body. And a name of theirs that leads here, by which they could read.
        for headers in [
            "Host: localhost:4445\r\nOrigin: http://evil",
            "Host: localhost:4445\r\nOrigin: null",
            "Host: localhost:4445\r\nSec-Fetch-Site: cross-site",
            "Host: evil.example:4445\r\nOrigin: http://evil.example:4445",
            "Host: evil.example:4445\r\nAccept-Language: en",
        ] {
            let request = format!("POST /volumes/prune HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
            let answer = talk(&daemon, "127.0.0.1:4445", &request);
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("a page in a browser"), "{answer}");
        }
        for headers in [
            "Host: localhost:4445\r\nOrigin: http://localhost:4445\r\nSec-Fetch-Site: same-origin",
            "Host: ours.example:4445\r\nOrigin: http://ours.example:4445",
            "Host: evil.example:4445",
        ] {
            let request = format!("GET /_ping HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
            let answer = talk(&daemon, "127.0.0.1:4445", &request);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        let twice = "GET /_ping HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n";
        let answer = talk(&daemon, "127.0.0.1:4445", twice);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        // A WebSocket as a page opens it: of ours it gets as far as the container that there is not.
        for (origin, status) in [("http://localhost:4445", 404), ("http://evil", 403)] {
            let request = format!(
                "GET /containers/nosuch/attach/ws HTTP/1.1\r\nHost: localhost:4445\r\nConnection: Upgrade, close\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                 Origin: {origin}\r\n\r\n"
            );
            let answer = talk(&daemon, "127.0.0.1:4445", &request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    });
    // Nobody's pages reach a unix socket.
    let request = http::Request::get("/_ping").header("origin", "http://evil");
    assert_eq!(daemon.client().whole(request.body(http_body_util::Full::default()).unwrap()).await.status, 200);
    let warnings = daemon.client().get("/info").await.json()["Warnings"].to_string();
    assert!(warnings.contains("WARNING: API is accessible on http://localhost:4445 without encryption."), "{warnings}");
    assert!(daemon.log().contains("tcp://127.0.0.1:4444"), "{}", daemon.log());
}

#[test]
fn certificate_that_cannot_be_read_is_named_at_start() {
    let folder = Daemon::folder_of_its_own();
    let start = Command::new(env!("CARGO_BIN_EXE_ringer"))
        .args(["serve", "--host=tcp://127.0.0.1:0", "--tlsverify", "--tlscert=/nowhere/cert.pem"])
        .arg(format!("--data-root={}", folder.path().join("data").display()))
        .output()
        .unwrap();
    assert!(!start.status.success());
    let bad_port = text(&start);
    assert!(bad_port.contains("invalid bind address (tcp://127.0.0.1:0): invalid port: 0"), "{bad_port}");
    let start = Command::new(env!("CARGO_BIN_EXE_ringer"))
        .args(["serve", "--host=tcp://127.0.0.1:1", "--tlsverify", "--tlscert=/nowhere/cert.pem"])
        .arg(format!("--data-root={}", folder.path().join("data").display()))
        .arg(format!("--exec-root={}", folder.path().join("run").display()))
        .output()
        .unwrap();
    assert!(!start.status.success());
    assert!(text(&start).contains("TLS certificate /nowhere/cert.pem: No such file"), "{}", text(&start));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_expectations_met() {
    let daemon = Daemon::start_with(&["--host=tcp://127.0.0.1:4444"]).await;
    tokio::task::block_in_place(|| {
        let mut stream = connect(&daemon, "127.0.0.1:4444");
        let read = |stream: &mut TcpStream, end: &str| {
            let mut answer = String::new();
            while !answer.ends_with(end) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {answer}"));
                answer.push(char::from(byte[0]));
            }
            answer
        };
        for _ in 0..2 {
            stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            read(&mut stream, "\r\n\r\nOK");
        }
        let head = "POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(read(&mut stream, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"8\r\n{\"Name\":\r\n6\r\n\"vol\"}\r\n0\r\n\r\n").unwrap();
        assert!(read(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 201 "));
    });
}

/// Bytes in a tar that nobody would want in memory.
const BIG: u64 = 2 << 30;

/// What the daemon may take meanwhile.
const SMALL: u64 = 96 << 20;

/// A tar with one file of zeros, in pieces.
fn zeros() -> impl futures_util::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> {
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(BIG);
    header.set_mode(0o644);
    header.set_cksum();
    let piece = Bytes::from(vec![0; 1 << 20]);
    let pieces = std::iter::repeat_n(piece, usize::try_from(BIG >> 20).unwrap());
    let end = Bytes::from(vec![0; 1024]);
    let all = std::iter::once(Bytes::copy_from_slice(header.as_bytes())).chain(pieces).chain([end]);
    stream::iter(all.map(|bytes| Ok(Frame::data(bytes))))
}

/// The most that a process ever had in memory of its own.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_gigabytes_stay_out_of_memory() {
    let daemon = Daemon::with_box().await;
    daemon.create("big", "true", Value::Null).await;
    let socket = tokio::net::UnixStream::connect(daemon.folder().join("docker.sock")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let put = Request::put("/containers/big/archive?path=/tmp")
        .header("host", "x")
        .header("content-type", "application/x-tar")
        .body(StreamBody::new(zeros()))
        .unwrap();
    let answer = sender.send_request(put).await.unwrap();
    let status = answer.status();
    let said = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, 200, "{said:?}");
    assert!(peak(daemon.pid()) < SMALL, "{} MiB after the upload", peak(daemon.pid()) >> 20);
    let get = Request::get("/containers/big/archive?path=/tmp/zeros").body(http_body_util::Full::default()).unwrap();
    let mut body = daemon.client().open(get).await.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().map_or(0, |data| data.len() as u64);
    }
    assert!(length > BIG, "{length}");
    assert!(peak(daemon.pid()) < SMALL, "{} MiB after the download", peak(daemon.pid()) >> 20);
    daemon.remove("big").await;
    assert_eq!(daemon.client().get("/containers/json?all=1").await.json(), json!([]));
}
