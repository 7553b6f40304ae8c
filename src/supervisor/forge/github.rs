//! GitHub and GitHub Enterprise Server: the workflow runs of the repositories are asked for jobs that wait, and each runner gets a
//! just-in-time configuration, which is good for one connection and one job. Whoever's labels cover a job gets it.
//!
//! After GitHub's OpenAPI description of its REST API, whose operation ids the calls name, and actions/runner's `CommandSettings`,
//! `run.sh` and image.

mod answers;
mod app;
mod hub;
mod limits;
mod scale_set;
mod seen;
mod webhooks;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde_json::json;
use tokio::sync::OnceCell;
use tracing::{debug, info};

pub use self::scale_set::ScaleSets;
use self::{
    answers::{Content, Groups, JitConfig, Job, Jobs, Repository, Runners, Runs},
    hub::{Failure, Hub},
    seen::{Round, Seen},
};
use super::{Forge, Look, Minted, Order, Plan, QueuedJob, RunningJob, Shape, http::segments, webhooks::Webhooks};
use crate::{
    model::{Error, Result},
    supervisor::{
        artifacts::BegunJob,
        balance::Class,
        hooks::HookedJob,
        kept_sets::KeptSets,
        origin::Origin,
        record::{ForgeJob, Registration},
        secret::Secret,
        settings::{Access, Discovery, ForgeSettings, Github},
    },
};

/// Repositories that are asked at once.
const AT_ONCE: usize = 6;

/// States of a workflow run in which jobs of it may wait: of one that runs, the later jobs do.
const OPEN: [&str; 2] = ["queued", "in_progress"];

/// Jobs that are looked at for the one that a runner had, when no look has seen it.
const OLDEST: usize = 30;

/// The group that is always there.
const DEFAULT_GROUP: i64 = 1;

/// Between two looks at most while runners are there: one whose job nobody has told of is taken for idle, and ended.
const FOLLOWED: Duration = Duration::from_secs(60);

/// How long the runner may take to cancel its job and to say so: it gives steps 10 s.
const FAREWELL: Duration = Duration::from_secs(20);

/// The way that is configured.
pub fn connect(
    settings: &ForgeSettings,
    github: &Github,
    earlier: Option<&ScaleSets>,
    kept: Option<Arc<KeptSets>>,
) -> Result<Arc<dyn Forge>> {
    if github.scale_sets.is_some() {
        return Ok(Arc::new(ScaleSets::new(settings, github, earlier, kept)?));
    }
    Ok(Arc::new(GitHub::new(settings, github)?))
}

/// A server.
pub struct GitHub {
    hub: Hub,
    settings: ForgeSettings,
    github: Github,
    group: OnceCell<i64>,
    seen: Seen,
    round: Round,
    /// Calls of the last look that counted.
    cost: AtomicU64,
}

impl GitHub {
    /// By what it is asked, as people are told.
    fn who(&self) -> String {
        match &self.settings.access {
            Access::Token(_) => "a token".to_owned(),
            Access::App(app) => format!("the App {}", app.id),
        }
    }

    /// The one that is configured.
    pub fn new(settings: &ForgeSettings, github: &Github) -> Result<Self> {
        let named = settings.repositories.iter().flatten().find(|name| !name.ends_with("/*"));
        let place = match (&settings.owner, named) {
            (Some(org), _) => format!("orgs/{}", segments(org)),
            (None, Some(repository)) => format!("repos/{}", segments(repository)),
            (None, None) => return Err(Error::invalid(format!("[{}]: org or repos is missing", settings.name))),
        };
        Ok(Self {
            hub: Hub::new(settings, github, place)?,
            settings: settings.clone(),
            github: github.clone(),
            group: OnceCell::new(),
            seen: Seen::default(),
            round: Round::default(),
            cost: AtomicU64::new(0),
        })
    }

    /// Where a runner of a class is registered.
    fn scope_of(&self, class: &Class) -> Result<String> {
        match (&class.repository, &self.settings.owner) {
            (Some(repository), _) => Ok(format!("repos/{}", segments(repository))),
            (None, Some(org)) => Ok(format!("orgs/{}", segments(org))),
            (None, None) => {
                Err(Error::invalid("a runner of no repository needs an organisation, and none is configured"))
            }
        }
    }

    /// Everywhere that runners may be registered.
    async fn scopes(&self) -> Result<Vec<String>> {
        let mut scopes: Vec<String> = self.settings.owner.iter().map(|org| format!("orgs/{}", segments(org))).collect();
        if self.settings.depends_on_repository() {
            scopes.extend(self.repositories().await?.iter().map(|name| format!("repos/{}", segments(name))));
        }
        Ok(scopes)
    }

    /// The repositories whose jobs may run.
    async fn repositories(&self) -> Result<Vec<String>> {
        let allowed = self.settings.repositories.as_ref();
        if let Some(names) = allowed.filter(|names| names.iter().all(|name| !name.ends_with("/*"))) {
            return Ok(names.iter().cloned().collect());
        }
        let Some(org) = &self.settings.owner else {
            return Err(Error::invalid("repos without an org names each of them: no OWNER/*"));
        };
        let path = format!("orgs/{}/repos?type=all", segments(org));
        let all: Vec<Repository> = self.hub.pages(&path, |all| all).await.map_err(|failure| self.refused(failure))?;
        let is_open = |repository: &Repository| !repository.archived && !repository.disabled;
        let open = all.into_iter().filter(is_open).map(|repository| repository.full_name);
        Ok(open.filter(|name| self.settings.allows(name)).collect())
    }

    /// Jobs of a repository whose runs have not ended.
    async fn jobs_of(&self, repository: String) -> Result<Vec<(String, Job)>> {
        match self.open_jobs(&repository).await {
            Ok(jobs) => Ok(jobs.into_iter().map(|job| (repository.clone(), job)).collect()),
            // One of many, such as one without Actions, is no reason to leave the others alone.
            Err(failure) if self.may_be_left_out(&failure) => {
                debug!(forge = self.settings.name, "{repository} is left out: {}", Error::from(failure).chain());
                Ok(Vec::new())
            }
            Err(failure) => Err(self.refused(failure)),
        }
    }

    /// Whether this is one repository's alone, which nobody has named.
    fn may_be_left_out(&self, failure: &Failure) -> bool {
        self.settings.repositories.is_none()
            && matches!(failure.status(), Some(StatusCode::NOT_FOUND | StatusCode::FORBIDDEN))
    }

    async fn open_jobs(&self, repository: &str) -> Result<Vec<Job>, Failure> {
        let base = format!("repos/{}/actions/runs", segments(repository));
        let mut runs = BTreeSet::new();
        for status in OPEN {
            let found =
                self.hub.pages(&format!("{base}?status={status}"), |Runs { workflow_runs }| workflow_runs).await?;
            runs.extend(found.into_iter().map(|run| run.id));
        }
        let mut jobs = Vec::new();
        for run in runs {
            jobs.extend(self.hub.pages(&format!("{base}/{run}/jobs?filter=latest"), |Jobs { jobs }| jobs).await?);
        }
        Ok(jobs)
    }

    async fn job(&self, repository: &str, id: i64) -> Result<Job, Failure> {
        self.hub.get(&format!("repos/{}/actions/jobs/{id}", segments(repository))).await
    }

    /// Jobs that ask for one of our labels: the others are meant for GitHub's own machines or somebody else's.
    fn is_meant_for_us(&self, labels: &[String]) -> bool {
        labels.iter().any(|label| self.settings.labels.contains(&label.to_lowercase()))
    }

    /// Whether a repository is one of those that are looked at.
    fn owns(&self, repository: &str) -> bool {
        let of_org = |org: &String| repository.split('/').next().is_some_and(|owner| owner.eq_ignore_ascii_case(org));
        self.settings.allows(repository)
            && (self.settings.repositories.is_some() || self.settings.owner.iter().any(of_org))
    }

    /// The repositories to look at now. Where the webhook tells of jobs, these are those with jobs that have not ended; the others now and
    /// then.
    async fn due(&self) -> Result<Vec<String>> {
        let is_round = match self.github.discovery {
            Discovery::Poll => true,
            Discovery::Webhook => self.round.is_due(self.settings.poll_interval),
        };
        if !is_round {
            return Ok(self.seen.repositories().into_iter().collect());
        }
        self.repositories().await
    }

    /// What is in no list that was looked at and has not ended as far as we know: what has left them since, and what a webhook told
    /// before they did. Each is asked for itself.
    async fn catch_up(&self, present: &BTreeSet<i64>) -> Result<Vec<(String, Job)>> {
        let mut open = Vec::new();
        for (id, repository) in self.seen.missing(present) {
            open.extend(self.look_at(id, &repository).await?.map(|job| (repository, job)));
        }
        open.retain(|(_, job)| job.status != "completed");
        Ok(open)
    }

    async fn look_at(&self, id: i64, repository: &str) -> Result<Option<Job>> {
        match self.job(repository, id).await {
            Ok(job) => {
                self.seen.note(repository, &job);
                Ok(Some(job))
            }
            // Else every look would fail of one job that a webhook has told of.
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) || self.may_be_left_out(&failure) => {
                debug!(forge = self.settings.name, "job {id} is left out: {}", Error::from(failure).chain());
                self.seen.forget(id);
                Ok(None)
            }
            Err(failure) => Err(self.refused(failure)),
        }
    }

    async fn runners_at(&self, scope: &str, query: &str) -> Result<Vec<Registration>> {
        let path = format!("{scope}/actions/runners{query}");
        let runners =
            self.hub.pages(&path, |Runners { runners }| runners).await.map_err(|failure| self.refused(failure))?;
        Ok(runners.into_iter().map(|runner| runner.at(scope)).collect())
    }

    async fn group(&self, scope: &str) -> Result<i64> {
        match &self.github.group {
            Some(name) if scope.starts_with("orgs/") => {
                self.group.get_or_try_init(|| self.find_group(scope, name)).await.copied()
            }
            // Those of a repository are in no group that could be chosen.
            _ => Ok(DEFAULT_GROUP),
        }
    }

    async fn find_group(&self, scope: &str, wanted: &str) -> Result<i64> {
        let path = format!("{scope}/actions/runner-groups");
        let groups = self.hub.pages(&path, |Groups { runner_groups }| runner_groups).await;
        let groups = groups.map_err(|failure| self.refused(failure))?;
        let names = || groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = groups.iter().find(|group| group.name.eq_ignore_ascii_case(wanted));
        found.map(|group| group.id).ok_or_else(|| {
            Error::invalid(format!("there is no runner group {wanted} at {scope}: there is {}", names()))
        })
    }

    fn refused(&self, failure: Failure) -> Error {
        self.refused_without(failure, self.needs())
    }

    /// GitHub says 404 also of what a token may not see.
    fn refused_without(&self, failure: Failure, needs: &str) -> Error {
        let status = failure.status();
        let error = Error::from(failure);
        match status {
            Some(StatusCode::UNAUTHORIZED) => Error::forbidden(format!(
                "{} does not take the token: it was revoked, has expired, or is no access token",
                self.settings.url
            ))
            .with_source(error),
            Some(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                Error::forbidden(format!("{} does not let the token see or do this: {needs}", self.settings.url))
                    .with_source(error)
            }
            _ => error,
        }
    }

    /// What the token has to be allowed.
    fn needs(&self) -> &'static str {
        match (&self.settings.access, self.settings.depends_on_repository(), &self.settings.owner) {
            (Access::Token(_), false, _) => {
                "a classic one needs the scopes repo and admin:org, a fine-grained one the organisation's permission Self-hosted \
                 runners: write and the repositories' Actions: read"
            }
            (Access::Token(_), true, Some(_)) => {
                "a classic one needs the scopes repo and admin:org, a fine-grained one the organisation's permission Self-hosted \
                 runners: write and the repositories' Administration: write and Actions: read"
            }
            (Access::Token(_), true, None) => {
                "a classic one needs the scope repo, a fine-grained one the permissions Administration: write and Actions: read"
            }
            (Access::App(_), false, _) => {
                "the App needs the organisation's permission Self-hosted runners: write and the repositories' Actions: read"
            }
            (Access::App(_), true, _) => {
                "the App needs the repositories' permissions Administration: write and Actions: read"
            }
        }
    }
}

#[async_trait]
impl Forge for GitHub {
    async fn greet(&self) -> Result<String> {
        let mut scopes = self.scopes().await?;
        let all = scopes.len();
        scopes.truncate(1);
        for scope in &scopes {
            // `actions/list-self-hosted-runners-for-org`, `…-for-repo`: who may not see them may not make them.
            let has = self.hub.scopes(&format!("{scope}/actions/runners?per_page=1")).await;
            if let Some(has) = has.map_err(|failure| self.refused(failure))? {
                debug!(forge = self.settings.name, "the token has the scopes {has}");
            }
            self.group(scope).await?;
        }
        let who = self.who();
        let more = if all > 1 { format!(" and {} more", all - 1) } else { String::new() };
        let seconds = self.settings.poll_interval.as_secs();
        let asked = match self.github.discovery {
            Discovery::Poll => format!("every {seconds} s"),
            Discovery::Webhook => format!("when its webhook tells of jobs, and every {seconds} s,"),
        };
        Ok(format!(
            "{} is asked with {who} {asked} for workflow runs, and each runner gets a just-in-time configuration at {}{more}",
            self.github.api,
            scopes.concat()
        ))
    }

    async fn look(&self, registrations: &[Registration]) -> Result<Look> {
        let before = self.hub.counted();
        let repositories = self.due().await?;
        let found = stream::iter(repositories).map(|repository| self.jobs_of(repository)).buffered(AT_ONCE);
        let mut jobs: Vec<(String, Job)> = found.try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
        jobs.retain(|(_, job)| self.is_meant_for_us(&job.labels));
        jobs.extend(self.catch_up(&jobs.iter().map(|(_, job)| job.id).collect()).await?);
        jobs.sort_by_key(|(_, job)| job.id);
        let mut look = Look::default();
        for (repository, job) in &jobs {
            self.seen.note(repository, job);
            let labels = job.labels.iter().map(|label| label.to_lowercase()).collect();
            match job.status.as_str() {
                "queued" => {
                    let (since, job) = (job.since(), job.in_repository(repository));
                    look.queued.push(QueuedJob { job, labels, handle: None, since });
                }
                "in_progress" => look.running.push(RunningJob {
                    job: job.in_repository(repository),
                    runner: job.runner_name.clone(),
                    handle: None,
                }),
                _ => {}
            }
        }
        let scopes: BTreeSet<&str> = registrations.iter().map(|registration| registration.scope.as_str()).collect();
        for scope in scopes {
            let there = self.runners_at(scope, "").await?;
            look.registered.extend(there.into_iter().filter(|registration| registrations.contains(registration)));
        }
        self.cost.store(self.hub.counted() - before, Ordering::Relaxed);
        self.round.is_done();
        Ok(look)
    }

    async fn registrations(&self, prefix: &str, class: Option<&Class>) -> Result<Vec<Registration>> {
        let scopes = match class {
            Some(class) => vec![self.scope_of(class)?],
            None => self.scopes().await?,
        };
        let mut all = Vec::new();
        for scope in scopes {
            all.extend(self.runners_at(&scope, "").await?);
        }
        all.retain(|registration| registration.name.starts_with(prefix));
        Ok(all)
    }

    /// `actions/generate-runner-jitconfig-for-org`, `…-for-repo`.
    async fn mint(&self, order: &Order<'_>) -> Result<Minted> {
        let scope = self.scope_of(order.class)?;
        let body = json!({
            "name": order.name,
            "runner_group_id": self.group(&scope).await?,
            "labels": order.class.labels,
            "work_folder": "_work",
        });
        let path = format!("{scope}/actions/runners/generate-jitconfig");
        let made: JitConfig = match self.hub.post(limits::REGISTRATION, &path, &body).await {
            Ok(made) => made,
            Err(failure) => return Err(self.refused(failure)),
        };
        Ok(Minted { registration: made.runner.at(&scope), credential: Secret::new(made.encoded_jit_config) })
    }

    /// `actions/delete-self-hosted-runner-from-org`, `…-from-repo`.
    async fn deregister(&self, registration: &Registration) -> Result<()> {
        let path = format!("{}/actions/runners/{}", registration.scope, registration.id);
        match self.hub.delete(&path).await {
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(()),
            Err(failure) if failure.status() == Some(StatusCode::UNPROCESSABLE_ENTITY) => {
                info!(
                    forge = self.settings.name,
                    "GitHub says that {} still has a job: it takes the registration away when it has given that up",
                    registration.name
                );
                Ok(())
            }
            other => other.map_err(|failure| self.refused(failure)),
        }
    }

    /// By what the looks have seen: GitHub has no list of jobs by runner.
    async fn work_of(&self, registration: &Registration, _: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        if let Some(job) = self.seen.of_runner(&registration.name) {
            return Ok(Some(job));
        }
        // The oldest first, as GitHub hands them out.
        for (id, repository) in self.seen.missing(&BTreeSet::new()).into_iter().take(OLDEST) {
            self.look_at(id, &repository).await?;
            if let Some(job) = self.seen.of_runner(&registration.name) {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// `repos/get`. Whose job a runner is given nobody can say beforehand, so that nothing is asked of its run.
    async fn origin(&self, job: &ForgeJob) -> Result<Origin> {
        let path = format!("repos/{}", segments(&job.repository));
        let repository: Repository = self.hub.get(&path).await.map_err(|failure| self.refused(failure))?;
        Ok(Origin { is_of_fork: None, is_public: !repository.private, cache_scope: None })
    }

    /// Nobody can in a runner's name: it says so itself when it is told to end, and of one that is killed GitHub finds out.
    async fn give_up(&self, _: &ForgeJob, _: &Secret, _: &str) -> Result<()> {
        Ok(())
    }

    /// `actions/get-job-for-workflow-run`. Where a scale set told of a job, its number is not known here.
    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        if job.run.is_none() {
            return Ok(None);
        }
        let found = self.job(&job.repository, job.id).await.map_err(|failure| self.refused(failure))?;
        Ok(found.conclusion.filter(|conclusion| !conclusion.is_empty()))
    }

    /// In the environment, which the runner clears of it, and never as an argument, which everybody on the machine could read.
    fn plan(&self, _: &Order<'_>, minted: &Minted) -> Plan {
        let one = || Secret::new("1");
        Plan {
            arguments: Vec::new(),
            env: vec![
                ("ACTIONS_RUNNER_INPUT_JITCONFIG", minted.credential.clone()),
                // Without it the runner refuses to be root, as which an image may run it.
                ("RUNNER_ALLOW_RUNASROOT", one()),
                ("RUNNER_MANUALLY_TRAP_SIG", one()),
                ("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", one()),
            ],
            files: Vec::new(),
        }
    }

    async fn webhooks(&self) -> Result<Option<&dyn Webhooks>> {
        Ok(Some(self))
    }

    /// `JobExtension` of actions/runner calls it first, before containers are made, with the job's `GITHUB_…` variables.
    fn job_hook(&self) -> Option<&'static str> {
        Some("ACTIONS_RUNNER_HOOK_JOB_STARTED")
    }

    /// `repos/get-content`.
    async fn workflow(&self, job: &BegunJob) -> Result<Option<String>> {
        if !self.owns(&job.repository) {
            return Ok(None);
        }
        let (repository, path) = (segments(&job.repository), segments(&job.path));
        let path = format!("repos/{repository}/contents/{path}?ref={}", job.commit);
        let content: Content = self.hub.get(&path).await?;
        content.text().map(Some)
    }

    fn pause(&self, has_runners: bool) -> Duration {
        let wanted = self.settings.poll_interval;
        let wanted = if has_runners { wanted.min(FOLLOWED) } else { wanted };
        wanted.max(self.hub.limits.pause(self.cost.load(Ordering::Relaxed)))
    }

    fn hear(&self, job: &HookedJob) {
        if !job.has_ended && self.owns(&job.repository) && self.is_meant_for_us(&job.labels) {
            self.seen.hear(&job.repository, job.id);
        }
    }

    fn farewell(&self) -> Option<Duration> {
        Some(FAREWELL)
    }

    fn shape(&self) -> Shape {
        Shape::Folder
    }

    fn programs(&self) -> &'static [&'static str] {
        &["/home/runner/run.sh", "/actions-runner/run.sh"]
    }

    fn runner_image(&self) -> &'static str {
        "ghcr.io/actions/actions-runner:latest"
    }

    fn job_image(&self) -> &'static str {
        self.runner_image()
    }
}
