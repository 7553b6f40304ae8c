//! Woodpecker: its queue tells the demand, and each agent has a row and a token of its own, takes one workflow and ends. Whoever's
//! labels cover a workflow gets it.
//!
//! After Woodpecker's `server/api/{agent,queue,pipeline}.go`, `server/scheduler/filter.go`, and its agent's `cmd/agent/core`.

mod answers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use self::answers::{Agent, Pipeline, Queue, User, Version};
use super::{
    FOLDER, Forge, Look, Minted, Order, Plan, PlannedFile, QueuedJob, Quit, RunningJob,
    http::{Api, Refusal},
};
use crate::{
    model::{Error, Result, image::Platform},
    supervisor::{
        balance::Class,
        record::{ForgeJob, Registration},
        secret::Secret,
        settings::{Access, ForgeSettings, Woodpecker as Server},
    },
};

/// Entries of a list that are asked for: Woodpecker gives no more.
const PAGE: usize = 50;

/// Pages that are read.
const PAGES: usize = 40;

/// Workflows that are remembered for agents whose work no look has seen.
const REMEMBERED: usize = 256;

/// Pipelines that are looked at for such an agent.
const NEWEST: usize = 30;

/// How long the agent may take to cancel its workflow and to say so: it gives itself 5 s.
const FAREWELL: Duration = Duration::from_secs(10);

/// The agent sends lines when none has come for a second (`agent/rpc/client_grpc.go`), and with a single workflow it ends without having
/// sent the last ones. The last that it does before is to remove the workflow's network: so that takes this second, and one for the sending.
const LINGER: Duration = Duration::from_secs(2);

/// What the agent says of a server with another version of the protocol, and such a server of it.
const MISMATCHES: [&str; 2] = ["GRPC version mismatch", "incompatible with server proto version"];

/// A server.
pub struct Woodpecker {
    api: Api,
    server: Server,
    settings: ForgeSettings,
    version: OnceCell<String>,
    /// Workflows by their number, of which no agent of ours is known to have had them.
    seen: Mutex<BTreeMap<i64, ForgeJob>>,
}

impl Woodpecker {
    /// The one that is configured.
    pub fn new(settings: &ForgeSettings, server: &Server) -> Result<Self> {
        let Access::Token(token) = &settings.access else {
            return Err(Error::invalid(format!("[{}]: token is missing", settings.name)));
        };
        Ok(Self {
            api: Api::of_bearer(settings, token)?,
            server: server.clone(),
            settings: settings.clone(),
            version: OnceCell::new(),
            seen: Mutex::default(),
        })
    }

    fn refused(&self, refusal: Refusal) -> Error {
        let words = match refusal.status {
            Some(StatusCode::UNAUTHORIZED) => "does not take the token: it has to be a user's personal access token",
            Some(StatusCode::FORBIDDEN) => "does not let the token see or do this: it has to be an administrator's",
            _ => return refusal.into(),
        };
        Error::forbidden(format!("{} {words}", self.settings.url)).with_source(Error::from(refusal))
    }

    async fn agents(&self) -> Result<Vec<Registration>> {
        let mut all = Vec::new();
        for page in 1..=PAGES {
            let path = format!("api/agents?page={page}&perPage={PAGE}");
            let found: Option<Vec<Agent>> = self.api.get(&path).await.map_err(|refusal| self.refused(refusal))?;
            let found = found.unwrap_or_default();
            let is_last = found.len() < PAGE;
            all.extend(found.into_iter().map(as_registration));
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    async fn pipeline(&self, repository: i64, number: i64) -> Result<Vec<answers::Workflow>> {
        let path = format!("api/repos/{repository}/pipelines/{number}");
        let pipeline: Pipeline = self.api.get(&path).await.map_err(|refusal| self.refused(refusal))?;
        Ok(pipeline.workflows.unwrap_or_default())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, ForgeJob>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, job: &ForgeJob) {
        let mut seen = self.seen();
        seen.insert(job.id, job.clone());
        while seen.len() > REMEMBERED {
            seen.pop_first();
        }
    }

    /// The address of an agent's row, by which it is changed.
    fn row(registration: &Registration) -> String {
        format!("api/agents/{}", registration.id)
    }
}

fn as_registration(agent: Agent) -> Registration {
    Registration { id: agent.id, name: agent.name, scope: "agents".to_owned() }
}

#[async_trait]
impl Forge for Woodpecker {
    async fn greet(&self) -> Result<String> {
        let user: User = self.api.get("api/user").await.map_err(|refusal| self.refused(refusal))?;
        if !user.admin {
            return Err(Error::forbidden(format!(
                "{} says that {}, whose token this is, is no administrator: agents are made and the queue is seen by those alone",
                self.settings.url, user.login
            )));
        }
        let version: Version = self.api.get("version").await?;
        let version = self.version.get_or_init(async || version.version).await;
        Ok(format!(
            "{} is Woodpecker {version}: its queue is asked, and each workflow gets an agent with a token of its own at {}",
            self.settings.url, self.server.address
        ))
    }

    async fn look(&self, registrations: &[Registration]) -> Result<Look> {
        let queue: Queue = self.api.get("api/queue/info").await.map_err(|refusal| self.refused(refusal))?;
        let mut look = Look::default();
        for task in queue.running.iter().flatten() {
            let Some(job) = task.as_job(&self.settings.url) else { continue };
            self.remember(&job);
            let its = registrations.iter().find(|registration| registration.id == task.agent_id);
            let runner = its.map(|registration| registration.name.clone());
            look.running.push(RunningJob { job, runner, handle: None });
        }
        // Of a queue that is paused nobody is given anything.
        for task in queue.pending.iter().flatten().filter(|_| !queue.paused) {
            let Some(job) = task.as_job(&self.settings.url) else { continue };
            self.remember(&job);
            look.queued.push(QueuedJob {
                job,
                labels: task.wanted(&Platform::host().to_string()),
                handle: None,
                since: None,
            });
        }
        if !registrations.is_empty() {
            let agents = self.agents().await?;
            look.registered = registrations.iter().filter(|ours| agents.contains(ours)).cloned().collect();
        }
        Ok(look)
    }

    async fn registrations(&self, prefix: &str, _: Option<&Class>) -> Result<Vec<Registration>> {
        let mut agents = self.agents().await?;
        agents.retain(|agent| agent.name.starts_with(prefix));
        Ok(agents)
    }

    async fn mint(&self, order: &Order<'_>) -> Result<Minted> {
        let body = json!({"name": order.name, "no_schedule": false});
        let agent: Agent =
            self.api.call(Method::POST, "api/agents", Some(&body)).await.map_err(|refusal| self.refused(refusal))?;
        let credential = Secret::new(agent.token.clone());
        Ok(Minted { registration: as_registration(agent), credential })
    }

    /// Refused while the server thinks that it has work, which is a minute if it does not end it: tried again until then.
    async fn deregister(&self, registration: &Registration) -> Result<()> {
        self.api.delete(&Self::row(registration)).await.map_err(|refusal| self.refused(refusal))
    }

    /// The newest pipelines know their agents.
    async fn work_of(&self, registration: &Registration, _: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        let jobs: Vec<ForgeJob> = self.seen().values().rev().cloned().collect();
        let place = |job: &ForgeJob| (job.task.unwrap_or_default(), job.run.unwrap_or_default());
        let pipelines: BTreeSet<(i64, i64)> = jobs.iter().map(place).collect();
        for (repository, number) in pipelines.into_iter().rev().take(NEWEST) {
            let workflows = self.pipeline(repository, number).await?;
            if let Some(its) = workflows.iter().find(|workflow| workflow.agent_id == registration.id) {
                return Ok(jobs.into_iter().find(|job| job.id == its.id));
            }
        }
        Ok(None)
    }

    /// Nobody can in an agent's name: the server finds out within a minute, and gives the workflow to another one.
    async fn give_up(&self, _: &ForgeJob, _: &Secret, _: &str) -> Result<()> {
        Ok(())
    }

    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        let (Some(repository), Some(number)) = (job.task, job.run) else { return Ok(None) };
        let workflows = self.pipeline(repository, number).await?;
        let conclusion =
            workflows.iter().find(|workflow| workflow.id == job.id).and_then(answers::Workflow::conclusion);
        if conclusion.is_some() {
            self.seen().remove(&job.id);
        }
        Ok(conclusion)
    }

    fn plan(&self, order: &Order<'_>, minted: &Minted) -> Plan {
        let labels = order.class.labels.iter().cloned().collect::<Vec<_>>().join(",");
        let socket = "/var/run/docker.sock";
        let of = |text: &str| Secret::new(text);
        Plan {
            arguments: Vec::new(),
            env: vec![
                ("WOODPECKER_SERVER", of(&self.server.address)),
                ("WOODPECKER_GRPC_SECURE", of(if self.server.secure { "true" } else { "false" })),
                // It is not checked unless somebody says so.
                ("WOODPECKER_GRPC_SKIP_VERIFY", of("false")),
                ("WOODPECKER_AGENT_SECRET_FILE", of(&format!("{FOLDER}/secret"))),
                ("WOODPECKER_AGENT_CONFIG_FILE", of("")),
                ("WOODPECKER_AGENT_SINGLE_WORKFLOW", of("true")),
                ("WOODPECKER_MAX_WORKFLOWS", of("1")),
                ("WOODPECKER_AGENT_LABELS", Secret::new(labels)),
                ("WOODPECKER_HOSTNAME", of(order.name)),
                ("WOODPECKER_HEALTHCHECK", of("false")),
                ("WOODPECKER_BACKEND", of("docker")),
                ("WOODPECKER_BACKEND_DOCKER_HOST", of(&format!("unix://{socket}"))),
                // Its look for a daemon reads this one.
                ("DOCKER_HOST", of(&format!("unix://{socket}"))),
                // The job's own: so steps need no daemon of theirs.
                ("WOODPECKER_BACKEND_DOCKER_VOLUMES", of(&format!("{socket}:{socket}"))),
            ],
            files: vec![PlannedFile { name: "secret", content: minted.credential.clone() }],
        }
    }

    fn pause(&self, _: bool) -> Duration {
        self.settings.poll_interval
    }

    fn farewell(&self) -> Option<Duration> {
        Some(FAREWELL)
    }

    fn network_linger(&self) -> Duration {
        LINGER
    }

    fn quit(&self) -> Quit {
        Quit::Told
    }

    /// Both keys at once: what is not sent is emptied.
    async fn keep_idle(&self, registration: &Registration) -> Result<()> {
        let body = json!({"name": registration.name, "no_schedule": true});
        let kept = self.api.call::<Value>(Method::PATCH, &Self::row(registration), Some(&body)).await;
        kept.map(drop).map_err(|refusal| self.refused(refusal))
    }

    fn explain(&self, log: &str) -> Option<String> {
        let is_it = MISMATCHES.iter().any(|words| log.contains(words));
        is_it.then(|| {
            let version = self.version.get().map_or("?", String::as_str);
            format!(
                "the agent speaks another version of the protocol than {}, which is Woodpecker {version}: runner_image has to be \
                 woodpeckerci/woodpecker-agent of that version",
                self.settings.url
            )
        })
    }

    fn programs(&self) -> &'static [&'static str] {
        &["/bin/woodpecker-agent", "/usr/local/bin/woodpecker-agent", "/usr/bin/woodpecker-agent"]
    }

    fn runner_image(&self) -> &'static str {
        "docker.io/woodpeckerci/woodpecker-agent:v3"
    }

    fn job_image(&self) -> &'static str {
        "each step's own"
    }
}
