//! GitLab's answers, as far as they are read (`lib/api/entities/ci`).

use serde::Deserialize;

use crate::supervisor::record::ForgeJob;

/// `POST /runners/verify`.
#[derive(Deserialize)]
pub struct Verified {
    pub id: i64,
}

/// `GET /runners/:id`.
#[derive(Clone, Deserialize)]
pub struct Runner {
    pub id: i64,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub runner_type: String,
    #[serde(default)]
    pub paused: bool,
    #[serde(default = "yes")]
    pub run_untagged: bool,
    #[serde(default)]
    pub tag_list: Vec<String>,
    /// Of a project's runner.
    #[serde(default)]
    pub projects: Vec<Project>,
    /// Of a group's runner.
    #[serde(default)]
    pub groups: Vec<Group>,
}

/// Older servers do not say it of runners without tags, which take such jobs.
fn yes() -> bool {
    true
}

impl Runner {
    /// Whether it is given jobs with these tags.
    pub fn takes(&self, tags: &[String]) -> bool {
        let has_all =
            if tags.is_empty() { self.run_untagged } else { tags.iter().all(|tag| self.tag_list.contains(tag)) };
        !self.paused && has_all
    }

    /// What people call it.
    pub fn whose(&self) -> &str {
        self.description.as_deref().filter(|text| !text.is_empty()).unwrap_or("without a description")
    }

    /// Whose jobs it takes.
    pub fn scope(&self) -> &str {
        self.runner_type.strip_suffix("_type").unwrap_or("GitLab")
    }
}

/// A project, as lists have it.
#[derive(Clone, Deserialize)]
pub struct Project {
    pub id: i64,
    pub path_with_namespace: String,
}

/// One of `GET /runners/:id`.
#[derive(Clone, Deserialize)]
pub struct Group {
    pub id: i64,
}

/// One of `GET /projects/:id/jobs`, and of `GET /runners/:id/jobs`, which has the project and not the manager.
#[derive(Deserialize)]
pub struct Job {
    pub id: i64,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub web_url: String,
    #[serde(default)]
    pub tag_list: Vec<String>,
    pub started_at: Option<String>,
    pub runner_manager: Option<Manager>,
    pub project: Option<Project>,
}

/// Who has a job, of those that share a runner's token.
#[derive(Deserialize)]
pub struct Manager {
    pub system_id: String,
}

impl Job {
    /// Who has it, if somebody has.
    pub fn system_id(&self) -> Option<&str> {
        self.runner_manager.as_ref().map(|manager| manager.system_id.as_str())
    }

    /// As a job of its project.
    pub fn of(&self, project: &Project) -> ForgeJob {
        ForgeJob {
            id: self.id,
            run: None,
            task: None,
            repository: project.path_with_namespace.clone(),
            name: self.name.clone(),
            url: self.web_url.clone(),
        }
    }

    /// How it has ended, in the word that all forges have; `None` if it has not.
    pub fn conclusion(&self) -> Option<String> {
        let word = match self.status.as_str() {
            "failed" => "failure",
            "canceled" => "cancelled",
            word @ ("success" | "skipped") => word,
            _ => return None,
        };
        Some(word.to_owned())
    }
}
