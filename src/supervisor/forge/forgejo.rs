//! Forgejo, 15 and later: its list of jobs tells the demand and a handle of each, one ephemeral registration is made for each job, and its
//! runner takes that job and no other (`one-job --handle`).
//!
//! After Forgejo's `routers/api/v1/shared/runners.go`, and its runner's `one-job`.

mod answers;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use http::Method;
use serde_json::json;

use self::answers::{Job, Registered, Repository, Version};
use super::{
    FOLDER, Forge, Look, Minted, Order, Plan, PlannedFile, QueuedJob, RunningJob,
    connect::{RunnerIdentity, fail_task},
    http::Refusal,
    server::Server,
};
use crate::{
    model::{Error, Result},
    supervisor::{
        record::{ForgeJob, Registration},
        secret::Secret,
        settings::ForgeSettings,
    },
};

/// A server.
pub struct Forgejo {
    server: Server,
    /// Names of repositories by their number, which is all that the list of jobs says.
    names: Mutex<BTreeMap<i64, String>>,
}

impl Forgejo {
    /// The one that is configured.
    pub fn new(settings: &ForgeSettings) -> Result<Self> {
        Ok(Self { server: Server::new(settings)?, names: Mutex::default() })
    }

    async fn repository(&self, id: i64) -> Result<String> {
        let known = self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(name) = known {
            return Ok(name);
        }
        let name = self.server.api.get::<Repository>(&format!("api/v1/repositories/{id}")).await?.full_name;
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(id, name.clone());
        Ok(name)
    }

    async fn forge_job(&self, job: &Job) -> Result<ForgeJob> {
        let repository = self.repository(job.repo_id).await?;
        let url = format!("{}/{repository}/actions/runs/{}", self.server.url, job.run_id);
        Ok(ForgeJob { id: job.id, task: job.task_id, repository, name: job.name.clone(), url })
    }

    fn no_list(&self, refusal: Refusal) -> Error {
        match refusal.status {
            Some(http::StatusCode::NOT_FOUND) => Error::invalid(format!(
                "{} has no list of jobs at the token's scope: Forgejo 15 or later is needed",
                self.server.url
            ))
            .with_source(Error::from(refusal)),
            Some(http::StatusCode::FORBIDDEN) => Error::forbidden(format!(
                "the token may not see the jobs at {}: it needs the scope write:admin, or write:organization with an owner",
                self.server.url
            ))
            .with_source(Error::from(refusal)),
            _ => refusal.into(),
        }
    }

    async fn waiting_and_running(&self) -> Result<Vec<Job>> {
        let path = format!("api/v1/{}/actions/runners/jobs", self.server.scope().await?);
        let jobs: Option<Vec<Job>> = self.server.api.get(&path).await.map_err(|refusal| self.no_list(refusal))?;
        Ok(jobs.unwrap_or_default())
    }
}

#[async_trait]
impl Forge for Forgejo {
    async fn greet(&self) -> Result<String> {
        let version =
            self.server.api.get::<Version>("api/forgejo/v1/version").await.map_err(|refusal| match refusal.status {
                Some(http::StatusCode::NOT_FOUND) => {
                    Error::invalid(format!("{} is no Forgejo: is it a [gitea]?", self.server.url))
                }
                _ => refusal.into(),
            })?;
        self.waiting_and_running().await?;
        Ok(format!(
            "{} is Forgejo {}: its list of jobs ({}) is asked, and each job gets a runner that is registered for it alone",
            self.server.url,
            version.version,
            self.server.scope().await?
        ))
    }

    async fn look(&self, registrations: &[Registration]) -> Result<Look> {
        let mut jobs = self.waiting_and_running().await?;
        jobs.sort_by_key(|job| job.id);
        let mut look = Look::default();
        for job in jobs {
            let (forge_job, handle) = (self.forge_job(&job).await?, Some(job.handle));
            match job.status.as_str() {
                "waiting" => {
                    look.queued.push(QueuedJob { job: forge_job, labels: job.runs_on.unwrap_or_default(), handle });
                }
                "running" => look.running.push(RunningJob { job: forge_job, runner: None, handle }),
                _ => {}
            }
        }
        look.registered = self.server.registered(registrations).await?;
        Ok(look)
    }

    async fn registrations(&self, prefix: &str) -> Result<Vec<Registration>> {
        self.server.registrations(prefix).await
    }

    async fn mint(&self, order: &Order<'_>) -> Result<Minted> {
        let scope = self.server.scope_of(order.class).await?;
        let body = json!({"name": order.name, "description": "made by ringer for one job", "ephemeral": true});
        let path = format!("api/v1/{scope}/actions/runners");
        let made: Registered =
            self.server.api.call(Method::POST, &path, Some(&body)).await.map_err(|refusal| self.no_list(refusal))?;
        let registration = Registration { id: made.id, name: order.name.to_owned(), scope };
        // Two lines: the runner reads them from two places.
        Ok(Minted { registration, credential: Secret::new(format!("{}\n{}", made.uuid, made.token)) })
    }

    async fn deregister(&self, registration: &Registration) -> Result<()> {
        self.server.deregister(registration).await
    }

    /// A job has its handle, so it is known from the launch on.
    async fn work_of(&self, _: &Registration) -> Result<Option<ForgeJob>> {
        Ok(None)
    }

    async fn give_up(&self, job: &ForgeJob, credential: &Secret, why: &str) -> Result<()> {
        let Some(task) = job.task else { return Ok(()) };
        let (uuid, token) = credential.reveal().split_once('\n').unwrap_or_default();
        Ok(fail_task(&self.server.api, &RunnerIdentity { uuid, token }, task, why).await?)
    }

    /// By the repository's list of tasks: that of jobs forgets what has ended.
    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        let Some(task) = job.task else { return Ok(None) };
        let found = self.server.tasks(&job.repository).await?.into_iter().find(|found| found.id == task);
        Ok(found.map(|task| task.status).filter(|status| !matches!(status.as_str(), "running" | "waiting" | "blocked")))
    }

    /// Configuration files are YAML, of which JSON is a part.
    fn plan(&self, order: &Order<'_>, minted: &Minted) -> Plan {
        let (uuid, token) = minted.credential.reveal().split_once('\n').unwrap_or_default();
        let config = json!({
            "log": {"level": "info"},
            "runner": {
                "capacity": 1,
                "timeout": format!("{}s", self.server.job_timeout),
                "fetch_interval": "1s",
            },
            "container": {
                "network": "",
                "docker_host": "automount",
                "force_pull": false,
                "valid_volumes": ["**"],
            },
        });
        let mut arguments: Vec<String> = [
            "--config",
            &format!("{FOLDER}/config.yaml"),
            "one-job",
            "--wait",
            "--url",
            &self.server.url,
            "--uuid",
            uuid,
            "--token-url",
            &format!("file:{FOLDER}/token"),
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(handle) = &order.class.handle {
            arguments.extend(["--handle".to_owned(), handle.clone()]);
        }
        for label in order.labels_with_steps() {
            arguments.extend(["--label".to_owned(), label]);
        }
        Plan {
            arguments,
            env: Vec::new(),
            files: vec![
                PlannedFile { name: "config.yaml", content: Secret::new(config.to_string()) },
                PlannedFile { name: "token", content: Secret::new(token) },
            ],
        }
    }

    fn programs(&self) -> &'static [&'static str] {
        &["/bin/forgejo-runner", "/usr/local/bin/forgejo-runner", "/usr/bin/forgejo-runner"]
    }

    fn runner_image(&self) -> &'static str {
        "data.forgejo.org/forgejo/runner:13"
    }

    fn job_image(&self) -> &'static str {
        "docker.io/gitea/runner-images:ubuntu-24.04"
    }
}
