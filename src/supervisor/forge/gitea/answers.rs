//! Gitea's answers, as far as they are read (`modules/structs/repo_actions.go`; `runner.v1` of actions-proto).

use serde::Deserialize;

use crate::{
    model::time::Timestamp,
    supervisor::{forge::server::null_is_empty, record::ForgeJob},
};

/// `GET /version`.
#[derive(Deserialize)]
pub struct Version {
    pub version: String,
}

/// `GET …/actions/jobs`.
#[derive(Deserialize)]
pub struct Jobs {
    #[serde(deserialize_with = "null_is_empty")]
    pub jobs: Vec<Job>,
    #[serde(default)]
    pub total_count: usize,
}

/// One of them.
#[derive(Deserialize)]
pub struct Job {
    pub id: i64,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub url: String,
    pub html_url: Option<String>,
    #[serde(default)]
    pub status: String,
    pub conclusion: Option<String>,
    pub labels: Option<Vec<String>>,
    pub runner_name: Option<String>,
    pub created_at: Option<String>,
}

impl Job {
    /// When it was made.
    pub fn since(&self) -> Option<Timestamp> {
        Timestamp::parse_rfc3339(self.created_at.as_deref()?)
    }

    /// `None` if its address does not tell its repository.
    pub fn into_job(self) -> Option<ForgeJob> {
        let (_, path) = self.url.split_once("/repos/")?;
        let mut parts = path.split('/');
        let repository = format!("{}/{}", parts.next()?, parts.next()?);
        Some(ForgeJob {
            id: self.id,
            run: None,
            task: None,
            is_heard: false,
            repository,
            name: self.name,
            url: self.html_url.unwrap_or(self.url),
        })
    }
}

/// What is read of a runner's own file.
#[derive(Deserialize)]
pub struct Identity {
    pub uuid: String,
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_tells_its_repository() {
        let job: Job = serde_json::from_str(
            r#"{"id": 7, "url": "http://f:3000/api/v1/repos/org/tool/actions/jobs/7", "name": "build",
                "labels": ["ubuntu-latest"], "status": "queued", "conclusion": "", "runner_name": ""}"#,
        )
        .unwrap();
        assert_eq!(job.into_job().unwrap().repository, "org/tool");
    }
}
