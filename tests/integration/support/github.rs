//! A fake of GitHub at a place: its REST API as far as a supervisor calls it, and a service for our stand-in of its runner. It refuses what
//! GitHub refuses, and misbehaves as a test asks.
//!
//! Calls and answers are held against GitHub's OpenAPI description (`described`), whose operation ids `rest` names; what differs fails the
//! test at its end. What that does not say is an assumption, with its source beside it: `[doc]` GitHub's documentation, `[src]` actions/runner or actions/scaleset, `[iss]` an issue there, `[mem]` common
//! knowledge. What the service says to runners is our own and much smaller than the real one's: the stand-in and it were made for each other.

mod described;
mod model;
mod rest;
mod scale_sets;
mod service;
mod webhooks;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use serde_json::Value;

use self::model::Asked;
pub use self::model::{Fault, Model, NewJob, Reply, now};
use super::{
    daemon::Daemon,
    launches,
    place::{self, Place, Serving},
    stand_in::each_connection,
};

/// Its port, at [`place::ADDRESS`].
const PORT: u16 = 3080;

/// The organisation that is there.
pub const ORG: &str = "acme";

/// A token that may do everything.
pub const TOKEN: &str = "ghp_of-a-test-that-may-do-everything";

/// For whatever a job waits for on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The fake. It ends with its guard.
pub struct GitHub {
    place: Place,
    shared: Arc<Shared>,
    serving: Option<Serving>,
}

/// What the server's tasks and the test share.
struct Shared {
    model: Mutex<Model>,
    changed: tokio::sync::Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.tick();
        model
    }
}

impl GitHub {
    /// Starts one with [`ORG`] and nothing in it.
    pub fn start() -> Self {
        let place = Place::start();
        let mut github = Self {
            shared: Arc::new(Shared { model: Mutex::new(Model::new(&url())), changed: tokio::sync::Notify::new() }),
            place,
            serving: None,
        };
        github.come_back();
        github
    }

    /// Listens again after [`Self::go_away`].
    pub fn come_back(&mut self) {
        let shared = self.shared.clone();
        self.serving = Some(Serving::start(&self.place, PORT, |listener| serve(listener, shared)));
    }

    /// Nobody listens any more, and connections break off.
    pub fn go_away(&mut self) {
        drop(self.serving.take());
    }

    /// Its network namespace, where daemons on it have to be.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// `instance_url` for it.
    pub fn url(&self) -> String {
        url()
    }

    /// What it knows; what is changed there is so from then on.
    pub fn model(&self) -> impl std::ops::DerefMut<Target = Model> + '_ {
        let guard = self.shared.lock();
        self.shared.changed.notify_waiters();
        guard
    }

    /// Queues a run of these jobs in a repository of [`ORG`], which is made if it is new; their numbers.
    pub fn push(&self, repository: &str, jobs: Vec<NewJob>) -> Vec<i64> {
        self.model().push(&format!("{ORG}/{repository}"), jobs)
    }

    /// A job as its API describes it.
    pub fn job(&self, id: i64) -> Value {
        self.model().job(id)
    }

    /// Waits until these jobs have this status or conclusion; the jobs.
    pub async fn until_jobs(&self, ids: &[i64], wanted: &str) -> Vec<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let jobs: Vec<Value> = ids.iter().map(|id| self.job(*id)).collect();
            if jobs.iter().all(|job| job["status"] == wanted || job["conclusion"] == wanted) {
                return jobs;
            }
            assert!(Instant::now() < deadline, "not {wanted}: {jobs:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Queues a job with a step that does not end by itself, and waits until it runs: the only one.
    pub async fn run_long_job(&self, daemon: &Daemon, step: &str) -> i64 {
        let job = self.push("long", vec![NewJob::of("long", &[step])])[0];
        self.until_jobs(&[job], "in_progress").await;
        launches::until(daemon, "running", |launches| launches[0]["state"] == "running").await;
        job
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Model) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so(&self.shared.lock()) {
            assert!(Instant::now() < deadline, "not {what}: {:#?}", self.shared.lock().runner_names());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for GitHub {
    fn drop(&mut self) {
        let undescribed = std::mem::take(&mut self.shared.lock().undescribed);
        assert!(undescribed.is_empty() || std::thread::panicking(), "not as GitHub describes it: {undescribed:#?}");
    }
}

fn url() -> String {
    format!("http://{}:{PORT}", place::ADDRESS)
}

async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    each_connection(listener, |stream| {
        let shared = shared.clone();
        async move {
            let service = service_fn(|request| answer(request, shared.clone()));
            // A client that breaks off is no concern of ours.
            let _broken = http1::Builder::new().serve_connection(stream, service).await;
        }
    })
    .await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let asked = Asked::new(&parts, &body);
    let fault = shared.lock().next_fault(&asked);
    if let Some(Fault::Answer(answer)) = fault {
        return Ok(answer.into_response());
    }
    let is_of_sets = ["/_tenant/", "/_queue/"].iter().any(|below| asked.path.starts_with(below));
    let reply = match asked.path.strip_prefix("/api/v3/") {
        Some(path) => rest::answer(&shared, &asked, path),
        None if is_of_sets => scale_sets::answer(&shared, &asked).await,
        None => service::answer(&shared, &asked).await,
    };
    shared.changed.notify_waiters();
    if let Some(Fault::Held(time)) = fault {
        tokio::time::sleep(time).await;
    }
    Ok(reply.into_response())
}
