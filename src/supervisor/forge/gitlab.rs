//! GitLab: the lists of jobs of the projects that its runner serves are asked for jobs that wait, and `gitlab-runner run-single` with the
//! docker executor takes one of them. GitLab hands a job to whoever asks with the runner's token, so all runners are alike: slots.
//!
//! After GitLab's `lib/api/ci/{runner,runners,jobs}.rb`, and gitlab-runner's `commands/single.go` and `common/config.go`.

mod answers;
mod config;
mod overlooked;
mod slots;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::warn;

use self::{
    answers::{Job, Numbered, Project, Runner, Version},
    overlooked::Overlooked,
    slots::Slots,
};
use super::{
    FOLDER, Forge, Look, Minted, Order, Plan, PlannedFile, QueuedJob, Quit, RunningJob, Steps,
    http::{Api, LONGEST, Refusal, segments, version_number},
};
use crate::{
    model::{Error, ErrorKind, Result},
    supervisor::{
        balance::Class,
        record::{ForgeJob, Registration},
        secret::Secret,
        settings::{Access, ForgeSettings, Gitlab},
    },
};

/// The first version that tells of a job which of a runner's managers has it: without that, others' jobs could be taken for ours.
const SINCE: (u64, u64) = (17, 1);

/// Entries of a list that are asked for: GitLab gives no more.
const PAGE: usize = 100;

/// Projects that are looked at, those with the latest activity first.
const PROJECTS: usize = PAGE;

/// Projects that are asked at once.
const AT_ONCE: usize = 6;

/// How long a project's list of jobs may be, in bytes: several are read at once, and commits' messages are in them.
const LIST: usize = 4 << 20;

/// How long a look goes on to the next project.
const LOOK: Duration = Duration::from_secs(45);

/// Between two looks for each project: GitLab lets a user list jobs 600 times a minute (`project_jobs_api_rate_limit`).
const PER_PROJECT: Duration = Duration::from_millis(150);

/// How long it is remembered which projects there are.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Jobs that are looked through for the last one of a slot.
const NEWEST: usize = 20;

/// How long the runner waits for a job, in seconds: less than a launch, so that it ends by itself and loses none.
const WAIT: &str = "300";

/// How long the runner may take to fail its job and to say so: its own limit (`common.DefaultShutdownTimeout`).
const FAREWELL: Duration = Duration::from_secs(30);

/// A server, and a runner that was made there.
pub struct GitLab {
    api: Api,
    runner: Secret,
    settings: ForgeSettings,
    slots: Arc<Slots>,
    known: Mutex<Option<Known>>,
    /// Projects that did not tell their jobs at the last look.
    left_out: Mutex<BTreeSet<i64>>,
    overlooked: Mutex<Overlooked>,
}

/// What is looked at.
#[derive(Clone)]
struct Known {
    at: Instant,
    runner: Runner,
    projects: Vec<Project>,
}

impl GitLab {
    /// The one that is configured; launches of an `earlier` configuration go on in their slots.
    pub fn new(settings: &ForgeSettings, gitlab: &Gitlab, earlier: Option<&Self>) -> Result<Self> {
        let Access::Token(token) = &settings.access else {
            return Err(Error::invalid(format!("[{}]: api_token is missing", settings.name)));
        };
        Ok(Self {
            api: Api::of_bearer(settings, token)?,
            runner: gitlab.runner.clone(),
            settings: settings.clone(),
            slots: earlier.map(|earlier| earlier.slots.clone()).unwrap_or_default(),
            known: Mutex::default(),
            left_out: Mutex::default(),
            overlooked: Mutex::default(),
        })
    }

    /// The number of the runner whose token we have. It also tells that a slot is there, if one is named.
    async fn verify(&self, slot: Option<&str>) -> Result<i64> {
        let body = json!({"token": self.runner.reveal(), "system_id": slot});
        let verified: Numbered =
            self.api.call(Method::POST, "api/v4/runners/verify", Some(&body)).await.map_err(|refusal| {
                self.said(
                    refusal,
                    StatusCode::FORBIDDEN,
                    "does not take token: it has to be the authentication token of a \
                    runner (glrt-…), and that runner has to be there",
                )
            })?;
        Ok(verified.id)
    }

    fn said(&self, refusal: Refusal, status: StatusCode, words: &str) -> Error {
        if refusal.status != Some(status) {
            return refusal.into();
        }
        Error::forbidden(format!("{} {words}", self.settings.url)).with_source(Error::from(refusal))
    }

    /// A refusal of what is asked with `api_token`.
    fn refused(&self, refusal: Refusal) -> Error {
        match refusal.status {
            Some(status @ StatusCode::UNAUTHORIZED) => {
                self.said(refusal, status, "does not take api_token: it was revoked, has expired, or is no access token")
            }
            Some(status @ (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)) => self.said(
                refusal,
                status,
                "does not let api_token see or do this: it needs the scope api, and the role Maintainer where the runner is",
            ),
            _ => refusal.into(),
        }
    }

    async fn known(&self) -> Result<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.at.elapsed() < REMEMBERED) {
            return Ok(known);
        }
        let id = self.verify(None).await?;
        let runner: Runner =
            self.api.get(&format!("api/v4/runners/{id}")).await.map_err(|refusal| self.refused(refusal))?;
        let known = Known { at: Instant::now(), projects: self.projects_of(&runner).await?, runner };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }

    /// The projects whose jobs the runner takes, as far as the token sees them.
    async fn projects_of(&self, runner: &Runner) -> Result<Vec<Project>> {
        let newest = format!("simple=true&archived=false&order_by=last_activity_at&sort=desc&per_page={PROJECTS}");
        let lists = match runner.runner_type.as_str() {
            "project_type" => return Ok(runner.projects.iter().take(PROJECTS).cloned().collect()),
            "group_type" => {
                let of =
                    |group: &Numbered| format!("api/v4/groups/{}/projects?include_subgroups=true&{newest}", group.id);
                runner.groups.iter().map(of).collect()
            }
            _ => vec![format!("api/v4/projects?{newest}")],
        };
        let mut projects = Vec::new();
        for list in lists {
            projects.extend(self.api.get::<Vec<Project>>(&list).await.map_err(|refusal| self.refused(refusal))?);
        }
        projects.truncate(PROJECTS);
        Ok(projects)
    }

    /// What waits or runs of a project.
    async fn jobs_of(&self, project: Project) -> (Project, Result<Vec<Job>, Refusal>) {
        let path = format!("api/v4/projects/{}/jobs?scope[]=pending&scope[]=running", project.id);
        let jobs = self.newest(&path, PAGE, LIST).await;
        (project, jobs)
    }

    /// The newest of a list, whose path ends in its query: fewer of them if they are too long together.
    async fn newest<T: DeserializeOwned>(&self, list: &str, most: usize, longest: usize) -> Result<Vec<T>, Refusal> {
        let mut count = most;
        loop {
            match self.api.get_within(&format!("{list}&per_page={count}"), longest).await {
                Err(refusal) if refusal.is_too_long && count > 1 => count = (count / 10).max(1),
                answer => return answer,
            }
        }
    }

    /// To a runner that is paused no job is given.
    fn check_goes_on(&self, runner: &Runner) -> Result<()> {
        if !runner.paused {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "the runner {} ({}) is paused at {}: no job is given to it",
            runner.id,
            runner.whose(),
            self.settings.url
        )))
    }

    /// The jobs of the projects that tell theirs. One that does not, such as one without CI, is no reason to leave the others alone: it is
    /// left out, and that is said once. Fails if none does.
    fn told(&self, found: Vec<(Project, Result<Vec<Job>, Refusal>)>) -> Result<Vec<(Project, Job)>> {
        let (mut told, mut failed) = (Vec::new(), Vec::new());
        let count = found.len();
        for (project, answer) in found {
            match answer {
                Ok(jobs) => told.extend(jobs.into_iter().map(|job| (project.clone(), job))),
                Err(refusal) if refusal.status == Some(StatusCode::UNAUTHORIZED) => return Err(self.refused(refusal)),
                Err(refusal) => failed.push((project, refusal)),
            }
        }
        if failed.len() == count
            && let Some((_, refusal)) = failed.pop()
        {
            return Err(self.refused(refusal));
        }
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        for (project, refusal) in failed.iter().filter(|(project, _)| !left_out.contains(&project.id)) {
            let (forge, path) = (&self.settings.name, &project.path_with_namespace);
            warn!(
                forge,
                "{forge}: {path} is left out, its jobs get no runner as long as its list of jobs is not to be had: {refusal}"
            );
        }
        *left_out = failed.iter().map(|(project, _)| project.id).collect();
        Ok(told)
    }

    /// The job that a slot was given last; none if not even that one can be read, which is no reason to leave the slot alone for ever: what is
    /// so long (its commit's message is in it) is in no other list that is read either, and nobody takes it for a later one.
    async fn last_job_of(&self, runner: i64, slot: &str) -> Result<Option<Job>> {
        let path = format!("api/v4/runners/{runner}/jobs?system_id={slot}&order_by=id&sort=desc");
        let jobs: Vec<Job> = match self.newest(&path, NEWEST, LONGEST).await {
            Err(refusal) if refusal.is_too_long => {
                let forge = &self.settings.name;
                warn!(forge, "{forge}: the last job of the runner in slot {slot} is not known: {refusal}");
                return Ok(None);
            }
            answer => answer.map_err(|refusal| self.refused(refusal))?,
        };
        // RFC 3339 of one server: its order is that of its letters.
        Ok(jobs.into_iter().max_by(|a, b| a.started_at.cmp(&b.started_at)))
    }

    /// No runner is launched for jobs that one was not given before.
    fn leave_alone_overlooked(&self, look: &mut Look, registrations: &[Registration]) {
        let mut overlooked = self.overlooked.lock().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<&str> = look.running.iter().filter_map(|running| running.runner.as_deref()).collect();
        let busy = registrations.iter().filter(|registration| names.contains(registration.name.as_str()));
        let pending = look.queued.iter().map(|queued| queued.job.id).collect();
        overlooked.saw(&pending, busy.map(|registration| registration.scope.as_str()));
        let now = Instant::now();
        look.queued.retain(|queued| !overlooked.is_held(queued.job.id, now));
    }

    /// Whether the server is one that we understand.
    async fn check_version(&self) -> Result<()> {
        let Version { version } = self.api.get("api/v4/version").await.map_err(|refusal| self.refused(refusal))?;
        if version_number(&version) >= Some(SINCE) {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "{} is GitLab {version}: it has to be {}.{} or later, which tells which manager of a runner has a job",
            self.settings.url, SINCE.0, SINCE.1
        )))
    }

    async fn job(&self, job: &ForgeJob) -> Result<Job> {
        self.api.get(&path_of(job)).await.map_err(|refusal| self.refused(refusal))
    }

    /// Answers the job as it is then.
    async fn cancel(&self, job: &ForgeJob, query: &str) -> Result<Job> {
        let path = format!("{}/cancel{query}", path_of(job));
        self.api.call(Method::POST, &path, None::<&()>).await.map_err(|refusal| self.refused(refusal))
    }
}

fn path_of(job: &ForgeJob) -> String {
    format!("api/v4/projects/{}/jobs/{}", segments(&job.repository).replace('/', "%2F"), job.id)
}

#[async_trait]
impl Forge for GitLab {
    async fn greet(&self) -> Result<String> {
        self.check_version().await?;
        let Known { runner, projects, .. } = self.known().await?;
        self.check_goes_on(&runner)?;
        let tags = match (runner.tag_list.join(", "), runner.run_untagged) {
            (tags, true) if tags.is_empty() => "jobs without tags".to_owned(),
            (tags, true) => format!("jobs without tags, or of {tags}"),
            (tags, false) => format!("jobs of the tags {tags}"),
        };
        Ok(format!(
            "{} has the {} runner {} ({}) for {tags}: the jobs of {} are asked for, and each one gets gitlab-runner run-single in a \
             slot of that runner",
            self.settings.url,
            runner.scope(),
            runner.id,
            runner.whose(),
            if projects.len() == 1 { "1 project".to_owned() } else { format!("{} projects", projects.len()) },
        ))
    }

    async fn look(&self, registrations: &[Registration]) -> Result<Look> {
        self.slots.are_used(registrations.iter().map(|registration| registration.scope.as_str()));
        let Known { runner, projects, .. } = self.known().await?;
        // Jobs that run go on, and are followed.
        if registrations.is_empty() {
            self.check_goes_on(&runner)?;
        }
        let found = stream::iter(projects).map(|project| self.jobs_of(project)).buffer_unordered(AT_ONCE);
        let mut jobs = self.told(found.take_until(tokio::time::sleep(LOOK)).collect().await)?;
        jobs.sort_by_key(|(_, job)| job.id);
        // A slot is no registration: nothing at GitLab can be gone of it.
        let mut look = Look { registered: registrations.to_vec(), ..Look::default() };
        for (project, job) in &jobs {
            if let Some(registration) = registrations.iter().find(|registration| job.is_of(runner.id, registration)) {
                let runner = Some(registration.name.clone());
                look.running.push(RunningJob { job: job.of(project), runner, handle: None });
            } else if job.status == "pending" && job.system_id().is_none() && runner.takes(&job.tag_list) {
                // Tags are the runner's at GitLab, and every slot has all of them.
                look.queued.push(QueuedJob { job: job.of(project), labels: Vec::new(), handle: None, since: None });
            }
        }
        self.leave_alone_overlooked(&mut look, registrations);
        Ok(look)
    }

    /// There are none of launches: all share the one that is configured.
    async fn registrations(&self, _: &str, _: Option<&Class>) -> Result<Vec<Registration>> {
        Ok(Vec::new())
    }

    /// A slot, whose last job is noted, so that the next one can be told from it. A runner whose token is wrong would never end.
    async fn mint(&self, order: &Order<'_>) -> Result<Minted> {
        let slot = self.slots.take(order.name);
        let last = async { self.last_job_of(self.verify(Some(&slot)).await?, &slot).await };
        let last = last.await.inspect_err(|_| self.slots.give_back(&slot))?;
        let registration =
            Registration { id: last.map_or(0, |job| job.id), name: order.name.to_owned(), scope: slot.clone() };
        self.overlooked.lock().unwrap_or_else(PoisonError::into_inner).begins(&slot, Instant::now());
        Ok(Minted { registration, credential: Secret::new(slot) })
    }

    async fn deregister(&self, registration: &Registration) -> Result<()> {
        self.slots.give_back(&registration.scope);
        let mut overlooked = self.overlooked.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, pause) in overlooked.ends(&registration.scope, Instant::now()) {
            let (forge, minutes) = (&self.settings.name, pause.as_secs() / 60);
            warn!(
                forge,
                job,
                "{forge}: a runner waited for job {job} and was not given it; the next is launched for it in {minutes} min: may the runner run it \
                 (protected branches, locked to other projects)?"
            );
        }
        Ok(())
    }

    async fn work_of(&self, registration: &Registration, _: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        let runner = self.known().await?.runner.id;
        let last = self.last_job_of(runner, &registration.scope).await?.filter(|job| job.id != registration.id);
        let Some(last) = last.and_then(|job| Some(job.of(job.project.as_ref()?))) else { return Ok(None) };
        // That list does not tell whose a job is.
        let is_its = self.job(&last).await?.is_of(runner, registration);
        Ok(is_its.then_some(last))
    }

    /// GitLab would wait an hour for it. A job that waits for its runner to cancel it would wait for half of one.
    async fn give_up(&self, job: &ForgeJob, _: &Secret, _: &str) -> Result<()> {
        if self.cancel(job, "").await?.status != "canceling" {
            return Ok(());
        }
        match self.cancel(job, "?force=true").await {
            // By who may cancel and is no maintainer.
            Err(error) if error.kind() == ErrorKind::Forbidden => Ok(()),
            other => other.map(drop),
        }
    }

    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        Ok(self.job(job).await?.conclusion())
    }

    fn plan(&self, order: &Order<'_>, minted: &Minted) -> Plan {
        let image = match order.steps {
            Steps::In(image) => image,
            // It is not let be configured.
            Steps::Here => self.job_image(),
        };
        let config = config::of(order.name, &self.settings.url, &self.runner, image);
        let path = format!("{FOLDER}/config.toml");
        let arguments =
            ["run-single", "--config", &path, "--runner", order.name, "--max-builds", "1", "--wait-timeout", WAIT];
        Plan {
            arguments: arguments.map(str::to_owned).to_vec(),
            env: Vec::new(),
            files: vec![
                PlannedFile { name: "config.toml", content: config },
                PlannedFile { name: ".runner_system_id", content: minted.credential.clone() },
            ],
        }
    }

    fn pause(&self, _: bool) -> Duration {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let projects = known.as_ref().map_or(0, |known| known.projects.len());
        self.settings.poll_interval.max(PER_PROJECT * u32::try_from(projects).unwrap_or(u32::MAX))
    }

    fn farewell(&self) -> Option<Duration> {
        Some(FAREWELL)
    }

    fn quit(&self) -> Quit {
        Quit::Signalled("SIGQUIT")
    }

    fn programs(&self) -> &'static [&'static str] {
        &["/usr/bin/gitlab-runner", "/usr/local/bin/gitlab-runner"]
    }

    fn runner_image(&self) -> &'static str {
        "docker.io/gitlab/gitlab-runner:latest"
    }

    fn job_image(&self) -> &'static str {
        "docker.io/library/alpine:latest"
    }
}
