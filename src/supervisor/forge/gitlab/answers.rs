//! GitLab's answers, as far as they are read (`lib/api/entities/ci`).

use serde::Deserialize;

use crate::{
    model::network::null_is_default,
    supervisor::record::{ForgeJob, Registration},
};

/// `GET /version`.
#[derive(Deserialize)]
pub struct Version {
    pub version: String,
}

/// What is told of a runner by `POST /runners/verify` and of the one that has a job, and of a group by `GET /runners/:id`.
#[derive(Clone, Deserialize)]
pub struct Numbered {
    pub id: i64,
}

/// `GET /runners/:id`.
#[derive(Clone, Deserialize)]
pub struct Runner {
    pub id: i64,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub runner_type: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub paused: bool,
    #[serde(default = "yes")]
    pub run_untagged: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub tag_list: Vec<String>,
    /// Of a project's runner.
    #[serde(default, deserialize_with = "null_is_default")]
    pub projects: Vec<Project>,
    /// Of a group's runner.
    #[serde(default, deserialize_with = "null_is_default")]
    pub groups: Vec<Numbered>,
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

/// One of `GET /projects/:id/jobs`, and of `GET /runners/:id/jobs`, which has the project and neither runner nor manager.
#[derive(Deserialize)]
pub struct Job {
    pub id: i64,
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub web_url: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub tag_list: Vec<String>,
    pub started_at: Option<String>,
    pub runner: Option<Numbered>,
    pub runner_manager: Option<Manager>,
    pub project: Option<Project>,
}

/// Who has a job, of those that share a runner's token.
#[derive(Deserialize)]
pub struct Manager {
    pub system_id: Option<String>,
}

impl Job {
    /// Who has it, if somebody has.
    pub fn system_id(&self) -> Option<&str> {
        self.runner_manager.as_ref()?.system_id.as_deref()
    }

    /// Whether a launch in a slot of this runner has it: another runner may have managers of the same names, and the slot's earlier
    /// job, which is noted with it, is none of its.
    pub fn is_of(&self, runner: i64, registration: &Registration) -> bool {
        let is_the_runners = self.runner.as_ref().is_some_and(|its| its.id == runner);
        is_the_runners && self.system_id() == Some(&registration.scope) && self.id != registration.id
    }

    /// As a job of its project.
    pub fn of(&self, project: &Project) -> ForgeJob {
        ForgeJob {
            id: self.id,
            run: None,
            task: None,
            is_heard: false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_a_launchs_by_runner_slot_and_number() {
        let slot = Registration { id: 5, name: "a".to_owned(), scope: "r_0a1b2c3d0000".to_owned() };
        let is_its = |json: &str| serde_json::from_str::<Job>(json).unwrap().is_of(7, &slot);
        assert!(is_its(r#"{"id": 6, "runner": {"id": 7}, "runner_manager": {"system_id": "r_0a1b2c3d0000"}}"#));
        assert!(!is_its(r#"{"id": 6, "runner": {"id": 8}, "runner_manager": {"system_id": "r_0a1b2c3d0000"}}"#));
        assert!(!is_its(r#"{"id": 6, "runner": {"id": 7}, "runner_manager": {"system_id": "r_0a1b2c3d0001"}}"#));
        assert!(!is_its(r#"{"id": 5, "runner": {"id": 7}, "runner_manager": {"system_id": "r_0a1b2c3d0000"}}"#));
        assert!(
            !is_its(r#"{"id": 6, "runner": {"id": 7}, "runner_manager": null}"#),
            "an old server tells of no manager"
        );
    }

    #[test]
    fn what_has_no_value_is_null() {
        let job = r#"{"id": 6, "name": null, "status": null, "web_url": null, "tag_list": null, "started_at": null,
            "runner": null, "runner_manager": {"system_id": null}, "project": null}"#;
        assert_eq!(serde_json::from_str::<Job>(job).unwrap().tag_list, Vec::<String>::new());
        let runner = r#"{"id": 7, "description": null, "runner_type": null, "paused": null, "tag_list": null, "projects": null}"#;
        assert!(serde_json::from_str::<Runner>(runner).unwrap().takes(&[]));
    }
}
