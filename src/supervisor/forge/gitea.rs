//! Gitea, 1.25 and later: its list of jobs tells the demand, and one ephemeral registration is made for each runner. Whoever's
//! labels cover a job gets it.
//!
//! After Gitea's `routers/api/v1/api.go`, `shared/{runners,action}.go`, and its runner's `register`, `daemon` and `.runner`.

mod answers;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use self::answers::{Identity, Jobs, Version};
use super::{
    FOLDER, Forge, Look, Minted, Order, Plan, PlannedFile, QueuedJob, RunningJob,
    connect::{NewRunner, RunnerIdentity, fail_task, register},
    http::{Refusal, segments},
    server::{Repository, Server},
};
use crate::{
    model::{Error, Result},
    supervisor::{
        balance::Class,
        origin::Origin,
        record::{ForgeJob, Registration},
        secret::Secret,
    },
};

/// Pages that are looked through for a job that has ended already.
const NEWEST: usize = 4;

/// How often a registration is tried again whose token was out of date.
const TRIES: usize = 3;

/// A server.
pub struct Gitea {
    server: Arc<Server>,
}

impl Gitea {
    /// One of that kind.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
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
            _ => self.server.token_refused(refusal),
        }
    }

    async fn register(&self, scope: &str, order: &Order<'_>) -> Result<NewRunner> {
        let mut tries = 0..TRIES;
        loop {
            let token = self.server.registration_token(scope).await?;
            match register(&self.server.api, order.name, &token, &order.class.labels).await {
                Err(refusal) if is_out_of_date(&refusal) && tries.next().is_some() => {}
                registered => return Ok(registered?),
            }
        }
    }
}

/// The file that Gitea's runner has of its registration.
pub fn runner_file(
    url: &str,
    order: &Order<'_>,
    name: &str,
    id: i64,
    runner: &RunnerIdentity<'_>,
    is_ephemeral: bool,
) -> Secret {
    let file = json!({
        "WARNING": "made by ringer for one job",
        "id": id,
        "uuid": runner.uuid,
        "name": name,
        "token": runner.token,
        "address": url,
        "labels": order.labels_with_steps(),
        "ephemeral": is_ephemeral,
    });
    Secret::new(file.to_string())
}

/// How it is started. Configuration files are YAML, of which JSON is a part. One that `waits` for whatever comes lets a job that it has end
/// when it is told to end itself.
pub fn plan(job_timeout: u64, file: &Secret, waits: bool) -> Plan {
    let config = json!({
        "log": {"level": "info"},
        "runner": {
            "file": format!("{FOLDER}/runner.json"),
            "capacity": 1,
            "timeout": format!("{job_timeout}s"),
            "shutdown_timeout": if waits { format!("{job_timeout}s") } else { "0s".to_owned() },
            "fetch_interval": "1s",
        },
        "container": {
            "network": "",
            "docker_host": "",
            "force_pull": false,
            "valid_volumes": ["**"],
        },
    });
    let path = format!("{FOLDER}/config.yaml");
    let arguments = ["--config", &path, "daemon"].into_iter().chain(waits.then_some("--once"));
    Plan {
        arguments: arguments.map(str::to_owned).collect(),
        env: Vec::new(),
        files: vec![
            PlannedFile { name: "config.yaml", content: Secret::new(config.to_string()) },
            PlannedFile { name: "runner.json", content: file.clone() },
        ],
    }
}

/// Somebody else may have had a new token made since we asked for ours.
fn is_out_of_date(refusal: &Refusal) -> bool {
    refusal.to_string().contains("has been invalidated")
}

#[async_trait]
impl Forge for Gitea {
    async fn greet(&self) -> Result<String> {
        // Asked first: of a wrong token every answer is 401.
        let scope = self.server.scope().await?;
        let version = self.server.api.get::<Version>("api/v1/version").await?.version;
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
        let runner = self.register(&scope, order).await?;
        let (id, identity) = (runner.id()?, RunnerIdentity { uuid: &runner.uuid, token: &runner.token });
        Ok(Minted {
            registration: Registration { id, name: order.name.to_owned(), scope },
            credential: runner_file(&self.server.url, order, order.name, id, &identity, true),
        })
    }

    async fn deregister(&self, registration: &Registration) -> Result<()> {
        self.server.deregister(registration).await
    }

    /// Among the newest jobs, which stand on the last pages.
    async fn work_of(&self, registration: &Registration, _: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        let size = self.server.page_size().await;
        let path = format!("api/v1/{}/actions/jobs?limit={size}", self.server.scope().await?);
        let first: Jobs = self.server.api.get(&path).await?;
        let last = first.total_count.div_ceil(size).max(1);
        for page in (1..=last).rev().take(NEWEST) {
            let found: Jobs = self.server.api.get(&format!("{path}&page={page}")).await?;
            let is_its = |job: &answers::Job| job.runner_name.as_deref() == Some(&registration.name);
            if let Some(job) = found.jobs.into_iter().find(is_its) {
                return Ok(job.into_job());
            }
        }
        Ok(None)
    }

    /// Whose job a runner is given nobody can say beforehand, so that nothing is asked of its run.
    async fn origin(&self, job: &ForgeJob) -> Result<Origin> {
        let path = format!("api/v1/repos/{}", segments(&job.repository));
        let repository: Repository = self.server.api.get(&path).await?;
        Ok(Origin { is_of_fork: None, is_public: repository.is_public(), cache_scope: None })
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

    fn plan(&self, _: &Order<'_>, minted: &Minted) -> Plan {
        plan(self.server.job_timeout, &minted.credential, false)
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
