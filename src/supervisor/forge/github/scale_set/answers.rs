//! What GitHub's Actions service answers of scale sets, as far as it is read (`types.go` of actions/scaleset).

use serde::{Deserialize, Deserializer};

use crate::{
    model::time::Timestamp,
    supervisor::record::{ForgeJob, Registration},
};

/// `actions/create-registration-token-for-org`, `…-for-repo`.
#[derive(Deserialize)]
pub struct RegistrationToken {
    pub token: String,
}

/// `runner-registration`: where the service of an organisation or repository is, and by what it knows us.
#[derive(Deserialize)]
pub struct AdminConnection {
    pub url: String,
    pub token: String,
}

/// A list.
#[derive(Deserialize)]
pub struct Listed<T> {
    #[serde(default = "Vec::new")]
    pub value: Vec<T>,
}

/// A scale set.
#[derive(Deserialize)]
pub struct ScaleSetAnswer {
    pub id: i64,
    pub name: String,
    #[serde(default)]
    pub labels: Vec<Label>,
    pub statistics: Option<Statistics>,
}

impl ScaleSetAnswer {
    /// Whether it has a label.
    pub fn has(&self, label: &str) -> bool {
        self.labels.iter().any(|own| own.name.eq_ignore_ascii_case(label))
    }
}

/// A label of one.
#[derive(Deserialize)]
pub struct Label {
    pub name: String,
}

/// A session: who holds it is told of the set's jobs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub session_id: String,
    #[serde(default)]
    pub message_queue_url: String,
    #[serde(default)]
    pub message_queue_access_token: String,
    pub statistics: Option<Statistics>,
}

/// How many jobs a set has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statistics {
    /// That wait for one of its runners or have one.
    pub total_assigned_jobs: usize,
    /// Of these, those that have one.
    pub total_running_jobs: usize,
    /// That are offered.
    pub total_available_jobs: usize,
}

/// A message of a session's queue.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub message_id: i64,
    /// JSON: a list of [`JobMessage`].
    #[serde(default, deserialize_with = "or_nothing")]
    pub body: String,
    pub statistics: Option<Statistics>,
}

/// A job that is offered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    pub runner_request_id: i64,
}

/// What has become of a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobMessage {
    /// `JobAvailable`, `JobAssigned`, `JobStarted`, `JobCompleted`.
    #[serde(deserialize_with = "or_nothing")]
    pub message_type: String,
    /// The service's number of the job: no other service's.
    #[serde(deserialize_with = "or_nothing")]
    pub runner_request_id: i64,
    #[serde(deserialize_with = "or_nothing")]
    pub owner_name: String,
    #[serde(deserialize_with = "or_nothing")]
    pub repository_name: String,
    #[serde(deserialize_with = "or_nothing")]
    pub job_display_name: String,
    #[serde(deserialize_with = "or_nothing")]
    pub workflow_run_id: i64,
    pub queue_time: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub runner_name: String,
    #[serde(deserialize_with = "or_nothing")]
    pub result: String,
}

impl JobMessage {
    /// The job, of a server at `url`.
    pub fn job(&self, url: &str) -> ForgeJob {
        let repository = format!("{}/{}", self.owner_name, self.repository_name);
        ForgeJob {
            id: self.runner_request_id,
            run: None,
            task: None,
            is_heard: false,
            url: format!("{url}/{repository}/actions/runs/{}", self.workflow_run_id),
            name: self.job_display_name.clone(),
            repository,
        }
    }

    /// Since when it waits: a time that is not known is one of the year 1.
    pub fn since(&self) -> Option<Timestamp> {
        Timestamp::parse_rfc3339(self.queue_time.as_deref()?).filter(|time| time.unix() > 0)
    }

    /// How it has ended, in the word of the REST API.
    pub fn conclusion(&self) -> String {
        match self.result.to_lowercase().as_str() {
            "succeeded" => "success".to_owned(),
            "failed" => "failure".to_owned(),
            "canceled" => "cancelled".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// What is not known yet may be null.
fn or_nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A runner.
#[derive(Deserialize)]
pub struct Agent {
    pub id: i64,
    pub name: String,
}

impl Agent {
    /// As the supervisor knows it.
    pub fn at(self, scope: &str) -> Registration {
        Registration { id: self.id, name: self.name, scope: scope.to_owned() }
    }
}

/// `generatejitconfig`.
#[derive(Deserialize)]
pub struct SetJitConfig {
    pub runner: Agent,
    #[serde(rename = "encodedJITConfig")]
    pub encoded_jit_config: String,
}
