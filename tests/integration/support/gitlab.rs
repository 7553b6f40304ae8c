//! A stand-in for GitLab, whose server no package registry holds: the API that the supervisor asks and the protocol of runners, with GitLab's
//! refusals (`lib/api/ci/{runner,runners,jobs}.rb`, `app/services/ci/{register_job_service,update_build_state_service}.rb`). What a runner is
//! told and tells is real: the job runs. It checks a log's length and not its checksum, has no artifacts, and knows one project, group and runner.

mod coordinator;
mod rest;
mod world;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router, middleware,
    routing::{get, patch, post, put},
};

pub use self::world::{Job, World};
use super::{
    place::{self, Place, Serving},
    stand_in::over_http1,
};

/// The token of the one runner.
pub const RUNNER_TOKEN: &str = "glrt-of-a-test-0123456789";

/// A user's token with the scope api.
pub const API_TOKEN: &str = "glpat-of-a-maintainer";

/// A user's token that may read nobody's runners.
pub const NARROW_TOKEN: &str = "glpat-of-a-guest";

/// The one project.
pub const PROJECT: &str = "acme/tool";

/// Its port, at [`place::ADDRESS`].
const PORT: u16 = 3081;

/// What a job is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// A running one, in a network namespace of its own.
pub struct GitLab {
    place: Place,
    shared: Shared,
    serving: Option<Serving>,
}

/// What every call sees.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GitLab {
    /// Starts one without jobs.
    pub fn start() -> Self {
        let (place, shared) = (Place::start(), Shared::default());
        let serving = Some(serve(&place, &shared));
        Self { place, shared, serving }
    }

    /// Nobody listens while `meanwhile` goes on; then it is back with all that it knew.
    pub async fn be_away(&mut self, meanwhile: impl Future<Output = ()>) {
        drop(self.serving.take());
        meanwhile.await;
        self.serving = Some(serve(&self.place, &self.shared));
    }

    /// Its network namespace, where daemons on it have to be.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", place::ADDRESS)
    }

    /// What it knows; what is changed there is so from then on.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    /// A pipeline with one job without tags; the job's number.
    pub fn push(&self, name: &str, script: &str) -> i64 {
        self.push_job(Job::of(name, script))
    }

    /// The same of a job that says more.
    pub fn push_job(&self, job: Job) -> i64 {
        self.shared.world().push(job)
    }

    /// A job as it is now.
    pub fn job(&self, id: i64) -> Job {
        self.shared.world().job(id).expect("it was pushed").clone()
    }

    /// Waits until a job has this status; its log.
    pub async fn until(&self, id: i64, status: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let job = self.job(id);
            if job.status == status {
                return String::from_utf8_lossy(&job.trace).into_owned();
            }
            let log = String::from_utf8_lossy(&job.trace);
            assert!(Instant::now() < deadline, "job {id} is {}, not {status}: {log}", job.status);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Answers so many calls, whose path has this part, with a status.
    pub fn fail(&self, part: &'static str, status: u16, times: usize) {
        self.shared.world().calls.fail(part, status, times);
    }

    /// Calls so far whose method and path have these words.
    pub fn count_of(&self, words: &str) -> usize {
        self.shared.world().calls.count_of(words)
    }
}

fn serve(place: &Place, shared: &Shared) -> Serving {
    let routes = routes(shared.clone());
    Serving::start(place, PORT, |listener| over_http1(listener, routes))
}

fn routes(shared: Shared) -> Router {
    let of_users = Router::new()
        .route("/api/v4/version", get(rest::version))
        .route("/api/v4/runners/{id}", get(rest::runner))
        .route("/api/v4/runners/{id}/jobs", get(rest::jobs_of_runner))
        .route("/api/v4/groups/{id}/projects", get(rest::projects))
        .route("/api/v4/projects", get(rest::projects))
        .route("/api/v4/projects/{id}/jobs", get(rest::jobs))
        .route("/api/v4/projects/{id}/jobs/{job}", get(rest::job))
        .route("/api/v4/projects/{id}/jobs/{job}/cancel", post(rest::cancel))
        .layer(middleware::from_fn(rest::authorize));
    Router::new()
        .route("/api/v4/runners/verify", post(coordinator::verify))
        .route("/api/v4/jobs/request", post(coordinator::request))
        .route("/api/v4/jobs/{id}", put(coordinator::update))
        .route("/api/v4/jobs/{id}/trace", patch(coordinator::trace))
        .merge(of_users)
        .layer(middleware::from_fn_with_state(shared.clone(), rest::watch))
        .with_state(shared)
}
