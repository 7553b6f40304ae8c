//! A stand-in for Woodpecker's server, which no package registry holds: the API that the supervisor asks and the protocol of agents, with
//! Woodpecker's refusals (`server/api/{agent,queue,pipeline}.go`, `server/rpc/{rpc,authorizer}.go`, `server/scheduler`). What an agent is told and
//! tells is real: the workflow runs. It knows one repository, whose pipelines are one workflow each, and keeps logs by lines.

mod messages;
mod rest;
mod rpc;
mod world;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router, middleware,
    routing::{get, patch, post},
};

pub use self::world::{Step, Workflow, World};
use super::{
    place::{self, Place, Serving},
    stand_in::{over_http1, over_http2},
};

/// An administrator's token.
pub const TOKEN: &str = "wp-token-of-an-administrator";

/// The token of somebody else.
pub const NARROW_TOKEN: &str = "wp-token-of-a-user";

/// The one repository.
pub const REPOSITORY: &str = "acme/tool";

/// Its ports, at [`place::ADDRESS`].
const PORT: u16 = 3082;
const RPC_PORT: u16 = 3083;

/// What a workflow is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// What the lines of a workflow that has ended are waited for.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// A running one, in a network namespace of its own.
pub struct Woodpecker {
    place: Place,
    shared: Shared,
    serving: Vec<Serving>,
}

/// What every call sees.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        world.tick();
        world
    }
}

impl Woodpecker {
    /// Starts one without workflows.
    pub fn start() -> Self {
        let (place, shared) = (Place::start(), Shared::default());
        let serving = serve(&place, &shared);
        Self { place, shared, serving }
    }

    /// Nobody listens while `meanwhile` goes on; then it is back with all that it knew.
    pub async fn be_away(&mut self, meanwhile: impl Future<Output = ()>) {
        self.serving.clear();
        meanwhile.await;
        self.serving = serve(&self.place, &self.shared);
    }

    /// Its network namespace, where daemons on it have to be.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", place::ADDRESS)
    }

    /// Where agents connect to.
    pub fn server(&self) -> String {
        format!("{}:{RPC_PORT}", place::ADDRESS)
    }

    /// What it knows; what is changed there is so from then on.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    /// A push whose pipeline has one workflow; its number.
    pub fn push(&self, name: &str, steps: Vec<Step>) -> i64 {
        self.shared.world().push(name, &[], steps)
    }

    /// A workflow as it is now.
    pub fn workflow(&self, id: i64) -> Workflow {
        self.shared.world().workflow(id).expect("it was pushed").clone()
    }

    /// Waits until a workflow has this state.
    pub async fn until(&self, id: i64, state: &str) -> Workflow {
        self.until_so(id, state, LIMIT, |workflow| workflow.state == state).await
    }

    /// Waits until these words are in a workflow's log: an agent sends lines a second after they were said.
    pub async fn until_logged(&self, id: i64, words: &str) {
        let says = |workflow: &Workflow| workflow.log.iter().any(|line| line.contains(words));
        self.until_so(id, words, LOG_LIMIT, says).await;
    }

    async fn until_so(&self, id: i64, what: &str, limit: Duration, is_so: impl Fn(&Workflow) -> bool) -> Workflow {
        let deadline = Instant::now() + limit;
        loop {
            let workflow = self.workflow(id);
            if is_so(&workflow) {
                return workflow;
            }
            assert!(Instant::now() < deadline, "workflow {id}, not {what}: {workflow:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The names of all agents that are registered.
    pub fn agents(&self) -> Vec<String> {
        self.shared.world().agents.iter().map(|agent| agent.name.clone()).collect()
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

fn serve(place: &Place, shared: &Shared) -> Vec<Serving> {
    let (of_users, of_agents) = (routes(shared.clone()), rpc_routes(shared.clone()));
    vec![
        Serving::start(place, PORT, |listener| over_http1(listener, of_users)),
        Serving::start(place, RPC_PORT, |listener| over_http2(listener, of_agents)),
    ]
}

fn routes(shared: Shared) -> Router {
    let of_administrators = Router::new()
        .route("/api/queue/info", get(rest::queue))
        .route("/api/agents", get(rest::agents).post(rest::make_agent))
        .route("/api/agents/{id}", patch(rest::patch_agent).delete(rest::delete_agent))
        .layer(middleware::from_fn(rest::is_administrator));
    Router::new()
        .route("/api/user", get(rest::user))
        .route("/api/repos/{repo}/pipelines/{number}", get(rest::pipeline))
        .merge(of_administrators)
        .layer(middleware::from_fn(rest::authorize))
        .route("/version", get(rest::version))
        .layer(middleware::from_fn_with_state(shared.clone(), rest::watch))
        .with_state(shared)
}

fn rpc_routes(shared: Shared) -> Router {
    Router::new()
        .route("/proto.WoodpeckerAuth/Auth", post(rpc::auth))
        .route("/proto.Woodpecker/{method}", post(rpc::call))
        .with_state(shared)
}
