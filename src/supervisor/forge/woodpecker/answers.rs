//! Woodpecker's answers, as far as they are read (`server/model`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::supervisor::record::ForgeJob;

/// `GET /version`.
#[derive(Deserialize)]
pub struct Version {
    pub version: String,
}

/// `GET /api/user`.
#[derive(Deserialize)]
pub struct User {
    pub login: String,
    #[serde(default)]
    pub admin: bool,
}

/// One of `GET /api/agents`; the answer to `POST /api/agents`.
#[derive(Deserialize)]
pub struct Agent {
    pub id: i64,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub token: String,
}

/// `GET /api/queue/info`.
#[derive(Deserialize)]
pub struct Queue {
    #[serde(default)]
    pub pending: Option<Vec<Task>>,
    #[serde(default)]
    pub running: Option<Vec<Task>>,
    #[serde(default)]
    pub paused: bool,
}

/// A workflow in the queue.
#[derive(Deserialize)]
pub struct Task {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub agent_id: i64,
    #[serde(default)]
    pub repo_id: i64,
    #[serde(default)]
    pub pipeline_number: i64,
}

/// `GET /api/repos/:repo/pipelines/:number`.
#[derive(Deserialize)]
pub struct Pipeline {
    #[serde(default)]
    pub workflows: Option<Vec<Workflow>>,
}

/// One of them.
#[derive(Deserialize)]
pub struct Workflow {
    pub id: i64,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub agent_id: i64,
}

/// Labels that say of every task whose it is.
const OF_REPOSITORY: [&str; 2] = ["repo", "org-id"];

/// What Woodpecker keeps for itself begins so.
const INTERNAL: &str = "woodpecker-ci.org";

impl Task {
    /// What it asks for that not every agent of ours is: `name=value`, as `labels` has them.
    pub fn wanted(&self, platform: &str) -> Vec<String> {
        let is_ours = |name: &str, value: &str| {
            value.is_empty()
                || OF_REPOSITORY.contains(&name)
                || name.starts_with(INTERNAL)
                || (name == "backend" && value == "docker")
                || (name == "platform" && value == platform)
        };
        let labels = self.labels.iter().flatten().filter(|(name, value)| !is_ours(name, value));
        labels.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// As a job; `None` if its number is none.
    pub fn as_job(&self, url: &str) -> Option<ForgeJob> {
        let repository = self.labels.as_ref().and_then(|labels| labels.get("repo")).cloned();
        Some(ForgeJob {
            id: self.id.parse().ok()?,
            run: Some(self.pipeline_number),
            task: Some(self.repo_id),
            is_heard: false,
            repository: repository.unwrap_or_else(|| format!("repository {}", self.repo_id)),
            name: self.name.clone(),
            url: format!("{url}/repos/{}/pipeline/{}", self.repo_id, self.pipeline_number),
        })
    }
}

impl Workflow {
    /// How it has ended, in the word that all forges have; `None` if it has not.
    pub fn conclusion(&self) -> Option<String> {
        let word = match self.state.as_str() {
            "success" | "skipped" | "failure" => &self.state,
            "error" | "declined" => "failure",
            "killed" | "canceled" => "cancelled",
            _ => return None,
        };
        Some(word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_asks_for_what_is_not_everybodys() {
        let task: Task = serde_json::from_str(
            r#"{"id": "7", "labels": {"repo": "o/r", "org-id": "1", "platform": "linux/amd64", "backend": "docker", "gpu": "yes",
                "empty": "", "woodpecker-ci.org/forge-id": "1"}}"#,
        )
        .unwrap();
        assert_eq!(task.wanted("linux/amd64"), ["gpu=yes"]);
        assert_eq!(task.wanted("linux/arm64"), ["gpu=yes", "platform=linux/amd64"]);
        assert_eq!(task.as_job("http://w").unwrap().repository, "o/r");
    }
}
