//! Forgejo, 15 and later: its list of jobs tells the demand and a handle of each, one ephemeral registration is made for each job, and its
//! runner takes that job and no other (`one-job --handle`).
//!
//! After Forgejo's `routers/api/v1/shared/runners.go`, and its runner's `one-job`.

mod answers;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::json;

use self::answers::{Job, Registered, Repository, Run, Version};
use super::{
    FOLDER, Forge, Look, Minted, Order, Plan, PlannedFile, QueuedJob, RunningJob,
    connect::{RunnerIdentity, fail_task},
    http::{Refusal, segments},
    server::Server,
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

/// What is remembered of names: more than a server has jobs at once.
const REMEMBERED: usize = 4096;

/// What the server was asked once.
#[derive(Default)]
struct Known(Mutex<BTreeMap<i64, String>>);

impl Known {
    fn get(&self, number: i64) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    fn learn(&self, number: i64, text: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(number, text.to_owned());
    }
}

/// A server.
pub struct Forgejo {
    server: Arc<Server>,
    /// Names of repositories by their number, which is all that the list of jobs says.
    names: Known,
    /// Where people see runs, by their number.
    pages: Known,
}

impl Forgejo {
    /// One of that kind.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, names: Known::default(), pages: Known::default() }
    }

    async fn repository(&self, id: i64) -> Result<String> {
        if let Some(name) = self.names.get(id) {
            return Ok(name);
        }
        let name = self.server.api.get::<Repository>(&format!("api/v1/repositories/{id}")).await?.full_name;
        self.names.learn(id, &name);
        Ok(name)
    }

    /// The page of a run has another number than the run; a repository that is not shown to us has the list of its runs.
    async fn page_of(&self, repository: &str, run: i64) -> Result<String> {
        if let Some(page) = self.pages.get(run) {
            return Ok(page);
        }
        let page = match self.run_of(repository, run).await {
            Ok(run) => run.html_url,
            Err(refusal) if matches!(refusal.status, Some(StatusCode::NOT_FOUND | StatusCode::FORBIDDEN)) => {
                format!("{}/{repository}/actions", self.server.url)
            }
            Err(refusal) => return Err(refusal.into()),
        };
        self.pages.learn(run, &page);
        Ok(page)
    }

    async fn forge_job(&self, job: &Job) -> Result<ForgeJob> {
        let repository = self.repository(job.repo_id).await?;
        let url = self.page_of(&repository, job.run_id).await?;
        let task = Some(job.task_id).filter(|task| *task != 0);
        let (run, name) = (Some(job.run_id), job.name.clone());
        Ok(ForgeJob { id: job.id, run, task, is_heard: false, repository, name, url })
    }

    async fn run_of(&self, repository: &str, run: i64) -> Result<Run, Refusal> {
        self.server.api.get(&format!("api/v1/repos/{}/actions/runs/{run}", segments(repository))).await
    }

    /// A job as it is now, also if it has ended: the list of those that wait or run forgets it then. `None` where it is not shown.
    async fn job_now(&self, job: &ForgeJob) -> Result<Option<Job>> {
        let Some(run) = job.run else { return Ok(None) };
        let path = format!("api/v1/repos/{}/actions/runs/{run}/jobs", segments(&job.repository));
        match self.server.api.get::<Option<Vec<Job>>>(&path).await {
            Ok(jobs) => Ok(jobs.into_iter().flatten().find(|now| now.id == job.id)),
            Err(refusal) if refusal.status == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn no_list(&self, refusal: Refusal) -> Error {
        match refusal.status {
            Some(StatusCode::NOT_FOUND) => Error::invalid(format!(
                "{} has no list of jobs at the token's scope: Forgejo 15 or later is needed",
                self.server.url
            ))
            .with_source(Error::from(refusal)),
            Some(StatusCode::FORBIDDEN) => Error::forbidden(format!(
                "the token may not see the jobs at {}: it needs the scope write:admin, or write:organization with an owner",
                self.server.url
            ))
            .with_source(Error::from(refusal)),
            _ => self.server.token_refused(refusal),
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
                Some(StatusCode::NOT_FOUND) => {
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
        // A runner without one would take any job.
        jobs.retain(|job| !job.handle.is_empty());
        jobs.sort_by_key(|job| job.id);
        let mut look = Look::default();
        for job in jobs {
            let (forge_job, handle) = (self.forge_job(&job).await?, Some(job.handle));
            match job.status.as_str() {
                "waiting" => {
                    look.queued.push(QueuedJob {
                        job: forge_job,
                        labels: job.runs_on.unwrap_or_default(),
                        handle,
                        since: None,
                    });
                }
                "running" => look.running.push(RunningJob { job: forge_job, runner: None, handle }),
                _ => {}
            }
        }
        look.registered = self.server.registered(registrations).await?;
        Ok(look)
    }

    async fn registrations(&self, prefix: &str, class: Option<&Class>) -> Result<Vec<Registration>> {
        self.server.registrations(prefix, class).await
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

    /// Its runner can take one job and no other: it has had it if that waits no more.
    async fn work_of(&self, _: &Registration, meant_for: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        let Some(job) = meant_for else { return Ok(None) };
        let now = self.job_now(job).await?.filter(|now| now.task_id != 0);
        Ok(now.map(|now| ForgeJob { task: Some(now.task_id), ..job.clone() }))
    }

    async fn origin(&self, job: &ForgeJob) -> Result<Origin> {
        let run = job.run.ok_or_else(|| Error::system("a job of Forgejo without a run"))?;
        self.run_of(&job.repository, run).await?.origin()
    }

    async fn give_up(&self, job: &ForgeJob, credential: &Secret, why: &str) -> Result<()> {
        let Some(task) = job.task else { return Ok(()) };
        let (uuid, token) = credential.reveal().split_once('\n').unwrap_or_default();
        Ok(fail_task(&self.server.api, &RunnerIdentity { uuid, token }, task, why).await?)
    }

    /// By the list of the run's jobs, or where the server has none by the repository's list of tasks.
    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        let status = match (self.job_now(job).await?, job.task) {
            (Some(now), _) => Some(now.status),
            (None, Some(task)) => {
                let tasks = self.server.tasks(&job.repository).await?;
                tasks.into_iter().find(|found| found.id == task).map(|task| task.status)
            }
            (None, None) => None,
        };
        Ok(status.filter(|status| !matches!(status.as_str(), "running" | "waiting" | "blocked")))
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

    fn pause(&self, has_runners: bool) -> Duration {
        self.server.pause(has_runners)
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
