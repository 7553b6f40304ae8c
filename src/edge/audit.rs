//! Who changed what: one JSON line for each call that changes something, of every API that stands behind an [`Audited`].
//!
//! A line has names and numbers, and never a body, a header or a query as they came: credentials and variables are in these.

mod file;

use std::{
    io,
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use http::{Method, Request, Response, Uri};
use serde::Serialize;

use self::file::Lines;
use super::{route::Answer, server::Api, within::Within};
use crate::{
    model::{
        caller::{Caller, PeerProcess},
        id::{ContainerId, TenantId},
        policy::Key,
        time::Timestamp,
    },
    processes::Process,
};

/// POST calls that change nothing.
const CHANGING_NOTHING: [&str; 4] = ["ContainerWait", "ContainerResize", "ExecResize", "SystemAuth"];

/// Parts of a query that name what is meant.
const NAMES: [&str; 4] = ["name", "fromImage", "repo", "t"];

/// Longest name that is written.
const NAME_LENGTH: usize = 300;

/// Put on an answer by the table of routes: which call it was.
#[derive(Clone, Debug)]
pub struct Called {
    /// Its operationId.
    pub operation: &'static str,
    /// What its path names; empty for nothing.
    pub object: String,
}

/// Put on an answer: what was made is called so.
#[derive(Clone, Debug)]
pub struct Made(pub String);

/// Put on an answer: which rule of a policy did not allow the call.
#[derive(Clone, Copy, Debug)]
pub struct Refused(pub Key);

/// The log.
pub struct Audit(Lines);

impl Audit {
    /// Writes to `path` and rotates there.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(Lines::open(path)?)))
    }

    /// An API whose changing calls are written down, those of `job` if it is one's.
    pub fn of(self: &Arc<Self>, api: Arc<dyn Api>, job: Option<TenantId>) -> Arc<dyn Api> {
        Arc::new(Audited { api, job, audit: self.clone() })
    }
}

struct Audited {
    api: Arc<dyn Api>,
    job: Option<TenantId>,
    audit: Arc<Audit>,
}

impl Api for Audited {
    fn answer(&self, mut request: Request<Body>) -> Answer {
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return self.api.answer(request);
        }
        let (begun, audit, job) = (Instant::now(), self.audit.clone(), self.job.clone());
        let peer = request.extensions().get::<Caller>().map(Peer::of).unwrap_or_default();
        let named = name_in(request.uri());
        let note = Arc::new(move |response: &Response<Body>, named, begun: Instant| {
            if let Some(entry) = entry(response, named, job.clone(), peer.clone(), begun.elapsed()) {
                audit.0.write(&entry);
            }
        });
        let within = note.clone();
        Within::watch(&mut request, move |response, begun| within(response, None, begun));
        let answering = self.api.answer(request);
        Box::pin(async move {
            let response = answering.await;
            note(&response, named, begun);
            response
        })
    }
}

/// One line.
#[derive(Serialize)]
struct Entry {
    time: Timestamp,
    job: Option<TenantId>,
    peer: Peer,
    operation: &'static str,
    object: Option<String>,
    verdict: &'static str,
    rule: Option<Key>,
    status: u16,
    ms: u64,
}

/// Who asked; a client over tcp has an address only.
#[derive(Clone, Default, Serialize)]
struct Peer {
    pid: Option<u32>,
    uid: Option<u32>,
    container: Option<ContainerId>,
    address: Option<String>,
}

impl Peer {
    fn of(caller: &Caller) -> Self {
        let mut peer = Self::default();
        match caller {
            Caller::Daemon => {}
            Caller::Remote(address) => peer.address = Some(address.to_string()),
            Caller::Process(process) => {
                peer.uid = Some(process.uid);
                if let PeerProcess::Known(pidfd) = &process.process {
                    // One that has ended is nobody any more.
                    let process = Process::of(pidfd.as_fd()).ok();
                    peer.pid = process.as_ref().map(Process::number);
                    let cgroups = process.and_then(|process| process.cgroups().ok()).unwrap_or_default();
                    peer.container = cgroups.iter().find_map(|cgroup| container_in(cgroup));
                }
            }
        }
        peer
    }
}

/// The container whose id a cgroup's path has; the innermost if several have.
fn container_in(cgroup: &str) -> Option<ContainerId> {
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    cgroup.rsplit('/').find(is_id).map(ContainerId::from_stored)
}

fn entry(
    response: &Response<Body>,
    named: Option<String>,
    job: Option<TenantId>,
    peer: Peer,
    took: Duration,
) -> Option<Entry> {
    let extensions = response.extensions();
    let called = extensions.get::<Called>().filter(|called| !CHANGING_NOTHING.contains(&called.operation))?;
    let in_path = Some(called.object.clone()).filter(|name| !name.is_empty());
    let made = extensions.get::<Made>().map(|made| made.0.clone());
    let rule = extensions.get::<Refused>().map(|refused| refused.0);
    Some(Entry {
        time: Timestamp::now(),
        job,
        peer,
        operation: called.operation,
        object: in_path.or(named).or(made).map(shortened),
        verdict: if rule.is_some() { "refused" } else { "allowed" },
        rule,
        status: response.status().as_u16(),
        ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

/// What a query names. Never more of it: `remote` and `buildargs` may have secrets.
fn name_in(uri: &Uri) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(uri.query()?).ok()?;
    let name = pairs.into_iter().find(|(key, value)| NAMES.contains(&key.as_str()) && !value.is_empty())?.1;
    // A name with a password before its host is no name.
    (!name.contains('@') || name.contains("@sha256:")).then_some(name)
}

fn shortened(mut name: String) -> String {
    let end = name.char_indices().map(|(at, _)| at).find(|at| *at >= NAME_LENGTH).unwrap_or(name.len());
    name.truncate(end);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_give_names_and_no_more() {
        let name = |query: &str| name_in(&format!("/x?{query}").parse().unwrap());
        assert_eq!(name("platform=&name=web").as_deref(), Some("web"));
        assert_eq!(name("fromImage=reg.test%2Fa&tag=1").as_deref(), Some("reg.test/a"));
        assert_eq!(name("remote=https%3A%2F%2Fme%3Asecret%40x&buildargs=%7B%7D"), None);
        assert_eq!(name("fromImage=me%3Asecret%40reg.test%2Fa"), None);
    }

    #[test]
    fn containers_are_told_by_the_innermost_cgroup() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(container_in(&format!("/ringer/job-1/{id}")).unwrap().as_str(), id);
        assert_eq!(container_in("/user.slice/session-1.scope"), None);
        assert_eq!(shortened("ä".repeat(400)).len(), NAME_LENGTH);
    }
}
