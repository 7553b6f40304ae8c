//! Reads the `.req` files: one request a line.
//!
//! ```text
//! # A comment.
//! [quiet] POST /containers/create?name=a {"Image":"busybox"}
//! [all] GET /containers/a/json
//! GET /v1.45/images/json?filters={"dangling":["true"]}
//! ```
//!
//! A path without a version is sent under 1.41. What the query may not hold is percent-encoded by the harness; `{word}` is
//! what an earlier line kept; `{registry}` is the registry's address, `{start}` and `{now}` are times. Marks before the method, each in brackets:
//!
//! | mark | |
//! |---|---|
//! | `all` | the line once under each of 1.24, 1.41, 1.45 and 1.51 |
//! | `bare` | no version in front |
//! | `quiet` | has to succeed; the answer is not compared |
//! | `keep WORD /POINTER` | a string of the answer, for later lines |
//! | `until TEXT` | repeated until the answer has this text, for at most ten seconds |
//! | `begin NAME`, `end NAME` | sent beside the lines that follow; `[end NAME]` alone on a line is its answer |
//! | `upgrade`, `input TEXT` | takes the connection over; `input` is then sent, and the sending side closed |
//! | `websocket` | the same through a WebSocket: its messages, and what it was closed with |
//! | `header NAME: VALUE`, `type TYPE` | one more header; another Content-Type than JSON |
//! | `tar NAME=TEXT,NAME/` | the body is an archive with these files and folders; `\n` in them is a line feed |
//! | `again` | also whether the connection takes another request then |
//! | `sorted` | the order of a list, or of a stream's parts, means nothing |
//! | `shape` | nor do the numbers, nor how many parts there are |
//! | `timeout N` | seconds after which the answer is cut (10) |
//! | `later WHAT` | what ringer does not do yet |

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

const VERSIONS: [&str; 4] = ["1.24", "1.41", "1.45", "1.51"];

/// All requests on one subject; they are sent in order.
#[derive(Debug)]
pub struct Set {
    /// The file's name without its ending.
    pub name: String,
    /// In the order of the file.
    pub requests: Vec<Request>,
}

/// One request and how its answer is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// With its version and query, not yet encoded.
    pub target: String,
    pub body: Option<String>,
    pub kind: Option<String>,
    pub headers: Vec<String>,
    pub tar: Option<String>,
    pub upgrade: bool,
    pub websocket: bool,
    pub again: bool,
    pub input: Option<String>,
    pub quiet: bool,
    pub sorted: bool,
    pub shape: bool,
    /// The word to keep, and the JSON pointer of its value.
    pub keep: Option<(String, String)>,
    pub until: Option<String>,
    pub begins: Option<String>,
    pub ends: Option<String>,
    pub timeout: Option<Duration>,
    pub later: Option<String>,
}

impl Request {
    /// The method and the path.
    pub fn name(&self) -> String {
        match &self.ends {
            Some(name) if self.method.is_empty() => format!("end {name}"),
            _ => format!("{} {}", self.method, self.target),
        }
    }

    /// What the deviations call it: the name and the body.
    pub fn text(&self) -> String {
        match &self.body {
            Some(body) => format!("{} {body}", self.name()),
            None => self.name(),
        }
    }

    /// What the table calls it: the beginning of that.
    pub fn title(&self) -> String {
        self.text().chars().take(200).collect()
    }

    /// With every `{word}` replaced by what was kept for it.
    pub fn filled(&self, words: &HashMap<String, String>) -> Self {
        let mut request = self.clone();
        for (word, value) in words {
            let word = format!("{{{word}}}");
            request.target = request.target.replace(&word, value);
            request.body = request.body.map(|body| body.replace(&word, value));
            request.tar = request.tar.map(|tar| tar.replace(&word, value));
            request.headers = request.headers.into_iter().map(|header| header.replace(&word, value)).collect();
        }
        request
    }
}

/// Reads every `.req` file of a folder, in the order of their names.
pub fn read_folder(folder: &Path) -> anyhow::Result<Vec<Set>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "req") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> anyhow::Result<Set> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
    let requests = parse(&text).with_context(|| path.display().to_string())?;
    Ok(Set { name, requests })
}

fn parse(text: &str) -> anyhow::Result<Vec<Request>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let parsed: Result<Vec<_>, _> = lines.map(|line| parse_line(line).with_context(|| line.to_owned())).collect();
    Ok(parsed?.concat())
}

fn parse_line(line: &str) -> anyhow::Result<Vec<Request>> {
    let mut request = Request::default();
    let (mut all, mut bare) = (false, false);
    let mut rest = line.trim();
    while let Some(marked) = rest.strip_prefix('[') {
        let alone = || marked.strip_suffix(']').map(|mark| (mark, ""));
        let (mark, after) = marked.split_once("] ").or_else(alone).context("unclosed [")?;
        rest = after.trim_start();
        match mark {
            "all" => all = true,
            "bare" => bare = true,
            _ => request.mark(mark)?,
        }
    }
    if request.ends.is_some() {
        ensure!(rest.is_empty(), "[end] stands alone");
        return Ok(vec![request]);
    }
    let (method, rest) = rest.split_once(' ').context("expected METHOD PATH")?;
    let (target, body) = rest.split_once(' ').map_or((rest, None), |(target, body)| (target, Some(body.trim())));
    ensure!(target.starts_with('/'), "a path begins with /");
    request.method = method.to_owned();
    request.body = body.map(str::to_owned);
    let versions: &[&str] = if all { &VERSIONS } else { &VERSIONS[1..2] };
    let under = |version: &&str| Request { target: format!("/v{version}{target}"), ..request.clone() };
    if bare || target.starts_with("/v1.") {
        return Ok(vec![Request { target: target.to_owned(), ..request }]);
    }
    Ok(versions.iter().map(under).collect())
}

impl Request {
    fn mark(&mut self, mark: &str) -> anyhow::Result<()> {
        match mark.split_once(' ') {
            None if mark == "quiet" => self.quiet = true,
            None if mark == "sorted" => self.sorted = true,
            None if mark == "upgrade" => self.upgrade = true,
            None if mark == "websocket" => self.websocket = true,
            None if mark == "again" => self.again = true,
            None if mark == "shape" => (self.shape, self.sorted) = (true, true),
            None if mark == "tar" => self.tar = Some(String::new()),
            Some(("keep", kept)) => {
                let (word, pointer) = kept.split_once(' ').context("keep takes a word and a pointer")?;
                self.keep = Some((word.to_owned(), pointer.to_owned()));
            }
            Some(("until", text)) => self.until = Some(text.to_owned()),
            Some(("begin", name)) => self.begins = Some(name.to_owned()),
            Some(("end", name)) => self.ends = Some(name.to_owned()),
            Some(("input", text)) => self.input = Some(text.replace("\\n", "\n")),
            Some(("header", header)) => self.headers.push(header.to_owned()),
            Some(("type", kind)) => self.kind = Some(kind.to_owned()),
            Some(("tar", entries)) => self.tar = Some(entries.replace("\\n", "\n")),
            Some(("timeout", seconds)) => self.timeout = Some(Duration::from_secs(seconds.parse()?)),
            Some(("later", what)) => self.later = Some(what.to_owned()),
            _ => bail!("unknown mark [{mark}]"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_before_the_method_and_the_body_after_the_path() {
        let requests = parse("# x\n[keep id /Id] [quiet] POST /a?b={} {\"c\": 1}\n").expect("it is well formed");
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].name(), "POST /v1.41/a?b={}");
        assert_eq!(requests[0].body.as_deref(), Some("{\"c\": 1}"));
        assert_eq!(requests[0].keep, Some(("id".to_owned(), "/Id".to_owned())));
        assert!(requests[0].quiet);
    }

    #[test]
    fn a_mark_may_hold_brackets() {
        let requests = parse("[tar Dockerfile=CMD [\"a\"]\\n] POST /build\n").expect("it is well formed");
        assert_eq!(requests[0].tar.as_deref(), Some("Dockerfile=CMD [\"a\"]\n"));
    }

    #[test]
    fn a_line_for_all_versions_is_several_requests() {
        assert_eq!(parse("[all] GET /info\n").expect("it is well formed").len(), 4);
    }

    #[test]
    fn the_requests_of_this_package_can_be_read() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/requests"));
        assert!(!read_folder(folder).expect("they are well formed").is_empty());
    }
}
