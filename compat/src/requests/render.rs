//! Writes an answer as comparable lines: the status, the content type, then a line for each field of the body.

use serde_json::{Deserializer, Value};

use super::exchange::Answer;
use super::file::Request;
use super::websocket;
use crate::normal::normal;
use crate::socket::Socket;

/// Numbers that are never the same on two daemons.
const NUMBERS: [&str; 9] =
    ["Pid", "time", "timeNano", "NFd", "NGoroutines", "NEventsListener", "SwapTotal", "MemTotal", "pid"];
/// Headers that clients read.
const HEADERS: [&str; 4] = ["api-version", "docker-experimental", "location", "x-docker-container-path-stat"];

/// The answer in lines.
pub fn lines(request: &Request, answer: &Answer, socket: &Socket) -> Vec<String> {
    let clean = |text: &str| clean(text, socket);
    let mut lines = vec![format!("status: {}", answer.status)];
    let kind = answer.header("content-type").unwrap_or("none");
    lines.push(format!("type: {kind}"));
    for name in HEADERS.iter().filter(|name| **name != "api-version" || answer.status < 400) {
        if let Some(value) = answer.header(name) {
            let value = if *name == "api-version" { "<version>".to_owned() } else { clean(&unpacked(value)) };
            lines.push(format!("header {name}: {value}"));
        }
    }
    if !answer.complete {
        lines.push("body: cut off".to_owned());
    }
    if let Some(kept) = answer.kept {
        lines.push(format!("connection: {}", if kept { "kept" } else { "closed" }));
    }
    let body = &answer.body;
    if body.is_empty() {
        return lines;
    }
    let mut fields = match kind.split(';').next().unwrap_or_default() {
        _ if request.shape => json(body, true, &clean),
        "application/json" | "application/x-ndjson" | "application/jsonl" => json(body, request.sorted, &clean),
        "application/x-tar" => tar_entries(body),
        _ if request.websocket => websocket::messages(body).unwrap_or_else(|| text(body)),
        _ => frames(body).or_else(|| tarred(body)).unwrap_or_else(|| text(body)),
    };
    for field in &mut fields {
        *field = clean(field);
    }
    if request.sorted {
        fields.sort();
    }
    if request.shape {
        fields.iter_mut().for_each(|field| *field = shape(field));
        fields.dedup();
    }
    lines.append(&mut fields);
    lines
}

/// Everything that is the daemon's own: its folder, and what `normal` knows.
fn clean(text: &str, socket: &Socket) -> String {
    let folder = socket.path.parent().unwrap_or(&socket.path);
    normal(text, folder, &socket.path)
}

/// A header's base64 as what is in it.
fn unpacked(value: &str) -> String {
    decode(value).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| value.to_owned())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bits = 0u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// One document as its fields; several as a list of them.
fn json(body: &[u8], sorted: bool, clean: &impl Fn(&str) -> String) -> Vec<String> {
    let Ok(mut values) = Deserializer::from_slice(body).into_iter::<Value>().collect::<Result<Vec<_>, _>>() else {
        return text(body);
    };
    let mut fields = Vec::new();
    if !body.ends_with(b"\n") {
        fields.push("body: ends without a line feed".to_owned());
    }
    if let [value] = &mut values[..] {
        if sorted {
            sort(value, clean);
        }
        flatten(&mut fields, String::new(), value, clean);
        return fields;
    }
    values.retain(|value| {
        value.get("progressDetail").is_none_or(|detail| detail.as_object().is_none_or(|d| d.is_empty()))
    });
    for (at, value) in values.iter().enumerate() {
        flatten(&mut fields, if sorted { "[]".to_owned() } else { format!("[{at}]") }, value, clean);
    }
    fields
}

/// Lists in the order of what is in them, ids aside.
fn sort(value: &mut Value, clean: &impl Fn(&str) -> String) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(|item| sort(item, clean));
            items.sort_by_cached_key(|item| {
                let mut fields = Vec::new();
                flatten(&mut fields, String::new(), item, clean);
                fields.iter().map(|field| clean(field)).collect::<Vec<_>>()
            });
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| sort(field, clean)),
        _ => {}
    }
}

fn flatten(fields: &mut Vec<String>, path: String, value: &Value, clean: &impl Fn(&str) -> String) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            let mut keys: Vec<_> = object.iter().map(|(key, value)| (clean(key), value)).collect();
            keys.sort_by(|(left, _), (right, _)| left.cmp(right));
            for (key, value) in keys {
                flatten(fields, format!("{path}.{key}"), value, clean);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                flatten(fields, format!("{path}[{at}]"), item, clean);
            }
        }
        Value::Number(number) => {
            let key = path.rsplit('.').next().unwrap_or_default();
            let never_the_same = NUMBERS.contains(&key) || (key == "Created" && number.as_i64() > Some(0));
            if key == "PublicPort" && number.as_i64() >= Some(32768) {
                fields.push(format!("{path}: <port>"));
            } else if never_the_same && number.as_i64() != Some(0) {
                fields.push(format!("{path}: <number>"));
            } else {
                fields.push(format!("{path}: {number}"));
            }
        }
        other => fields.push(format!("{path}: {other}")),
    }
}

/// The frames of attach, exec and logs: what each stream carried. Where one frame ends and the next begins is chance.
fn frames(body: &[u8]) -> Option<Vec<String>> {
    let mut frames: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(8)?;
        let &[stream @ 0..=3, 0, 0, 0, a, b, c, d] = head else { return None };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        let (payload, after) = after.split_at_checked(length)?;
        match frames.last_mut() {
            Some((last, bytes)) if *last == stream => bytes.extend_from_slice(payload),
            _ => frames.push((stream, payload.to_vec())),
        }
        rest = after;
    }
    let line = |(stream, bytes): &(u8, Vec<u8>)| format!("frame {stream}: {:?}", String::from_utf8_lossy(bytes));
    Some(frames.iter().map(line).collect())
}

/// A field whose number may be any.
fn shape(field: &str) -> String {
    match field.split_once(": ") {
        Some((name, value)) if value.parse::<f64>().is_ok() => format!("{name}: <number>"),
        _ => field.to_owned(),
    }
}

fn tarred(body: &[u8]) -> Option<Vec<String>> {
    (body.get(257..262)? == b"ustar").then(|| tar_entries(body))
}

fn tar_entries(body: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(body);
    let Ok(entries) = archive.entries() else { return text(body) };
    entries
        .map_while(Result::ok)
        .map(|entry| {
            let header = entry.header();
            format!(
                "entry {}: {:?} {:o} {}:{} {} bytes {}",
                entry.path().unwrap_or_default().display(),
                header.entry_type(),
                header.mode().unwrap_or_default(),
                header.uid().unwrap_or_default(),
                header.gid().unwrap_or_default(),
                header.size().unwrap_or_default(),
                entry.link_name().ok().flatten().map(|link| format!("-> {}", link.display())).unwrap_or_default(),
            )
        })
        .collect()
}

fn text(body: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(body).lines().map(|line| format!("text: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str, sorted: bool) -> Vec<String> {
        json(text.as_bytes(), sorted, &|text: &str| text.to_owned())
    }

    #[test]
    fn a_document_is_a_line_per_field() {
        assert_eq!(
            flat("{\"b\":[1,{}],\"a\":null,\"Pid\":7}\n", false),
            [".Pid: <number>", ".a: null", ".b[0]: 1", ".b[1]: {}"]
        );
        assert_eq!(flat("[\"y\",\"x\"]\n", true), ["[0]: \"x\"", "[1]: \"y\""]);
    }

    #[test]
    fn parts_of_a_stream_are_numbered() {
        assert_eq!(flat("{\"a\":1}\n{\"a\":2}\n", false), ["[0].a: 1", "[1].a: 2"]);
    }

    #[test]
    fn frames_of_one_stream_are_one_text() {
        let body = [&[1, 0, 0, 0, 0, 0, 0, 1][..], b"a", &[1, 0, 0, 0, 0, 0, 0, 1], b"b"].concat();
        assert_eq!(frames(&body), Some(vec!["frame 1: \"ab\"".to_owned()]));
        assert_eq!(frames(b"plain text"), None);
    }

    #[test]
    fn a_shape_has_no_numbers() {
        assert_eq!(shape(".a.b: 1.5"), ".a.b: <number>");
        assert_eq!(shape(".a.b: \"1\""), ".a.b: \"1\"");
    }

    #[test]
    fn base64_is_read_in_both_alphabets() {
        assert_eq!(unpacked("e30="), "{}");
    }
}
