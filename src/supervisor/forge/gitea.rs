//! Gitea, 1.25 and later: its list of jobs tells the demand, and one ephemeral registration is made for each runner. Whoever's
//! labels cover a job gets it.
//!
//! After Gitea's `routers/api/v1/api.go`, `shared/{runners,action}.go`, and its runner's `register`, `daemon` and `.runner`.

mod answers;

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde_json::json;
use tokio::sync::Mutex;

use self::answers::{Identity, Jobs, Registered, Token, Version};
use super::{
    FOLDER, Forge, Look, Minted, Order, Plan, PlannedFile, QueuedJob, RunningJob,
    connect::{RunnerIdentity, fail_task},
    http::{Refusal, segments, version_number},
    server::{PAGE, Server},
};
use crate::{
    model::{Error, Result},
    supervisor::{
        balance::Class,
        record::{ForgeJob, Registration},
        secret::Secret,
        settings::ForgeSettings,
    },
};

/// Pages that are looked through for a job that has ended already.
const NEWEST: usize = 4;

/// How often a registration is tried again whose token was out of date.
const TRIES: usize = 3;

/// The first version with a list of jobs.
const SINCE: (u64, u64) = (1, 25);

/// A server.
pub struct Gitea {
    server: Server,
    /// One asks for a registration token at a time: a scope's is made when it is first asked for, and of two that are made at once one is
    /// invalid from the start.
    asking: Mutex<()>,
}

impl Gitea {
    /// The one that is configured.
    pub fn new(settings: &ForgeSettings) -> Result<Self> {
        Ok(Self { server: Server::new(settings)?, asking: Mutex::default() })
    }

    async fn queued_and_running(&self) -> Result<Vec<answers::Job>> {
        let path = format!("api/v1/{}/actions/jobs?status=queued&status=in_progress&", self.server.scope().await?);
        self.server.pages(&path, |found: Jobs| found.jobs).await.map_err(|refusal| self.no_jobs(refusal))
    }

    fn no_jobs(&self, refusal: Refusal) -> Error {
        match refusal.status {
            Some(http::StatusCode::FORBIDDEN) => Error::forbidden(format!(
                "the token may not see the jobs at {}: it needs the scope read:admin, read:organization or \
                 read:repository, whichever its list is in",
                self.server.url
            ))
            .with_source(Error::from(refusal)),
            _ => refusal.into(),
        }
    }

    async fn register(&self, scope: &str, order: &Order<'_>) -> Result<Registered> {
        let mut tries = 0..TRIES;
        loop {
            let token = self.registration_token(scope).await?;
            let body = json!({
                "name": order.name,
                "token": token.reveal(),
                "version": concat!("ringer/", env!("CARGO_PKG_VERSION")),
                "labels": order.class.labels,
                "ephemeral": true,
            });
            let path = "api/actions/runner.v1.RunnerService/Register";
            match self.server.api.call(Method::POST, path, Some(&body)).await {
                Err(refusal) if is_out_of_date(&refusal) && tries.next().is_some() => {}
                registered => return Ok(registered?),
            }
        }
    }

    /// Servers before 1.26 also gave it for a GET, those before 1.24 for nothing else.
    async fn registration_token(&self, scope: &str) -> Result<Secret> {
        let path = format!("api/v1/{scope}/actions/runners/registration-token");
        let _one_asks = self.asking.lock().await;
        match self.server.api.call::<Token>(Method::POST, &path, None::<&()>).await {
            Ok(token) => Ok(Secret::new(token.token)),
            Err(refusal) if is_missing(&refusal) => Ok(Secret::new(self.server.api.get::<Token>(&path).await?.token)),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// Somebody else may have had a new token made since we asked for ours.
fn is_out_of_date(refusal: &Refusal) -> bool {
    refusal.to_string().contains("has been invalidated")
}

fn is_missing(refusal: &Refusal) -> bool {
    matches!(refusal.status, Some(http::StatusCode::NOT_FOUND | http::StatusCode::METHOD_NOT_ALLOWED))
}

#[async_trait]
impl Forge for Gitea {
    async fn greet(&self) -> Result<String> {
        // Asked first: of a wrong token every answer is 401.
        let scope = self.server.scope().await?;
        let version = self.server.api.get::<Version>("api/v1/version").await?.version;
        if version_number(&version).is_some_and(|number| number < SINCE) {
            return Err(Error::invalid(format!(
                "{} is Gitea {version}: its list of jobs is needed, which is there from {}.{} on",
                self.server.url, SINCE.0, SINCE.1
            )));
        }
        Ok(format!(
            "{} is Gitea {version}: its list of jobs ({scope}) is asked, and each runner gets an ephemeral registration",
            self.server.url
        ))
    }

    async fn look(&self, registrations: &[Registration]) -> Result<Look> {
        let mut jobs = self.queued_and_running().await?;
        jobs.sort_by_key(|job| job.id);
        let mut look = Look { registered: self.server.registered(registrations).await?, ..Look::default() };
        for job in jobs {
            let (status, runner, labels) = (job.status.clone(), job.runner_name.clone(), job.labels.clone());
            let since = job.since();
            let Some(job) = job.into_job() else { continue };
            match status.as_str() {
                "queued" => {
                    look.queued.push(QueuedJob { job, labels: labels.unwrap_or_default(), handle: None, since });
                }
                "in_progress" => look.running.push(RunningJob { job, runner, handle: None }),
                _ => {}
            }
        }
        Ok(look)
    }

    async fn registrations(&self, prefix: &str, class: Option<&Class>) -> Result<Vec<Registration>> {
        self.server.registrations(prefix, class).await
    }

    async fn mint(&self, order: &Order<'_>) -> Result<Minted> {
        let scope = self.server.scope_of(order.class).await?;
        let registered = self.register(&scope, order).await?;
        let runner = registered.runner;
        let id = runner.id.parse().map_err(|_| Error::system(format!("the runner's number is none: {}", runner.id)))?;
        let file = json!({
            "WARNING": "made by ringer for one job",
            "id": id,
            "uuid": runner.uuid,
            "name": order.name,
            "token": runner.token,
            "address": self.server.url,
            "labels": order.labels_with_steps(),
            "ephemeral": true,
        });
        Ok(Minted {
            registration: Registration { id, name: order.name.to_owned(), scope },
            credential: Secret::new(file.to_string()),
        })
    }

    async fn deregister(&self, registration: &Registration) -> Result<()> {
        self.server.deregister(registration).await
    }

    /// Among the newest jobs, which stand on the last pages.
    async fn work_of(&self, registration: &Registration, _: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        let path = format!("api/v1/{}/actions/jobs?limit={PAGE}", self.server.scope().await?);
        let first: Jobs = self.server.api.get(&path).await?;
        let last = first.total_count.div_ceil(PAGE).max(1);
        for page in (1..=last).rev().take(NEWEST) {
            let found: Jobs = self.server.api.get(&format!("{path}&page={page}")).await?;
            let is_its = |job: &answers::Job| job.runner_name.as_deref() == Some(&registration.name);
            if let Some(job) = found.jobs.into_iter().find(is_its) {
                return Ok(job.into_job());
            }
        }
        Ok(None)
    }

    /// Its task is one of those of that name that run: the server knows whose they are.
    async fn give_up(&self, job: &ForgeJob, credential: &Secret, why: &str) -> Result<()> {
        let identity: Identity = serde_json::from_str(credential.reveal())
            .map_err(|error| Error::system("reading a runner's credential").with_source(error))?;
        let runner = RunnerIdentity { uuid: &identity.uuid, token: &identity.token };
        let mut refused = None;
        for task in self.server.tasks(&job.repository).await? {
            if task.name == job.name && task.status == "running" {
                match fail_task(&self.server.api, &runner, task.id, why).await {
                    Ok(()) => return Ok(()),
                    Err(refusal) => refused = Some(refusal),
                }
            }
        }
        refused.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        let path = format!("api/v1/repos/{}/actions/jobs/{}", segments(&job.repository), job.id);
        let job: answers::Job = self.server.api.get(&path).await?;
        Ok(job.conclusion.filter(|conclusion| !conclusion.is_empty()))
    }

    /// Configuration files are YAML, of which JSON is a part.
    fn plan(&self, _: &Order<'_>, minted: &Minted) -> Plan {
        let config = json!({
            "log": {"level": "info"},
            "runner": {
                "file": format!("{FOLDER}/runner.json"),
                "capacity": 1,
                "timeout": format!("{}s", self.server.job_timeout),
                "shutdown_timeout": "0s",
                "fetch_interval": "1s",
            },
            "container": {
                "network": "",
                "docker_host": "",
                "force_pull": false,
                "valid_volumes": ["**"],
            },
        });
        Plan {
            arguments: ["--config", &format!("{FOLDER}/config.yaml"), "daemon"].map(str::to_owned).to_vec(),
            env: Vec::new(),
            files: vec![
                PlannedFile { name: "config.yaml", content: Secret::new(config.to_string()) },
                PlannedFile { name: "runner.json", content: minted.credential.clone() },
            ],
        }
    }

    fn pause(&self, has_runners: bool) -> Duration {
        self.server.pause(has_runners)
    }

    fn programs(&self) -> &'static [&'static str] {
        &["/usr/local/bin/gitea-runner", "/usr/local/bin/act_runner", "/usr/bin/gitea-runner", "/usr/bin/act_runner"]
    }

    fn runner_image(&self) -> &'static str {
        "docker.io/gitea/runner:3"
    }

    fn job_image(&self) -> &'static str {
        "docker.io/gitea/runner-images:ubuntu-24.04"
    }
}
