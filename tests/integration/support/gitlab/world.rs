//! What the stand-in knows: one runner with its managers, jobs, and GitLab's rules for them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::stand_in::Calls;

/// The number of the one runner.
pub const RUNNER: i64 = 7;

/// A job of a pipeline.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: i64,
    pub name: String,
    pub script: String,
    pub tags: Vec<String>,
    pub image: Option<String>,
    /// Name and alias.
    pub services: Vec<(String, String)>,
    pub variables: Vec<(String, String)>,
    /// A word of the API.
    pub status: &'static str,
    pub reason: String,
    pub trace: Vec<u8>,
    /// The manager that has it, by its system id.
    pub manager: Option<String>,
    /// Whether that one ends a job by itself that is cancelled.
    pub cancels_gracefully: bool,
    /// The runner of that manager.
    pub runner: i64,
    /// Of the commit, which lists of jobs also tell.
    pub message: String,
    /// Counts what is started.
    pub started: usize,
}

impl Job {
    /// One that asks for nothing.
    pub fn of(name: &str, script: &str) -> Self {
        Self {
            id: 0,
            name: name.to_owned(),
            script: script.to_owned(),
            tags: Vec::new(),
            image: None,
            services: Vec::new(),
            variables: Vec::new(),
            status: "pending",
            reason: String::new(),
            trace: Vec::new(),
            manager: None,
            runner: RUNNER,
            message: String::new(),
            cancels_gracefully: false,
            started: 0,
        }
    }

    pub fn token(&self) -> String {
        format!("glcbt-of-job-{}", self.id)
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.status, "success" | "failed" | "canceled")
    }
}

/// Everything.
pub struct World {
    pub version: &'static str,
    /// Projects that the runner serves beside the one; they are not there.
    pub gone: Vec<(i64, &'static str)>,
    pub jobs: Vec<Job>,
    pub paused: bool,
    /// Jobs are shown as pending, and nobody is given one.
    pub is_slow: bool,
    pub run_untagged: bool,
    pub tags: Vec<String>,
    /// Of the runner: `project_type`, `group_type` or `instance_type`.
    pub runner_type: &'static str,
    /// GitLab keeps one for each system id that has ever asked.
    pub managers: BTreeSet<String>,
    /// What was asked, and answers that come instead of the true ones.
    pub calls: Calls,
    counter: i64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            version: "18.5.0-ee",
            gone: Vec::new(),
            jobs: Vec::new(),
            paused: false,
            is_slow: false,
            run_untagged: true,
            tags: vec!["lab".to_owned()],
            runner_type: "project_type",
            managers: BTreeSet::new(),
            calls: Calls::default(),
            counter: 0,
        }
    }
}

impl World {
    pub fn push(&mut self, job: Job) -> i64 {
        self.counter += 1;
        self.jobs.push(Job { id: self.counter, ..job });
        self.counter
    }

    pub fn job(&self, id: i64) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }

    pub fn job_mut(&mut self, id: i64) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.id == id)
    }

    /// Hands out the oldest job that the runner's tags cover, to one asker alone. One that announces the two-phase commit says later
    /// that it has it (`runner_ack_queue.rb`).
    pub fn give(&mut self, system_id: &str, features: &Value) -> Option<Value> {
        if self.paused || self.is_slow {
            return None;
        }
        let (tags, untagged) = (self.tags.clone(), self.run_untagged);
        let fits =
            |job: &Job| if job.tags.is_empty() { untagged } else { job.tags.iter().all(|tag| tags.contains(tag)) };
        let started = self.jobs.iter().map(|job| job.started).max().unwrap_or(0) + 1;
        let job = self.jobs.iter_mut().find(|job| job.status == "pending" && job.manager.is_none() && fits(job))?;
        job.manager = Some(system_id.to_owned());
        job.cancels_gracefully = features["cancel_gracefully"] == true;
        job.started = started;
        if features["two_phase_job_commit"] != true {
            job.status = "running";
        }
        Some(described(job))
    }

    /// As a user does, or somebody in a user's name.
    pub fn cancel(&mut self, id: i64, force: bool) {
        let Some(job) = self.job_mut(id).filter(|job| !job.has_ended()) else { return };
        let may_end_itself = job.status == "running" && job.cancels_gracefully;
        job.status = if may_end_itself && !force { "canceling" } else { "canceled" };
    }
}

/// The payload of a job (`lib/api/entities/ci/job_request`).
fn described(job: &Job) -> Value {
    let variables = job.variables.iter().map(|(key, value)| json!({"key": key, "value": value, "public": true}));
    let variables: Vec<Value> =
        variables.chain([json!({"key": "GIT_STRATEGY", "value": "none", "public": true})]).collect();
    let services: Vec<Value> = job.services.iter().map(|(name, alias)| json!({"name": name, "alias": alias})).collect();
    json!({
        "id": job.id, "token": job.token(), "allow_git_fetch": true, "variables": variables, "services": services,
        "job_info": {"id": job.id, "name": job.name, "stage": "test", "project_id": 1, "project_name": "tool"},
        "runner_info": {"timeout": 3600}, "image": job.image.as_ref().map(|name| json!({"name": name})),
        "steps": [{"name": "script", "script": [job.script], "timeout": 3600, "when": "on_success", "allow_failure": false}],
        "artifacts": [], "cache": [], "credentials": [], "dependencies": [], "features": {"trace_sections": true},
    })
}
