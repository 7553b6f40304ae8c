//! A small HTTP/1.1 client for a unix socket. It is our own so that the timing loop of the bench has nothing in it but the
//! calls: one kept-alive connection, no allocation per chunk, no task switches.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// One client, which keeps its connection between requests.
pub struct Client {
    path: PathBuf,
    connection: Option<BufReader<UnixStream>>,
}

/// A request's body.
pub enum Body<'a> {
    /// No body at all.
    Empty,
    /// A JSON document.
    Json(&'a Value),
    /// A tar archive in memory.
    Tar(&'a [u8]),
    /// A tar archive on disk.
    TarFile(&'a Path),
}

/// An answer whose body was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// This answer, unless it is an error.
    pub fn success(self) -> anyhow::Result<Self> {
        ensure!(self.status < 400, "status {}: {}", self.status, String::from_utf8_lossy(&self.body).trim());
        Ok(self)
    }
}

/// The beginning of an answer.
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// All headers, with their names in lower case.
    pub headers: Vec<(String, String)>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
}

impl Client {
    /// A client of the daemon behind this socket; it connects at its first request.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: None }
    }

    /// Sends a request and reads its whole answer.
    pub fn request(&mut self, method: &str, target: &str, body: Body<'_>) -> anyhow::Result<Answer> {
        let mut bytes = Vec::new();
        let status = self.stream(method, target, body, &mut bytes)?;
        Ok(Answer { status, body: bytes })
    }

    /// Sends a request and writes its answer's body to `sink` as it comes; gives the status.
    pub fn stream(&mut self, method: &str, target: &str, body: Body<'_>, sink: &mut impl Write) -> anyhow::Result<u16> {
        let reused = self.connection.is_some();
        let mut connection = self.connect()?;
        let sent = send(connection.get_mut(), method, target, &body, false);
        let head = match sent.and_then(|()| read_head(&mut connection)) {
            // An idle connection that the daemon has closed meanwhile says nothing about the daemon.
            Err(_) if reused => {
                connection = self.connect()?;
                send(connection.get_mut(), method, target, &body, false)?;
                read_head(&mut connection)?
            }
            other => other?,
        };
        read_body(&mut connection, method, &head, sink)?;
        if !head.close {
            self.connection = Some(connection);
        }
        Ok(head.status)
    }

    /// Sends a request that takes over the connection (exec, attach), reads to its end and gives the number of bytes.
    pub fn hijack(&mut self, target: &str, body: &Value) -> anyhow::Result<u64> {
        let mut connection = self.connect()?;
        send(connection.get_mut(), "POST", target, &Body::Json(body), true)?;
        let head = read_head(&mut connection)?;
        ensure!(head.status == 101, "POST {target} answered {} instead of 101", head.status);
        Ok(std::io::copy(&mut connection, &mut std::io::sink())?)
    }

    fn connect(&mut self) -> anyhow::Result<BufReader<UnixStream>> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let stream =
            UnixStream::connect(&self.path).with_context(|| format!("connecting to {}", self.path.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(BufReader::with_capacity(64 * 1024, stream))
    }
}

fn send(stream: &mut UnixStream, method: &str, target: &str, body: &Body<'_>, upgrade: bool) -> anyhow::Result<()> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: docker\r\n");
    if upgrade {
        head.push_str("Connection: Upgrade\r\nUpgrade: tcp\r\n");
    }
    match body {
        Body::Empty => write_with(stream, head, "", &[]),
        Body::Json(json) => write_with(stream, head, "application/json", json.to_string().as_bytes()),
        Body::Tar(bytes) => write_with(stream, head, "application/x-tar", bytes),
        Body::TarFile(path) => {
            let mut file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
            let length = file.metadata()?.len();
            write!(stream, "{head}Content-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n")?;
            std::io::copy(&mut file, stream)?;
            Ok(())
        }
    }
}

fn write_with(stream: &mut UnixStream, head: String, kind: &str, body: &[u8]) -> anyhow::Result<()> {
    let mut bytes = head.into_bytes();
    if !kind.is_empty() {
        bytes.extend_from_slice(format!("Content-Type: {kind}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)?;
    Ok(())
}

/// Reads up to the empty line.
pub fn read_head(connection: &mut impl BufRead) -> anyhow::Result<Head> {
    let mut line = String::new();
    ensure!(connection.read_line(&mut line)? > 0, "the daemon closed the connection");
    let status = line.split(' ').nth(1).and_then(|word| word.trim().parse().ok());
    let mut head = Head {
        status: status.with_context(|| format!("not an HTTP answer: {line}"))?,
        headers: Vec::new(),
        length: None,
        chunked: false,
        close: false,
    };
    loop {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the daemon closed the connection inside the headers");
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(head);
        };
        let value = value.trim();
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "content-length" => head.length = Some(value.parse()?),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => head.close = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
        head.headers.push((name, value.to_owned()));
    }
}

/// Reads what follows the head and writes it to `sink` as it comes.
pub fn read_body(
    connection: &mut impl BufRead,
    method: &str,
    head: &Head,
    sink: &mut impl Write,
) -> anyhow::Result<()> {
    if method == "HEAD" || head.status == 204 || head.status == 304 {
        return Ok(());
    }
    if head.chunked {
        return read_chunks(connection, sink);
    }
    match head.length {
        Some(length) => copy_exactly(connection, length, sink),
        None => {
            std::io::copy(connection, sink)?;
            Ok(())
        }
    }
}

fn read_chunks(connection: &mut impl BufRead, sink: &mut impl Write) -> anyhow::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the daemon closed the connection inside a chunked body");
        let length = line.trim_end().split(';').next().unwrap_or_default();
        let length = u64::from_str_radix(length, 16).with_context(|| format!("not a chunk's length: {line}"))?;
        copy_exactly(connection, length, sink)?;
        let mut end = [0; 2];
        connection.read_exact(&mut end)?;
        if &end != b"\r\n" {
            bail!("a chunk that does not end where it should");
        }
        if length == 0 {
            return Ok(());
        }
    }
}

fn copy_exactly(connection: &mut impl BufRead, length: u64, sink: &mut impl Write) -> anyhow::Result<()> {
    let copied = std::io::copy(&mut connection.take(length), sink)?;
    ensure!(copied == length, "the daemon closed the connection inside a body");
    Ok(())
}
