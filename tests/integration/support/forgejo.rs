//! A stand-in for Forgejo 15, whose server no package registry holds: the API that the supervisor asks and the protocol of runners, with
//! Forgejo's refusals (after `routers/api/v1/shared/runners.go`, `routers/api/actions/runner`). Workflows are one job of one step. What a
//! runner is told and tells is real: the job runs.

mod messages;
mod rest;
mod runner;
mod world;

use std::{
    fs::File,
    net::TcpListener,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router, middleware,
    routing::{any, get, post},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::world::{Job, World};
use super::place::{self, Place};

/// The one user, who owns all repositories.
pub const USER: &str = "ci";

/// Their token, with every scope.
pub const TOKEN: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

/// Their token that may only say whose it is.
pub const NARROW_TOKEN: &str = "1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f";

/// What a job is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// A running one, in a network namespace of its own.
pub struct Forgejo {
    place: Place,
    shared: Shared,
    ending: Option<tokio::sync::oneshot::Sender<()>>,
    serving: Option<std::thread::JoinHandle<()>>,
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
    /// Starts one without jobs.
    pub fn start() -> Self {
        let place = Place::start();
        let url = format!("http://{}:{}", place::ADDRESS, super::forge::PORT);
        let shared = Shared { world: Arc::default(), url };
        let mut forgejo = Self { place, shared, ending: None, serving: None };
        forgejo.serve();
        forgejo
    }

    /// Nobody listens while `meanwhile` goes on; then it is back with all that it knew.
    pub async fn be_away(&mut self, meanwhile: impl Future<Output = ()>) {
        self.end();
        meanwhile.await;
        self.serve();
    }

    /// In a thread of its own, so that it answers also while a test waits for a program.
    fn serve(&mut self) {
        let namespace = File::open(self.place.path()).expect("the place is there");
        let (ending, ended) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let routes = routes(self.shared.clone());
        self.serving = Some(std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are root");
            let listener = TcpListener::bind((place::ADDRESS, super::forge::PORT)).expect("nobody else listens there");
            listener.set_nonblocking(true).expect("a socket");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            ready.send(()).expect("the test waits");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, routes) => {}
                    _ = ended => {}
                }
            });
        }));
        self.ending = Some(ending);
        is_ready.recv().expect("the stand-in of Forgejo serves");
    }

    fn end(&mut self) {
        drop(self.ending.take());
        if let Some(serving) = self.serving.take() {
            serving.join().expect("the stand-in of Forgejo does not panic");
        }
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
        let mut world = self.shared.world();
        let full_name = format!("{USER}/{repository}");
        let known = world.repositories.iter().position(|known| *known == full_name);
        let repository = known.unwrap_or_else(|| {
            world.repositories.push(full_name);
            world.repositories.len() - 1
        });
        let id = world.next();
        world.jobs.push(Job {
            id,
            repository,
            name: name.to_owned(),
            handle: format!("handle-of-{id}"),
            runs_on: runs_on.iter().map(|label| (*label).to_owned()).collect(),
            script: script.to_owned(),
            status: "waiting",
            task: None,
            runner: None,
            log: Vec::new(),
            log_is_closed: false,
        });
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
        self.shared.world().faults.push((part, status, times));
    }

    /// Calls so far whose method and path have these words.
    pub fn count_of(&self, words: &str) -> usize {
        self.shared.world().asked.iter().filter(|asked| asked.contains(words)).count()
    }
}

impl Drop for Forgejo {
    fn drop(&mut self) {
        self.end();
    }
}

async fn accept(listener: TcpListener, routes: Router) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let _client_gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
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
        .route("/api/actions/ping.v1.PingService/Ping", post(runner::ping))
        .route("/api/actions/runner.v1.RunnerService/{method}", post(runner::call))
        .merge(of_users)
        .layer(middleware::from_fn_with_state(shared.clone(), rest::watch))
        .with_state(shared)
}
