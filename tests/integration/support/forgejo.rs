//! A stand-in for Forgejo 15, or an older one, whose server no package registry holds: the API that the supervisor asks and the protocol of runners, with
//! Forgejo's refusals (after `routers/api/v1/shared/runners.go`, `routers/api/actions/runner`). Workflows are one job of one step. What a
//! runner is told and tells is real: the job runs.

mod messages;
mod rest;
mod runner;
mod world;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router, middleware,
    routing::{any, get, post},
};

use self::world::{Job, World};
use super::{
    place::{self, Place, Serving},
    stand_in::over_http1,
};

/// The one user, who owns all repositories.
pub const USER: &str = "ci";

/// Their token, with every scope.
pub const TOKEN: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

/// With what runners register.
pub const REGISTRATION_TOKEN: &str = "0f0fRegistersRunnersAndDoesNothingElse0f";

/// Their token that may only say whose it is.
pub const NARROW_TOKEN: &str = "1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f";

/// What a job is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// A running one, in a network namespace of its own.
pub struct Forgejo {
    place: Place,
    shared: Shared,
    serving: Option<Serving>,
}

/// What every call sees.
#[derive(Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    url: String,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forgejo {
    /// Starts one that is so old that it has no list of jobs.
    pub fn start_old() -> Self {
        let forgejo = Self::start();
        forgejo.shared.world().is_old = true;
        forgejo
    }

    /// Starts one without jobs.
    pub fn start() -> Self {
        let place = Place::start();
        let url = format!("http://{}:{}", place::ADDRESS, super::forge::PORT);
        let shared = Shared { world: Arc::default(), url };
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
        self.shared.url.clone()
    }

    /// A push whose workflow has one job of one step; the job's number.
    pub fn push(&self, repository: &str, name: &str, runs_on: &[&str], script: &str) -> i64 {
        self.push_as((repository, name), runs_on, script, |_| {})
    }

    /// From now on everybody sees a repository.
    pub fn publish(&self, repository: &str) {
        self.shared.world().public.push(format!("{USER}/{repository}"));
    }

    /// The same; what is changed of the job is so from its beginning.
    pub fn push_as(
        &self,
        (repository, name): (&str, &str),
        runs_on: &[&str],
        script: &str,
        change: impl FnOnce(&mut Job),
    ) -> i64 {
        let mut world = self.shared.world();
        let full_name = format!("{USER}/{repository}");
        let known = world.repositories.iter().position(|known| *known == full_name);
        let repository = known.unwrap_or_else(|| {
            world.repositories.push(full_name);
            world.repositories.len() - 1
        });
        let id = i64::try_from(world.jobs.len()).expect("they are few") + 1;
        let mut job = Job {
            id,
            repository,
            name: name.to_owned(),
            handle: format!("handle-of-{id}"),
            runs_on: runs_on.iter().map(|label| (*label).to_owned()).collect(),
            script: script.to_owned(),
            is_of_fork: false,
            git_ref: "refs/heads/main".to_owned(),
            container: serde_json::Value::Null,
            status: "waiting",
            task: None,
            runner: None,
            log: Vec::new(),
            log_is_closed: false,
        };
        change(&mut job);
        world.jobs.push(job);
        id
    }

    fn job(&self, id: i64) -> Job {
        self.shared.world().jobs.iter().find(|job| job.id == id).expect("it was pushed").clone()
    }

    /// Waits until a job has this status; its log.
    pub async fn until(&self, id: i64, status: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let job = self.job(id);
            if job.status == status {
                return job.log.join("\n");
            }
            assert!(Instant::now() < deadline, "job {id} is {}, not {status}: {:#?}", job.status, job.log);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// As a user does.
    pub fn cancel(&self, id: i64) {
        self.shared.world().cancel(id);
    }

    /// The names of all runners that are registered.
    pub fn runners(&self) -> Vec<String> {
        self.shared.world().runners.iter().map(|row| row.runner.name.clone()).collect()
    }

    /// Who had the job.
    pub fn runner_of(&self, id: i64) -> String {
        self.job(id).runner.expect("it has run")
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
    Serving::start(place, super::forge::PORT, |listener| over_http1(listener, routes))
}

fn routes(shared: Shared) -> Router {
    let of_users = Router::new()
        .route("/api/v1/user", get(rest::user))
        .route("/api/v1/repositories/{id}", get(rest::repository))
        .route("/api/v1/repos/{owner}/{name}/actions/tasks", get(rest::tasks))
        .route("/api/v1/repos/{owner}/{name}/actions/runs/{run}", get(rest::run))
        .route("/api/v1/repos/{owner}/{name}/actions/runs/{run}/jobs", get(rest::jobs_of_run))
        .fallback(any(rest::runners))
        .layer(middleware::from_fn(rest::authorize));
    Router::new()
        .route("/api/forgejo/v1/version", get(rest::version))
        .route("/api/v1/version", get(rest::version))
        .route("/api/v1/settings/api", get(rest::limits))
        .route("/api/actions/ping.v1.PingService/Ping", post(runner::ping))
        .route("/api/actions/runner.v1.RunnerService/{method}", post(runner::call))
        .merge(of_users)
        .layer(middleware::from_fn_with_state(shared.clone(), rest::watch))
        .with_state(shared)
}
