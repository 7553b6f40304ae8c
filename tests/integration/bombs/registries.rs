//! Registries and servers whose answers have no end.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bombs::{fort::Fort, naive};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a server says of its answer's length.
const ENDLESS: u64 = 4 << 30;

/// Listens on the daemon's loopback; the port. It ends with the test's process.
fn serve(pid: u32) -> u16 {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let (sender, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::os::fd::AsFd;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        sender.send(port).unwrap();
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                // The daemon leaves as soon as it has had enough.
                let _left = stream.and_then(|stream| answer(&stream, port));
            });
        }
    });
    port.recv().unwrap()
}

fn answer(mut stream: &TcpStream, port: u16) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = first.split(' ').nth(1).unwrap_or_default();
    let json = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    let (head, piece) = match path {
        "/v2/" => {
            return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
        }
        path if path.contains("/guarded/") => {
            let realm = format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"x\"");
            return write!(
                stream,
                "HTTP/1.1 401 X\r\nWWW-Authenticate: {realm}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        path if path.contains("/circle/") && path.contains("/tags/") => {
            let body = r#"{"tags":["a"]}"#;
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\nLink: <{path}>; rel=\"next\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
        path if path.contains("/round") => {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        path if path.contains("/values/") => {
            let layers = vec!["{}"; 1_000_000].join(",");
            let body = format!(r#"{{"schemaVersion":2,"layers":[{layers}]}}"#);
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\n{json}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
        path if path.contains("/wide/") || path.contains("/nested/") => {
            let entry = format!(r#"{{"mediaType":"{INDEX}","digest":"sha256:{}","size":2}}"#, "0".repeat(64));
            let entries = vec![entry; if path.contains("/wide/") { 5_000 } else { 1 }].join(",");
            let body = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#);
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {INDEX}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
        path if path.contains("/headers/") => ("HTTP/1.1 200 OK\r\nX-Long: ".to_owned(), "aaaaaaaa"),
        path if path.contains("/broken/") => {
            (format!("HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: {ENDLESS}\r\n\r\n"), "aaaaaaaa")
        }
        path if path.contains("/tags/") => {
            (format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {ENDLESS}\r\n\r\n"), "\"a\",\"b\",")
        }
        "/token" => (format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {ENDLESS}\r\n\r\n"), "        "),
        "/gone" => (format!("HTTP/1.1 404 X\r\nConnection: close\r\nContent-Length: {ENDLESS}\r\n\r\n"), "aaaaaaaa"),
        "/Dockerfile" => (
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {ENDLESS}\r\n\r\n"
            ),
            "# aaaaa\n",
        ),
        _ => (format!("HTTP/1.1 200 OK\r\n{json}Connection: close\r\nContent-Length: {ENDLESS}\r\n\r\n"), "        "),
    };
    stream.write_all(head.as_bytes())?;
    // What follows the answer to a HEAD would be taken for the next answer.
    if first.starts_with("HEAD ") {
        return Ok(());
    }
    let piece = piece.repeat(8 << 10);
    for _ in 0..ENDLESS / piece.len() as u64 {
        stream.write_all(piece.as_bytes())?;
    }
    Ok(())
}

#[tokio::test]
async fn answers_without_end_are_left() {
    let fort = Fort::build().await;
    assert!(naive::dies_of_endless(&b" ".repeat(64 << 10)), "an answer without an end is no bomb");
    let host = format!("127.0.0.1:{}", serve(fort.daemon().pid()));
    let pull = |name: &str| format!("/images/create?fromImage={host}/{name}&tag=latest");
    for (name, path, sentence) in [
        ("a manifest", pull("endless/x"), "larger than 4194304 bytes"),
        ("a manifest of values", pull("values/x"), ""),
        ("an index of 5,000", pull("wide/x"), "an index leads to more than 4000 manifests"),
        ("an index in an index", pull("nested/x"), ""),
        ("a token", pull("guarded/x"), "larger than 1048576 bytes"),
        ("a refusal", pull("broken/x"), "500"),
        ("headers", pull("headers/x"), ""),
        ("redirects", pull("round/x"), ""),
        ("tags", format!("/images/create?fromImage={host}/endless/x&all=1"), ""),
        ("a circle of tags", format!("/images/create?fromImage={host}/circle/x&all=1"), "is too long"),
        ("a context that is gone", format!("/build?remote=http://{host}/gone"), "404"),
        ("a Dockerfile", format!("/build?remote=http://{host}/Dockerfile"), "larger than 4 MiB"),
        ("a circle of contexts", format!("/build?remote=http://{host}/round"), ""),
    ] {
        let log = fort.log_length();
        let answer = fort.send_tar(&path, Vec::new()).await;
        let text = answer.text();
        assert!(answer.status >= 400 || text.contains("errorDetail"), "{name}: {text}");
        assert!(text.contains(sentence) && text.len() < 64 << 10, "{name}: {} {text}", text.len());
        fort.stands(name, log).await;
    }
    fort.runs_a_container().await;
}
