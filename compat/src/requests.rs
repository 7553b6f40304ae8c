//! Sends raw API requests to every daemon and holds the answers against each other, field by field.
//!
//! The requests are data, in `compat/requests/*.req`; `compat/deviations` names the fields in which ringer's answer
//! may be another than dockerd's, each with its reason.

mod deviations;
mod exchange;
mod file;
mod render;
mod websocket;

use std::collections::HashMap;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

pub use deviations::{Deviations, OfJob};
use file::Set;
pub use file::read_folder;

use crate::docker_cli::load_images;
use crate::leftovers;
use crate::report::{Observed, Outcome, Row};
use crate::socket::Socket;
use exchange::Answer;
use file::Request;

/// What the table calls this client.
pub const CLIENT: &str = "requests";

/// What one daemon answered to one line, as lines `field: value`.
type Seen = Vec<String>;

/// Sends a set's requests to one daemon, in order, and removes what they left.
pub fn send(set: &Set, socket: &Socket, registry: &str, images: &[PathBuf]) -> anyhow::Result<Vec<Seen>> {
    let before = leftovers::holdings(&socket.path)?;
    let mut session = Session {
        socket,
        words: HashMap::from([("registry".to_owned(), registry.to_owned()), ("start".to_owned(), now())]),
        begun: HashMap::new(),
    };
    let seen = set.requests.iter().map(|request| session.row(request)).collect();
    leftovers::sweep(&socket.path, &before)?;
    if leftovers::lost_images(&socket.path, &before)? {
        load_images(socket, images)?;
    }
    Ok(seen)
}

/// Makes the rows of a set from what all daemons answered. A field that deviates for a reason is left out of the
/// comparison, and the row then counts as one that deviates.
pub fn rows(set: &Set, seen: &[Vec<Seen>], sockets: &[Socket], deviations: &mut Deviations) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, request) in set.requests.iter().enumerate() {
        if request.begins.is_some() {
            continue;
        }
        let answers: Vec<&Seen> = seen.iter().map(|daemon| &daemon[at]).collect();
        let mut reasons = Vec::new();
        let mut observed: Vec<Observed> = answers.iter().map(|lines| observe(request, lines)).collect();
        for ours in (0..sockets.len()).filter(|at| !sockets[*at].reference) {
            let references = (0..sockets.len()).filter(|at| sockets[*at].reference);
            let references: Vec<&Seen> = references.map(|at| answers[at]).collect();
            if request.quiet || references.contains(&answers[ours]) {
                continue;
            }
            if let Some(found) = deviations.explain(&request.text(), answers[ours], &references) {
                reasons.extend(found);
            } else if let Some(closest) = closest(answers[ours], &references) {
                // What is explained already is not shown again.
                observed[ours].stdout = deviations.without(&request.text(), answers[ours], closest);
            }
        }
        rows.push(Row {
            client: CLIENT.to_owned(),
            case: set.name.clone(),
            step: request.title(),
            exit: 0,
            exit_of_job: Some(0),
            deviation: (!reasons.is_empty()).then(|| reasons.join("; ")),
            later: request.later.is_some(),
            observed: observed.into_iter().map(Outcome::Answer).collect(),
        });
    }
    rows
}

fn closest<'a>(ours: &Seen, references: &[&'a Seen]) -> Option<&'a Seen> {
    references.iter().copied().max_by_key(|reference| ours.iter().filter(|line| reference.contains(line)).count())
}

/// A request that only prepares the next ones has to succeed, and its answer is not compared.
fn observe(request: &Request, lines: &Seen) -> Observed {
    let succeeded = lines.first().is_some_and(|line| line.starts_with("status: 2") || line.starts_with("status: 3"));
    if request.quiet && succeeded {
        return Observed { code: Some(0), stdout: String::new(), stderr: String::new() };
    }
    Observed { code: Some(i32::from(request.quiet)), stdout: lines.join("\n"), stderr: String::new() }
}

struct Session<'s> {
    socket: &'s Socket,
    /// What `{NAME}` stands for in a line.
    words: HashMap<String, String>,
    begun: HashMap<String, JoinHandle<anyhow::Result<Answer>>>,
}

impl Session<'_> {
    fn row(&mut self, request: &Request) -> Seen {
        match self.answer(request) {
            Ok(Some(answer)) => {
                self.keep(request, &answer);
                render::lines(request, &answer, self.socket)
            }
            Ok(None) => Vec::new(),
            Err(error) => vec![format!("no answer: {error:#}")],
        }
    }

    fn answer(&mut self, request: &Request) -> anyhow::Result<Option<Answer>> {
        if let Some(name) = &request.ends {
            let begun = self.begun.remove(name).with_context(|| format!("{name} was not begun"))?;
            return begun.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the harness panicked"))).map(Some);
        }
        self.words.insert("now".to_owned(), now());
        let filled = request.filled(&self.words);
        if let Some(name) = &request.begins {
            self.begun.insert(name.clone(), begin(self.socket.path.clone(), filled)?);
            return Ok(None);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = exchange::send(&self.socket.path, &filled, || ())?;
            let done = request.until.as_ref().is_none_or(|text| String::from_utf8_lossy(&answer.body).contains(text));
            if done || Instant::now() > deadline {
                ensure!(done, "no answer had {:?} within ten seconds", request.until);
                return Ok(Some(answer));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn keep(&mut self, request: &Request, answer: &Answer) {
        let Some((word, key)) = &request.keep else { return };
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let value = value.pointer(key).and_then(|value| value.as_str()).unwrap_or("nothing");
        self.words.insert(word.clone(), value.to_owned());
    }
}

/// Sends a request on a thread of its own and returns when the head of its answer is there, or after a second without.
fn begin(socket: PathBuf, request: Request) -> anyhow::Result<JoinHandle<anyhow::Result<Answer>>> {
    let (tell, head) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().spawn(move || {
        exchange::send(&socket, &request, || {
            // Nobody listens when the head came late.
            let _ = tell.send(());
        })
    })?;
    let _ = head.recv_timeout(Duration::from_secs(1));
    Ok(thread)
}

/// The time as the queries of events take it.
fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}
