//! What the fake knows, and what happens in it by itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, request::Parts};
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ORG, TOKEN, scale_sets::Service, webhooks::Webhook};

/// Where its workflows are.
pub const WORKFLOW: &str = ".github/workflows/ci.yml";

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Asked {
    pub fn new(parts: &Parts, body: &Bytes) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let form = parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().ends_with(b"urlencoded"));
        let read = |text: &str| serde_urlencoded::from_str::<BTreeMap<String, String>>(text).unwrap_or_default();
        let body = if form {
            json!(read(&String::from_utf8_lossy(body)))
        } else {
            serde_json::from_slice(body).unwrap_or_default()
        };
        let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
        Self { method, path, query: read(query), headers: parts.headers.clone(), body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The token that is sent with it.
    pub fn bearer(&self) -> &str {
        self.header("authorization").strip_prefix("Bearer ").unwrap_or_default()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string() }
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// `basic-error` of the OpenAPI description.
    pub fn error(status: u16, message: &str) -> Self {
        let url = "https://docs.github.com/rest";
        Self::json(status, &json!({"message": message, "documentation_url": url, "status": status.to_string()}))
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).expect("a status of ours");
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value.parse().expect("a header of ours"));
        }
        response
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered so, and nothing comes of it.
    Answer(Reply),
    /// It is carried out, and answered only after this time.
    Held(Duration),
}

/// A job to be queued.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub name: String,
    pub labels: Vec<&'static str>,
    /// What the stand-in is told: `steps`, `container`, `services`, `env`.
    pub todo: Value,
    /// Its key in its workflow, and the text of that.
    pub key: String,
    pub workflow: String,
}

impl NewJob {
    /// One with these scripts as its steps.
    pub fn of(name: &str, steps: &[&str]) -> Self {
        let steps: Vec<Value> = steps.iter().map(|script| json!({"run": script})).collect();
        let (key, workflow) = ("job".to_owned(), "on: push\njobs: {job: {runs-on: self-hosted}}\n".to_owned());
        Self {
            name: name.to_owned(),
            labels: vec!["self-hosted", "linux"],
            todo: json!({"steps": steps}),
            key,
            workflow,
        }
    }

    pub fn labels(mut self, labels: &[&'static str]) -> Self {
        self.labels = labels.to_vec();
        self
    }

    /// The job with this key of this workflow.
    pub fn in_workflow(mut self, key: &str, text: &str) -> Self {
        (self.key, self.workflow) = (key.to_owned(), text.to_owned());
        self
    }

    /// In a container of this image.
    pub fn container(self, image: &str) -> Self {
        self.container_with(image, &[])
    }

    /// With a service of this image beside it.
    pub fn service(mut self, alias: &str, image: &str) -> Self {
        self.todo["services"][alias] = json!({"image": image});
        self
    }

    /// With a further step, which uses an action.
    pub fn uses(mut self, action: &str, with: Value) -> Self {
        let steps = self.todo["steps"].as_array_mut().expect("it has steps");
        steps.push(json!({"uses": action, "with": with}));
        self
    }

    /// The same with `volumes`.
    pub fn container_with(mut self, image: &str, volumes: &[&str]) -> Self {
        self.todo["container"] = json!({"image": image, "volumes": volumes});
        self
    }
}

#[derive(Clone, Debug)]
pub struct Job {
    pub run: i64,
    pub repository: String,
    pub name: String,
    pub labels: Vec<String>,
    pub status: &'static str,
    pub conclusion: Option<&'static str>,
    pub runner: Option<(i64, String)>,
    pub todo: Value,
    pub log: String,
    pub renewed: Option<Instant>,
    pub cancelled: Option<Instant>,
    /// The scale set that it is assigned to.
    pub set: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Runner {
    pub name: String,
    /// `orgs/NAME` or `repos/OWNER/NAME`.
    pub scope: String,
    pub group: i64,
    pub labels: Vec<String>,
    pub secret: String,
    pub session: Option<String>,
    pub job: Option<i64>,
    pub messages: VecDeque<Value>,
    /// The scale set that it is one of: it takes that set's jobs, and no others.
    pub set: Option<i64>,
    /// It is gone when it has had no job for this time.
    pub made: Instant,
}

/// What may be asked how often.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub limit: u64,
    pub used: u64,
    /// Unix seconds.
    pub reset: u64,
}

/// All of it.
pub struct Model {
    pub url: String,
    /// Classic tokens with their scopes.
    pub tokens: BTreeMap<String, BTreeSet<&'static str>>,
    /// Public keys of Apps, DER as ring has them, by their id.
    pub apps: BTreeMap<String, Vec<u8>>,
    /// Tokens of installations with their end, Unix seconds.
    pub installed: BTreeMap<String, u64>,
    /// How long one of those is good.
    pub token_lasts: u64,
    pub repositories: BTreeSet<String>,
    /// The workflow of each commit, by repository.
    pub workflows: BTreeMap<(String, String), String>,
    pub groups: Vec<(i64, &'static str)>,
    pub jobs: BTreeMap<i64, Job>,
    pub runners: BTreeMap<i64, Runner>,
    pub buckets: BTreeMap<&'static str, Bucket>,
    /// How long a runner may not renew its job before that has failed: minutes in reality [mem].
    pub lost_after: Duration,
    /// How long a cancelled job may go on: 5 minutes in reality [doc].
    pub cancelled_after: Duration,
    /// When runners without a job are removed: 2 to 6 minutes in reality [iss: actions/runner#4726].
    pub unused_after: Option<Duration>,
    /// What the stand-ins are asked to do wrong, each once.
    pub misbehave: VecDeque<&'static str>,
    /// All requests, `METHOD /path`, and when they came.
    pub log: Vec<(Instant, String)>,
    /// When something went wrong as it was asked to.
    pub faulted: Vec<Instant>,
    /// Requests that were refused since there had been too many.
    pub limited: u64,
    /// Answers that were not sent again, since they had not changed.
    pub unchanged: u64,
    /// Where a call or an answer was not as GitHub describes them.
    pub undescribed: BTreeSet<String>,
    /// Every runner that was ever registered.
    pub ever: Vec<String>,
    pub webhooks: Vec<Webhook>,
    /// Repositories that everybody sees.
    pub public: BTreeSet<String>,
    /// Scale sets.
    pub service: Service,
    /// Whether runners that have been given a job are not told yet.
    pub holds_back: bool,
    faults: Vec<(String, Fault)>,
    next: i64,
}

impl Model {
    /// The runner of this id, if it is one of the scope.
    pub fn runner_at(&self, scope: &str, id: &str) -> Option<i64> {
        id.parse().ok().filter(|id| self.runners.get(id).is_some_and(|runner| runner.scope == scope))
    }

    pub fn new(url: &str) -> Self {
        let all = ["repo", "admin:org", "admin:org_hook"].into();
        let bucket = |limit| Bucket { limit, used: 0, reset: now() + 3600 };
        Self {
            url: url.to_owned(),
            tokens: [(TOKEN.to_owned(), all)].into(),
            apps: BTreeMap::new(),
            installed: BTreeMap::new(),
            token_lasts: 3600,
            repositories: BTreeSet::new(),
            workflows: BTreeMap::new(),
            groups: vec![(1, "Default"), (7, "big machines")],
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            buckets: [("core", bucket(5000)), ("actions_runner_registration", bucket(10_000))].into(),
            lost_after: Duration::from_secs(20),
            cancelled_after: Duration::from_secs(300),
            unused_after: None,
            misbehave: VecDeque::new(),
            log: Vec::new(),
            faulted: Vec::new(),
            limited: 0,
            unchanged: 0,
            undescribed: BTreeSet::new(),
            ever: Vec::new(),
            webhooks: Vec::new(),
            public: BTreeSet::new(),
            service: Service::new(),
            holds_back: false,
            faults: Vec::new(),
            next: 1000,
        }
    }

    pub fn number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    /// The next request `METHOD /path` that has this in it goes wrong. Several happen in their order.
    pub fn fail_next(&mut self, request: &str, fault: Fault) {
        self.faults.push((request.to_owned(), fault));
    }

    pub fn next_fault(&mut self, asked: &Asked) -> Option<Fault> {
        let request = format!("{} {}", asked.method, asked.path);
        self.log.push((Instant::now(), request.clone()));
        let found = self.faults.iter().position(|(part, _)| request.contains(part))?;
        self.faulted.push(Instant::now());
        Some(self.faults.remove(found).1)
    }

    pub fn push(&mut self, repository: &str, jobs: Vec<NewJob>) -> Vec<i64> {
        self.repositories.insert(repository.to_owned());
        let run = self.number();
        jobs.into_iter()
            .map(|new| {
                let id = self.number();
                let commit = format!("{:x}", Sha256::digest(&new.workflow))[..40].to_owned();
                let mut todo = new.todo;
                todo["job"] = new.key.into();
                todo["workflow_ref"] = format!("{repository}/{WORKFLOW}@refs/heads/main").into();
                todo["workflow_sha"] = commit.clone().into();
                self.workflows.insert((repository.to_owned(), commit), new.workflow);
                let job = Job {
                    run,
                    repository: repository.to_owned(),
                    name: new.name,
                    labels: new.labels.iter().map(|&label| label.to_owned()).collect(),
                    status: "queued",
                    conclusion: None,
                    runner: None,
                    todo,
                    log: String::new(),
                    renewed: None,
                    cancelled: None,
                    set: None,
                };
                self.jobs.insert(id, job);
                id
            })
            .collect()
    }

    /// `actions/cancel-workflow-run`: what waits is over at once, and runners are told of what runs.
    pub fn cancel(&mut self, run_of: i64) {
        let run = self.jobs[&run_of].run;
        let is_over = |job: &Job| job.run == run && job.status == "queued";
        let over: Vec<i64> = self.jobs.iter().filter(|(_, job)| is_over(job)).map(|(id, _)| *id).collect();
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| job.run == run) {
            match job.status {
                "queued" => (job.status, job.conclusion) = ("completed", Some("cancelled")),
                "in_progress" => {
                    job.cancelled = Some(Instant::now());
                    let runner = self.runners.values_mut().find(|runner| runner.job == Some(*id));
                    let body = json!({"jobId": id.to_string()}).to_string();
                    let message = json!({"messageId": id, "messageType": "JobCancellation", "body": body});
                    runner.expect("it has a runner").messages.push_back(message);
                }
                _ => {}
            }
        }
        for id in over {
            self.tell_of(id, "JobCompleted", Some("canceled"));
        }
    }

    /// Registers a runner; its number and what is handed to it.
    pub fn register(&mut self, scope: &str, name: &str, group: i64, labels: Vec<String>) -> (i64, String) {
        let (id, secret) = (self.number(), format!("secret-of-{name}"));
        let misbehave = self.misbehave.pop_front().unwrap_or_default();
        let service = format!("{}/_service", self.url);
        // [src: `ConfigurationStore.cs`], but for the last key, and for a secret in the place of a key to sign with.
        let runner = json!({
            "AgentId": id, "AgentName": name, "PoolId": 1, "PoolName": "Default", "DisableUpdate": true, "Ephemeral": true,
            "ServerUrl": service, "GitHubUrl": self.url, "WorkFolder": "_work", "UseV2Flow": true, "ServerUrlV2": service,
            "StandInMisbehave": misbehave,
        });
        let data = json!({"clientId": id.to_string(), "authorizationUrl": format!("{service}/oauth2/token"), "requireFipsCryptography": "True"});
        let file = |text: String| BASE64_STANDARD.encode(text);
        let files = json!({
            ".runner": file(runner.to_string()),
            ".credentials": file(json!({"scheme": "OAuth", "data": data}).to_string()),
            ".credentials_rsaparams": file(secret.clone()),
        });
        let made = Runner {
            name: name.to_owned(),
            scope: scope.to_owned(),
            group,
            labels,
            secret,
            session: None,
            job: None,
            messages: VecDeque::new(),
            set: None,
            made: Instant::now(),
        };
        self.runners.insert(id, made);
        self.ever.push(name.to_owned());
        (id, BASE64_STANDARD.encode(files.to_string()))
    }

    /// What happens by itself as time goes on.
    pub fn tick(&mut self) {
        let mut over = Vec::new();
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| job.status == "in_progress") {
            let is_lost = job.renewed.is_some_and(|at| at.elapsed() > self.lost_after);
            let is_ignored = job.cancelled.is_some_and(|at| at.elapsed() > self.cancelled_after);
            if is_lost || is_ignored {
                let conclusion = if job.cancelled.is_some() { "cancelled" } else { "failure" };
                (job.status, job.conclusion) = ("completed", Some(conclusion));
                over.push(*id);
            }
        }
        self.runners.retain(|_, runner| {
            let is_unused =
                self.unused_after.is_some_and(|after| runner.job.is_none() && runner.made.elapsed() > after);
            !is_unused && !runner.job.is_some_and(|job| over.contains(&job))
        });
        for id in over {
            let result = if self.jobs[&id].cancelled.is_some() { "canceled" } else { "failed" };
            self.tell_of(id, "JobCompleted", Some(result));
        }
    }

    /// Gives a runner that waits the first job that it covers, whoever was meant to have it.
    pub fn assign(&mut self, id: i64) {
        let Some(runner) = self.runners.get_mut(&id).filter(|runner| runner.job.is_none()) else { return };
        let covers = |job: &Job| {
            let has = |label: &String| runner.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
            let owner = job.repository.split('/').next().unwrap_or_default();
            let is_at = runner.scope == format!("repos/{}", job.repository) || runner.scope == format!("orgs/{owner}");
            match runner.set {
                // [src: a set's runners have no labels of their own]
                Some(set) => job.set == Some(set),
                None => job.set.is_none() && is_at && job.labels.iter().all(has),
            }
        };
        let found = self.jobs.iter_mut().find(|(_, job)| job.status == "queued" && covers(job));
        let Some((number, job)) = found else { return };
        (job.status, job.renewed) = ("in_progress", Some(Instant::now()));
        job.runner = Some((id, runner.name.clone()));
        runner.job = Some(*number);
        let service = format!("{}/_service/run", self.url);
        let body =
            json!({"runner_request_id": number.to_string(), "run_service_url": service, "should_acknowledge": false});
        runner
            .messages
            .push_back(json!({"messageId": number, "messageType": "RunnerJobRequest", "body": body.to_string()}));
        let number = *number;
        self.tell_of(number, "JobStarted", None);
    }

    /// A job has ended, and the registration of its runner with it.
    pub fn complete(&mut self, id: i64, conclusion: &'static str, log: &str) {
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.status == "in_progress") {
            (job.status, job.conclusion) = ("completed", Some(conclusion));
            log.clone_into(&mut job.log);
            let result = match conclusion {
                "success" => "succeeded",
                "cancelled" => "canceled",
                _ => "failed",
            };
            self.tell_of(id, "JobCompleted", Some(result));
        }
        self.runners.retain(|_, runner| runner.job != Some(id));
    }

    pub fn runner_names(&self) -> Vec<&str> {
        self.runners.values().map(|runner| runner.name.as_str()).collect()
    }

    /// How often a request `METHOD /path` had this in it.
    pub fn times(&self, part: &str) -> usize {
        self.log.iter().filter(|(_, request)| request.contains(part)).count()
    }

    /// `job` of the OpenAPI description.
    pub fn job(&self, id: i64) -> Value {
        let job = &self.jobs[&id];
        let api = format!("{}/api/v3/repos/{}", self.url, job.repository);
        let time = "2026-11-27T18:00:00Z";
        let begun = (job.status != "queued").then_some(time);
        let ended = (job.status == "completed").then_some(time);
        let (runner, name) =
            job.runner.clone().map_or((Value::Null, Value::Null), |(id, name)| (id.into(), name.into()));
        json!({
            "id": id, "run_id": job.run, "run_url": format!("{api}/actions/runs/{}", job.run), "run_attempt": 1,
            "node_id": "J", "head_sha": "0".repeat(40), "head_branch": "main", "url": format!("{api}/actions/jobs/{id}"),
            "html_url": format!("{}/{}/actions/runs/{}/job/{id}", self.url, job.repository, job.run),
            "status": job.status, "conclusion": job.conclusion, "created_at": time, "started_at": begun.unwrap_or(time),
            "completed_at": ended, "name": job.name, "steps": [], "check_run_url": format!("{api}/check-runs/{id}"),
            "labels": job.labels, "runner_id": runner, "runner_name": name,
            "runner_group_id": begun.map(|_| 1), "runner_group_name": begun.map(|_| "Default"), "workflow_name": "ci",
        })
    }

    /// The status of a run by those of its jobs.
    pub fn run_status(&self, run: i64) -> &'static str {
        let mut of_jobs = self.jobs.values().filter(|job| job.run == run).map(|job| job.status);
        if of_jobs.clone().all(|status| status == "queued") {
            "queued"
        } else if of_jobs.all(|status| status == "completed") {
            "completed"
        } else {
            "in_progress"
        }
    }

    /// Whether a repository or an organisation is there.
    pub fn knows(&self, owner: &str) -> bool {
        owner == ORG || self.repositories.iter().any(|name| name.split('/').next() == Some(owner))
    }
}

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
