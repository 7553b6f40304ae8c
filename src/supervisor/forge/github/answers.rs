//! GitHub's answers, as far as they are read. Each is named after the operation of GitHub's OpenAPI description whose answer it is.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use crate::{
    model::{Error, Result, time::Timestamp},
    supervisor::record::{ForgeJob, Registration},
};

/// `repos/list-for-org`, one of them; `repos/get`.
#[derive(Deserialize)]
pub struct Repository {
    pub full_name: String,
    pub private: bool,
    #[serde(default)]
    pub archived: bool,
    #[serde(default)]
    pub disabled: bool,
}

/// `actions/list-workflow-runs-for-repo`.
#[derive(Deserialize)]
pub struct Runs {
    pub workflow_runs: Vec<Run>,
}

/// One of them.
#[derive(Deserialize)]
pub struct Run {
    pub id: i64,
}

/// `actions/list-jobs-for-workflow-run`.
#[derive(Deserialize)]
pub struct Jobs {
    pub jobs: Vec<Job>,
}

/// `actions/get-job-for-workflow-run`.
#[derive(Clone, Deserialize)]
pub struct Job {
    pub id: i64,
    #[serde(default)]
    pub run_id: i64,
    #[serde(default)]
    pub name: String,
    pub status: String,
    pub conclusion: Option<String>,
    #[serde(default)]
    pub labels: Vec<String>,
    pub runner_name: Option<String>,
    pub html_url: Option<String>,
    pub created_at: Option<String>,
}

impl Job {
    /// When it was made.
    pub fn since(&self) -> Option<Timestamp> {
        Timestamp::parse_rfc3339(self.created_at.as_deref()?)
    }

    /// As the supervisor knows it.
    pub fn in_repository(&self, repository: &str) -> ForgeJob {
        ForgeJob {
            id: self.id,
            run: Some(self.run_id),
            task: None,
            is_heard: false,
            repository: repository.to_owned(),
            name: self.name.clone(),
            url: self.html_url.clone().unwrap_or_default(),
        }
    }
}

/// `actions/list-self-hosted-runners-for-org`, `…-for-repo`.
#[derive(Deserialize)]
pub struct Runners {
    pub runners: Vec<Runner>,
}

/// One of them.
#[derive(Deserialize)]
pub struct Runner {
    pub id: i64,
    pub name: String,
}

impl Runner {
    /// As the supervisor knows it.
    pub fn at(self, scope: &str) -> Registration {
        Registration { id: self.id, name: self.name, scope: scope.to_owned() }
    }
}

/// `actions/list-self-hosted-runner-groups-for-org`.
#[derive(Deserialize)]
pub struct Groups {
    pub runner_groups: Vec<Group>,
}

/// One of them.
#[derive(Deserialize)]
pub struct Group {
    pub id: i64,
    pub name: String,
}

/// `actions/generate-runner-jitconfig-for-org`, `…-for-repo`.
#[derive(Deserialize)]
pub struct JitConfig {
    pub runner: Runner,
    pub encoded_jit_config: String,
}

/// `apps/get-org-installation`, `apps/get-repo-installation`.
#[derive(Deserialize)]
pub struct Installation {
    pub id: u64,
}

/// `apps/create-installation-access-token`.
#[derive(Deserialize)]
pub struct InstallationToken {
    pub token: String,
    pub expires_at: Timestamp,
}

/// Bytes of a workflow: GitHub itself takes none that is longer.
const WORKFLOW: usize = 512 << 10;

/// `repos/get-content`, of a file.
#[derive(Deserialize)]
pub struct Content {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: usize,
    #[serde(default)]
    encoding: String,
    #[serde(default)]
    content: String,
}

impl Content {
    /// The file's text. Of a long file GitHub sends none, and says `none` for its encoding.
    pub fn text(&self) -> Result<String> {
        if self.kind != "file" {
            return Err(Error::invalid(format!("it is no file but a {}", self.kind)));
        }
        if self.size > WORKFLOW || self.content.len() > 2 * WORKFLOW || self.encoding != "base64" {
            return Err(Error::invalid(format!("it is longer than {WORKFLOW} bytes")));
        }
        let lines: String = self.content.split_ascii_whitespace().collect();
        let bytes = BASE64_STANDARD.decode(lines).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        bytes.ok_or_else(|| Error::invalid("it is no text"))
    }
}
