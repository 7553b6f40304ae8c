//! One raw request on a connection of its own, and all of its answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::file::Request;
use super::websocket;
use crate::http::{read_body, read_head};

const LIMIT: Duration = Duration::from_secs(10);

/// What a daemon answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
    /// Whether the connection took another request, where that is asked.
    pub kept: Option<bool>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Sends a request and reads its answer to the end, or to the request's time limit; says when its head is there.
pub fn send(socket: &Path, request: &Request, headed: impl FnOnce()) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
    let limit = request.timeout.unwrap_or(LIMIT);
    let mut connection = BufReader::new(Limited { stream: &stream, deadline: Instant::now() + limit });
    (&stream).write_all(&bytes(request)?)?;
    let head = read_head(&mut connection)?;
    headed();
    if let Some(input) = &request.input {
        if request.websocket {
            (&stream).write_all(&websocket::message(input))?;
        } else {
            (&stream).write_all(input.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
        }
    }
    let mut body = Vec::new();
    let complete = if head.status == 101 {
        // What was read before an error stays.
        connection.read_to_end(&mut body).is_ok()
    } else {
        read_body(&mut connection, &request.method, &head, &mut body).is_ok()
    };
    let kept = request.again.then(|| takes_another(&stream, &mut connection));
    Ok(Answer { status: head.status, headers: head.headers, body, complete, kept })
}

fn takes_another(stream: &UnixStream, connection: &mut impl BufRead) -> bool {
    let sent = (&*stream).write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n");
    sent.is_ok() && read_head(connection).is_ok_and(|head| head.status == 200)
}

/// A stream that fails at its deadline, also when there is always something to read.
struct Limited<'s> {
    stream: &'s UnixStream,
    deadline: Instant,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn bytes(request: &Request) -> anyhow::Result<Vec<u8>> {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: docker\r\n", request.method, encoded(&request.target));
    for header in &request.headers {
        head.push_str(&format!("{header}\r\n"));
    }
    if request.upgrade {
        head.push_str("Connection: Upgrade\r\nUpgrade: tcp\r\n");
    }
    if request.websocket {
        head.push_str(websocket::HEADERS);
    }
    let (body, kind) = match (&request.tar, &request.body) {
        (Some(entries), _) => (archive(entries)?, "application/x-tar"),
        (None, Some(body)) => (body.clone().into_bytes(), "application/json"),
        (None, None) => (Vec::new(), ""),
    };
    match request.kind.as_deref().unwrap_or(kind) {
        "" | "none" => {}
        kind => head.push_str(&format!("Content-Type: {kind}\r\n")),
    }
    if !body.is_empty() || request.method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// What a request line may not hold as it is. What is encoded already stays.
fn encoded(target: &str) -> String {
    let mut text = String::new();
    for byte in target.bytes() {
        match byte {
            b'!'..=b'~' if !br#""<>\^`{|}[]"#.contains(&byte) => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn archive(entries: &str) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries.split(',').filter(|entry| !entry.is_empty()) {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        let (name, text) = entry.split_once('=').unwrap_or((entry, ""));
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_request_line_cannot_hold_is_encoded() {
        assert_eq!(encoded("/a?f={\"x\":[1]}&g=%7B"), "/a?f=%7B%22x%22:%5B1%5D%7D&g=%7B");
    }
}
