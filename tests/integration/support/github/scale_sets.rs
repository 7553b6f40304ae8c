//! Scale sets, as GitHub's Actions service has them. It is described nowhere: what is here is what the public clients ask for and read
//! [src: actions/scaleset `client.go`, `session_client.go`, `types.go`; actions-runner-controller `github/actions/client.go`, `listener.go`],
//! and the service's own words where an issue there quotes them [iss]. The rest is marked as an assumption.

mod made;
mod queue;
mod sessions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    Asked, Model, Shared,
    model::{Reply, now},
};

/// How long a registration token is good, in seconds [oas].
const REGISTERS: u64 = 3600;

#[derive(Default)]
pub struct Service {
    /// Registration tokens with their scope and their end, Unix seconds.
    registrations: BTreeMap<String, (String, u64)>,
    /// Tokens of the service with their scope and their end, Unix seconds.
    admins: BTreeMap<String, (String, u64)>,
    /// How long one of those is good.
    pub admin_lasts: u64,
    pub sets: BTreeMap<i64, ScaleSet>,
    /// Whether jobs are offered and have to be acquired, as servers do that know nothing of capacity.
    pub offers: bool,
    /// Whether but one label of a set is kept, as by GHES before 3.21 [iss: actions-runner-controller#4408].
    pub keeps_one_label: bool,
    /// Whether there are none, as on a server before 3.9 [assumption: the call is not known there].
    pub is_absent: bool,
    /// Sets that were ever made.
    pub made: usize,
    /// Sessions that were ever begun.
    pub begun: usize,
    pub refreshed: usize,
    /// Whether no token of a queue is taken.
    pub refuses_queues: bool,
    /// Whether each job is assigned twice, since no runner took it in time [src: README, "Job Reassignment"; assumption: by the same id].
    pub reassigns: bool,
    /// Jobs that are counted and not there [iss: actions-runner-controller#4397].
    pub miscounts: usize,
    /// Whether starts of jobs are not told [assumption: a message may be lost].
    pub is_silent: bool,
    /// Runners that were not taken back, since they had a job.
    pub refused: usize,
    /// The most jobs that sets had at once.
    pub most: usize,
}

pub struct ScaleSet {
    pub name: String,
    /// `orgs/NAME` or `repos/OWNER/NAME`.
    pub scope: String,
    pub group: i64,
    pub labels: BTreeSet<String>,
    pub session: Option<sessions::Session>,
    /// What was asked for last.
    pub capacity: usize,
    messages: VecDeque<(i64, Vec<Value>)>,
    /// The newest message that somebody has read.
    delivered: i64,
    offered: BTreeSet<i64>,
}

impl Service {
    pub fn new() -> Self {
        Self { admin_lasts: 3600, ..Self::default() }
    }

    /// Its tokens are good no more.
    pub fn revoke(&mut self) {
        self.admins.clear();
    }
}

/// An error of the service [src: `errors.go`: `typeName`, `message`].
fn error(status: u16, kind: &str, message: &str) -> Reply {
    let name = format!("GitHub.Actions.Runtime.WebApi.{kind}, GitHub.Actions.Runtime.WebApi");
    Reply::json(status, &json!({"typeName": name, "message": message}))
}

fn unauthorized() -> Reply {
    error(401, "VssUnauthorizedException", "The token is missing, wrong or has expired.")
}

/// `actions/create-registration-token-for-org`, `…-for-repo`.
pub fn registration_token(model: &mut Model, scope: &str) -> Reply {
    let token = format!("REGISTRATION{}", model.number());
    model.service.registrations.insert(token.clone(), (scope.to_owned(), now() + REGISTERS));
    Reply::json(201, &json!({"token": token, "expires_at": "2099-01-01T00:00:00Z"}))
}

/// `POST …/actions/runner-registration` [src: `getActionsServiceAdminConnection`].
pub fn register(model: &mut Model, asked: &Asked) -> Reply {
    let token = asked.header("authorization").strip_prefix("RemoteAuth ").unwrap_or_default();
    if model.service.is_absent {
        return Reply::error(404, "Not Found");
    }
    let known = model.service.registrations.get(token).filter(|(_, ends)| *ends > now());
    let Some((scope, _)) = known.cloned() else { return Reply::error(401, "Bad credentials") };
    let name = scope.split_once('/').map_or("", |(_, name)| name);
    if asked.body["url"] != format!("{}/{name}", model.url) || asked.body["runner_event"] != "register" {
        return Reply::error(400, "Bad request");
    }
    let ends = now() + model.service.admin_lasts;
    let claims = BASE64_URL_SAFE_NO_PAD.encode(json!({"exp": ends, "jti": model.number()}).to_string());
    let token = format!("header.{claims}.signature");
    model.service.admins.insert(token.clone(), (scope, ends));
    Reply::json(200, &json!({"url": format!("{}/_tenant/", model.url), "token": token}))
}

/// Calls below `/_tenant/` and `/_queue/`.
pub async fn answer(shared: &Shared, asked: &Asked) -> Reply {
    if let Some(path) = asked.path.strip_prefix("/_queue/") {
        return queue::answer(shared, asked, path).await;
    }
    let mut model = shared.lock();
    if asked.query.get("api-version").is_none_or(|version| version != "6.0-preview") {
        return error(400, "VssVersionNotSpecifiedException", "No api-version was supplied.");
    }
    let path = asked.path.strip_prefix("/_tenant/_apis/").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    if let ("POST", ["runtime", "runnerscalesets", id, "acquirejobs"]) = (asked.method.as_str(), parts.as_slice()) {
        return queue::acquire(&mut model, asked, id);
    }
    let admin = model.service.admins.get(asked.bearer()).filter(|(_, ends)| *ends > now());
    let Some((scope, _)) = admin.cloned() else { return unauthorized() };
    match (asked.method.as_str(), parts.as_slice()) {
        ("GET", ["distributedtask", "pools", "0", "agents"]) => agents(&model, &scope),
        (method, ["distributedtask", "pools", "0", "agents", id]) => agent(&mut model, method, &scope, id),
        ("GET", ["runtime", "runnerscalesets"]) => made::find(&model, asked, &scope),
        ("POST", ["runtime", "runnerscalesets"]) => made::make(&mut model, asked, &scope),
        (method, ["runtime", "runnerscalesets", id, rest @ ..]) => {
            let known =
                id.parse::<i64>().ok().filter(|id| model.service.sets.get(id).is_some_and(|set| set.scope == scope));
            match known {
                Some(id) => of_set(&mut model, asked, method, id, rest),
                // [iss: actions-runner-controller#4370]
                None => error(
                    404,
                    "RunnerScaleSetNotFoundException",
                    &format!("No runner scale set found with identifier {id}."),
                ),
            }
        }
        _ => error(404, "VssResourceNotFoundException", "No such call."),
    }
}

fn of_set(model: &mut Model, asked: &Asked, method: &str, id: i64, rest: &[&str]) -> Reply {
    match (method, rest) {
        ("GET", []) => Reply::json(200, &made::described(model, id)),
        ("PATCH", []) => made::update(model, asked, id),
        // [assumption: also while its runners have jobs and somebody listens]
        ("DELETE", []) => {
            model.service.sets.remove(&id);
            for job in model.jobs.values_mut().filter(|job| job.set == Some(id) && job.status == "queued") {
                job.set = None;
            }
            Reply::empty(204)
        }
        ("POST", ["sessions"]) => sessions::begin(model, asked, id),
        ("PATCH", ["sessions", session]) => sessions::refresh(model, id, session),
        ("DELETE", ["sessions", session]) => {
            let set = model.service.sets.get_mut(&id).expect("it is there");
            match set.session.take_if(|held| held.id == *session) {
                Some(_) => Reply::empty(204),
                None => sessions::none(),
            }
        }
        ("POST", ["generatejitconfig"]) => jit_config(model, asked, id),
        ("GET", ["acquirablejobs"]) => queue::offers(model, id),
        _ => error(404, "VssResourceNotFoundException", "No such call."),
    }
}

/// [src: `RunnerReference`]
fn reference(id: i64, runner: &super::model::Runner) -> Value {
    json!({"id": id, "name": runner.name, "runnerScaleSetId": runner.set.unwrap_or(0)})
}

/// [src: cloudbase/garm `ListAllRunners`]
fn agents(model: &Model, scope: &str) -> Reply {
    let all: Vec<Value> = model
        .runners
        .iter()
        .filter(|(_, runner)| runner.scope == scope)
        .map(|(id, runner)| reference(*id, runner))
        .collect();
    Reply::json(200, &json!({"count": all.len(), "value": all}))
}

/// [src: `GetRunner`, `RemoveRunner`; `AgentNotFoundException`, `JobStillRunningException` of `errors.go`; assumption: their statuses and words]
fn agent(model: &mut Model, method: &str, scope: &str, id: &str) -> Reply {
    let Some(id) = model.runner_at(scope, id) else {
        return error(404, "AgentNotFoundException", &format!("No agent found with identifier {id}."));
    };
    match method {
        "GET" => Reply::json(200, &reference(id, &model.runners[&id])),
        "DELETE" if model.runners[&id].job.is_some() => {
            model.service.refused += 1;
            error(400, "JobStillRunningException", "The job of the runner is still running.")
        }
        "DELETE" => {
            model.runners.remove(&id);
            Reply::empty(204)
        }
        _ => error(405, "VssResourceNotFoundException", "No such call."),
    }
}

/// [src: `GenerateJitRunnerConfig`; `AgentExistsException`; assumption: its status]
fn jit_config(model: &mut Model, asked: &Asked, id: i64) -> Reply {
    let Some(name) = asked.body["name"].as_str() else { return error(400, "ArgumentException", "name is required.") };
    if model.runners.values().any(|runner| runner.name == name) {
        return error(409, "AgentExistsException", &format!("Agent {name} already exists."));
    }
    let (scope, group) = (model.service.sets[&id].scope.clone(), model.service.sets[&id].group);
    let (runner, config) = model.register(&scope, name, group, Vec::new());
    let made = model.runners.get_mut(&runner).expect("it was made");
    made.set = Some(id);
    Reply::json(200, &json!({"runner": reference(runner, &model.runners[&runner]), "encodedJITConfig": config}))
}

impl Model {
    /// [src: `RunnerScaleSetStatistic`]
    fn statistics(&self, id: i64) -> Value {
        let of = |status: &str| self.jobs.values().filter(|job| job.set == Some(id) && job.status == status).count();
        let runners: Vec<_> = self.runners.values().filter(|runner| runner.set == Some(id)).collect();
        let busy = runners.iter().filter(|runner| runner.job.is_some()).count();
        let (waiting, running) = (of("queued"), of("in_progress"));
        json!({
            "totalAvailableJobs": self.service.sets.get(&id).map_or(0, |set| set.offered.len()), "totalAcquiredJobs": waiting,
            "totalAssignedJobs": waiting + running + self.service.miscounts, "totalRunningJobs": running,
            "totalRegisteredRunners": runners.len(), "totalBusyRunners": busy, "totalIdleRunners": runners.len() - busy,
        })
    }

    /// The one scale set that is there.
    pub fn only_set(&self) -> &ScaleSet {
        let mut all = self.service.sets.values();
        let set = all.next().expect("a scale set");
        assert!(all.next().is_none(), "there is another one");
        set
    }
}
