//! What the stand-in knows: agents, workflows, and Woodpecker's rules for them.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::REPOSITORY;
use crate::support::stand_in::Calls;

/// The row of an agent.
#[derive(Clone, Debug)]
pub struct Agent {
    pub id: i64,
    pub name: String,
    pub token: String,
    pub no_schedule: bool,
}

/// A step of a workflow.
#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    pub image: String,
    pub commands: Vec<String>,
    /// As of a plugin that the server lets have privileges (`WOODPECKER_PLUGINS_PRIVILEGED`).
    pub privileged: bool,
    /// User and password for its image's registry, as the server has them of the repository (`registries`).
    pub login: Option<(&'static str, &'static str)>,
}

impl Step {
    /// One that runs a command.
    pub fn of(name: &str, image: &str, command: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            commands: vec![command.to_owned()],
            privileged: false,
            login: None,
        }
    }
}

/// A workflow, alone in its pipeline.
#[derive(Clone, Debug)]
pub struct Workflow {
    pub id: i64,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub steps: Vec<Step>,
    /// A word of the API.
    pub state: &'static str,
    /// The row that has it, or had it last; 0 if none.
    pub agent: i64,
    pub started: bool,
    pub is_cancelled: bool,
    /// A step has failed: its agent tells of that with the step, not with the workflow's end.
    pub has_failed: bool,
    /// What steps and the workflow are shown with that did not run as they should.
    pub errors: Vec<String>,
    pub log: Vec<String>,
    pub handed_out: usize,
    extended: Option<Instant>,
}

impl Workflow {
    /// The number of its pipeline.
    pub fn pipeline(&self) -> i64 {
        self.id + 100
    }

    pub fn has_ended(&self) -> bool {
        !matches!(self.state, "pending" | "running")
    }

    /// Whether somebody has it now.
    pub fn is_held(&self) -> bool {
        self.extended.is_some() && !self.has_ended()
    }

    pub fn extend(&mut self) {
        self.extended = Some(Instant::now());
    }

    /// What the agent gets (`pipeline/backend/types`): a stage for each step.
    pub fn payload(&self) -> Value {
        let volume = format!("wp_{}_default", self.id);
        let step = |(number, step): (usize, &Step)| {
            let (username, password) = step.login.unwrap_or_default();
            json!({"steps": [{
                "name": step.name, "uuid": self.uuid(number), "type": "commands", "image": step.image, "commands": step.commands,
                "entrypoint": ["/bin/sh", "-c", "echo $CI_SCRIPT | base64 -d | /bin/sh -e"],
                "privileged": step.privileged, "on_success": true, "failure": "fail", "workspace_base": "/woodpecker",
                "working_dir": "/woodpecker/src", "volumes": [format!("{volume}:/woodpecker")],
                "networks": [{"name": volume, "aliases": [step.name]}],
                "auth_config": {"username": username, "password": password},
                "environment": {"CI_REPO": REPOSITORY, "CI_PIPELINE_NUMBER": self.pipeline().to_string()},
            }]})
        };
        let stages: Vec<Value> = self.steps.iter().enumerate().map(step).collect();
        json!({"pipeline": stages, "network": volume, "volume": volume, "secrets": []})
    }

    fn uuid(&self, step: usize) -> String {
        format!("00000000-0000-4000-8000-{:06}{step:06}", self.id)
    }

    pub fn owns(&self, uuid: &str) -> bool {
        (0..self.steps.len()).any(|step| self.uuid(step) == uuid)
    }
}

/// Everything.
pub struct World {
    pub agents: Vec<Agent>,
    pub workflows: Vec<Workflow>,
    /// Of the protocol.
    pub version: i32,
    /// After how long without a sign a workflow is another one's (`shared/constant.TaskTimeout`).
    pub lease: Duration,
    /// Nobody is given anything, although it waits.
    pub is_slow: bool,
    /// What was asked, and answers that come instead of the true ones.
    pub calls: Calls,
    counter: i64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            agents: Vec::new(),
            workflows: Vec::new(),
            version: 16,
            lease: Duration::from_secs(60),
            is_slow: false,
            calls: Calls::default(),
            counter: 0,
        }
    }
}

impl World {
    /// A workflow of which nobody has said anything for long waits again.
    pub fn tick(&mut self) {
        for workflow in &mut self.workflows {
            if !workflow.has_ended() && workflow.extended.is_some_and(|extended| extended.elapsed() > self.lease) {
                (workflow.extended, workflow.agent, workflow.state, workflow.started) = (None, 0, "pending", false);
                workflow.has_failed = false;
            }
        }
    }

    pub fn next(&mut self) -> i64 {
        self.counter += 1;
        self.counter
    }

    /// Labels beside those that every workflow has.
    pub fn push(&mut self, name: &str, labels: &[(&str, &str)], steps: Vec<Step>) -> i64 {
        let id = self.next();
        let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
        let all = [("repo", REPOSITORY), ("org-id", "1"), ("platform", platform), ("backend", "docker")];
        let labels = all.iter().chain(labels).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.workflows.push(Workflow {
            id,
            name: name.to_owned(),
            labels,
            steps,
            state: "pending",
            agent: 0,
            started: false,
            is_cancelled: false,
            has_failed: false,
            errors: Vec::new(),
            log: Vec::new(),
            handed_out: 0,
            extended: None,
        });
        id
    }

    pub fn workflow(&self, id: i64) -> Option<&Workflow> {
        self.workflows.iter().find(|workflow| workflow.id == id)
    }

    pub fn workflow_mut(&mut self, id: i64) -> Option<&mut Workflow> {
        self.workflows.iter_mut().find(|workflow| workflow.id == id)
    }

    pub fn agent(&self, token: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.token == token)
    }

    /// The oldest that all labels of the agent cover (`server/scheduler/filter.go`); the server's own go before.
    pub fn give(&mut self, agent: i64, filter: &HashMap<String, String>) -> Option<&Workflow> {
        if self.is_slow {
            return None;
        }
        let value = |name: &str| if name == "org-id" { Some("*") } else { filter.get(name).map(String::as_str) };
        let fits = |workflow: &Workflow| {
            workflow
                .labels
                .iter()
                .all(|(name, wanted)| value(name).is_some_and(|value| value == "*" || value == wanted))
        };
        let found = self.workflows.iter_mut().find(|workflow| {
            workflow.state == "pending" && !workflow.is_held() && !workflow.is_cancelled && fits(workflow)
        })?;
        found.agent = agent;
        found.handed_out += 1;
        found.extend();
        Some(found)
    }

    /// As a user does: its agent hears of it.
    pub fn cancel(&mut self, id: i64) {
        let Some(workflow) = self.workflow_mut(id).filter(|workflow| !workflow.has_ended()) else { return };
        workflow.is_cancelled = true;
        if !workflow.is_held() {
            workflow.state = "canceled";
        }
    }
}
