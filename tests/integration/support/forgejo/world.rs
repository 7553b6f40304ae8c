//! What the stand-in knows: runners, jobs, and Forgejo's rules for both (`services/actions`, `models/actions/task.go`).

use super::messages::{FetchSingleTaskRequest, RESULTS, RUNS, Runner, TaskState, UpdateLogRequest};
use crate::support::stand_in::Calls;

/// A registered runner.
#[derive(Clone)]
pub struct Row {
    pub scope: String,
    pub token: String,
    pub runner: Runner,
    /// An ephemeral one has one task for ever.
    pub had_task: bool,
}

/// A job of a workflow.
#[derive(Clone)]
pub struct Job {
    pub id: i64,
    pub repository: usize,
    pub name: String,
    pub handle: String,
    pub runs_on: Vec<String>,
    pub script: String,
    /// Of a pull request of a fork.
    pub is_of_fork: bool,
    /// What it runs for: `refs/heads/…`, `refs/tags/…`, `refs/pull/NUMBER/head`.
    pub git_ref: String,
    /// Its container, as its workflow has it.
    pub container: serde_json::Value,
    /// A word of the API.
    pub status: &'static str,
    pub task: Option<i64>,
    /// The runner that has it, by its uuid.
    pub runner: Option<String>,
    pub log: Vec<String>,
    pub log_is_closed: bool,
}

impl Job {
    /// The number of its workflow's run.
    pub fn run(&self) -> i64 {
        self.id + 1000
    }
}

/// Everything.
#[derive(Default)]
pub struct World {
    pub repositories: Vec<String>,
    pub runners: Vec<Row>,
    pub jobs: Vec<Job>,
    /// Repositories that everybody sees.
    pub public: Vec<String>,
    /// Each kind is counted from 1, so a job and its task may have one number.
    pub runners_made: i64,
    pub tasks_made: i64,
    /// It is a Forgejo 12: without a list of jobs, runners of the API, handles and ephemeral runners.
    pub is_old: bool,
    /// What was asked, and answers that come instead of the true ones.
    pub calls: Calls,
}

/// The runner is not known, or not that task's.
pub struct Unknown;

impl World {
    /// If there is such a scope.
    pub fn knows(&self, scope: &str) -> bool {
        match scope.split_once('/') {
            None => matches!(scope, "admin" | "user"),
            Some(("repos", name)) => self.repositories.iter().any(|repository| repository == name),
            Some(_) => false,
        }
    }

    /// If a job is of `admin`, `repos/OWNER/NAME`, `orgs/OWNER` or `user`.
    pub fn is_of(&self, job: &Job, scope: &str) -> bool {
        let repository = &self.repositories[job.repository];
        match scope.split_once('/') {
            None => true,
            Some(("repos", name)) => name == repository,
            Some((_, owner)) => repository.split_once('/').is_some_and(|(of, _)| of == owner),
        }
    }

    /// A new runner of a scope, and its token.
    pub fn register(&mut self, scope: &str, name: String, ephemeral: bool) -> (Runner, String) {
        self.runners_made += 1;
        let id = self.runners_made;
        let (uuid, token) = (format!("00000000-0000-4000-8000-{id:012}"), format!("{id:040x}"));
        let runner = Runner { id, uuid, name, ephemeral, ..Runner::default() };
        self.runners.push(Row {
            scope: scope.to_owned(),
            token: token.clone(),
            runner: runner.clone(),
            had_task: false,
        });
        (runner, token)
    }

    pub fn row(&mut self, uuid: &str, token: &str) -> Option<&mut Row> {
        self.runners.iter_mut().find(|row| row.runner.uuid == uuid && row.token == token)
    }

    /// Gives a waiting job to a runner whose labels cover it, and with a handle only that one.
    pub fn assign(&mut self, uuid: &str, asked: &FetchSingleTaskRequest) -> Option<Job> {
        let row = self.runners.iter().find(|row| row.runner.uuid == uuid)?.clone();
        if row.runner.ephemeral && row.had_task {
            return None;
        }
        let is_for_it = |job: &Job| {
            job.status == "waiting"
                && asked.handle.as_ref().is_none_or(|handle| *handle == job.handle)
                && job.runs_on.iter().all(|label| row.runner.labels.contains(label))
                && self.is_of(job, &row.scope)
        };
        let found = self.jobs.iter().position(is_for_it)?;
        self.tasks_made += 1;
        let (task, job) = (self.tasks_made, &mut self.jobs[found]);
        (job.status, job.task, job.runner) = ("running", Some(task), Some(uuid.to_owned()));
        let job = job.clone();
        self.row_of(uuid)?.had_task = true;
        Some(job)
    }

    fn row_of(&mut self, uuid: &str) -> Option<&mut Row> {
        self.runners.iter_mut().find(|row| row.runner.uuid == uuid)
    }

    fn job_of(&mut self, uuid: &str, task: i64) -> Result<&mut Job, Unknown> {
        let is_its = |job: &&mut Job| job.task == Some(task) && job.runner.as_deref() == Some(uuid);
        self.jobs.iter_mut().find(is_its).ok_or(Unknown)
    }

    /// An ephemeral runner's row goes in the call that ends its task. What has ended stays as it was.
    pub fn update_task(&mut self, uuid: &str, state: &TaskState) -> Result<TaskState, Unknown> {
        let job = self.job_of(uuid, state.id)?;
        if job.status == "running" && state.result != RUNS {
            let word = usize::try_from(state.result).ok().and_then(|result| RESULTS.get(result)).ok_or(Unknown)?;
            job.status = word;
        }
        let result = RESULTS.iter().position(|word| *word == job.status).and_then(|result| i32::try_from(result).ok());
        if job.status != "running" {
            self.forget_ephemeral(uuid);
        }
        Ok(TaskState { id: state.id, result: result.unwrap_or(RUNS) })
    }

    pub fn forget_ephemeral(&mut self, uuid: &str) {
        self.runners.retain(|row| row.runner.uuid != uuid || !row.runner.ephemeral);
    }

    /// Takes the rows that are new; how many there are now.
    pub fn update_log(&mut self, uuid: &str, sent: &UpdateLogRequest) -> Result<i64, Unknown> {
        let job = self.job_of(uuid, sent.task_id)?;
        let (index, there) = (usize::try_from(sent.index).map_err(|_| Unknown)?, job.log.len());
        let is_new = !sent.rows.is_empty() && index <= there && index + sent.rows.len() > there;
        if is_new {
            if job.log_is_closed {
                return Err(Unknown);
            }
            job.log.extend(sent.rows[there - index..].iter().map(|row| row.content.clone()));
        }
        // With an empty list it is passed over.
        job.log_is_closed |= sent.no_more && !sent.rows.is_empty();
        i64::try_from(job.log.len()).map_err(|_| Unknown)
    }

    /// As a user does: the runner hears nothing of it.
    pub fn cancel(&mut self, id: i64) {
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else { return };
        job.status = "cancelled";
        if let Some(uuid) = job.runner.clone() {
            self.forget_ephemeral(&uuid);
        }
    }
}
