//! What GitHub's Actions service answers of scale sets, as far as it is read (`types.go` of actions/scaleset).

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    model::{reference::Digest, time::Timestamp},
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
#[serde(bound = "T: Deserialize<'de>")]
pub struct Listed<T> {
    #[serde(default, deserialize_with = "or_nothing")]
    pub value: Vec<T>,
}

/// A scale set.
#[derive(Deserialize)]
pub struct ScaleSetAnswer {
    pub id: i64,
    pub name: String,
    #[serde(default, deserialize_with = "or_nothing")]
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
    #[serde(default, deserialize_with = "or_nothing")]
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
    #[serde(deserialize_with = "count")]
    pub total_assigned_jobs: usize,
    /// Of these, those that have one.
    #[serde(deserialize_with = "count")]
    pub total_running_jobs: usize,
    /// That are offered.
    #[serde(deserialize_with = "count")]
    pub total_available_jobs: usize,
}

/// A message of a session's queue. What can be read of it but for its number is little: one that is not acknowledged comes for ever.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub message_id: i64,
    /// JSON: a list of [`JobMessage`].
    #[serde(default, deserialize_with = "as_text")]
    pub body: String,
    #[serde(default, deserialize_with = "if_readable")]
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
    /// What the service calls the job, since July 2025 (cloudbase/garm#459).
    #[serde(deserialize_with = "or_nothing")]
    pub job_id: String,
    /// Its number there, by which it is acquired; 0 where it has a `job_id`, and is assigned.
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
    /// The number that it is known by here, above 0: a digest's of its name, or the service's where it has none. `None` if it has neither.
    pub fn id(&self) -> Option<i64> {
        // An empty UUID is none.
        if self.job_id.bytes().all(|byte| matches!(byte, b'0' | b'-')) {
            return Some(self.runner_request_id).filter(|number| *number > 0);
        }
        let digest = Digest::of(self.job_id.to_lowercase().as_bytes());
        let number = u64::from_str_radix(digest.hex().get(..16)?, 16).ok()?;
        i64::try_from(number >> 1).ok().map(|number| number.max(1))
    }

    /// The job `id`, of a server at `url`.
    pub fn job(&self, id: i64, url: &str) -> ForgeJob {
        let repository = format!("{}/{}", self.owner_name, self.repository_name);
        ForgeJob {
            id,
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

/// None are fewer than 0.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let told: Option<i64> = Option::deserialize(deserializer)?;
    Ok(usize::try_from(told.unwrap_or(0)).unwrap_or(0))
}

fn if_readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Statistics>, D::Error> {
    Ok(Statistics::deserialize(Value::deserialize(deserializer)?).ok())
}

/// JSON that is not in a text is read as if it were.
fn as_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_or_nonsense_is_nothing() {
        let message = |json: &str| serde_json::from_str::<Message>(json).unwrap();
        let nulls = message(
            r#"{"messageId": 3, "body": null, "statistics": {"totalAssignedJobs": null, "totalRunningJobs": -1}}"#,
        );
        assert_eq!((nulls.body.as_str(), nulls.statistics), ("", Some(Statistics::default())));
        let other = message(r#"{"messageId": 3, "body": [{}], "statistics": {"totalAssignedJobs": "many"}}"#);
        assert_eq!((other.body.as_str(), other.statistics), ("[{}]", None));
        assert_eq!(message(r#"{"messageId": 3}"#).statistics, None);
        let set = r#"{"value": [{"id": 1, "name": "n", "labels": null}, {"id": 2, "name": "m", "labels": [{"name": null}]}]}"#;
        let listed: Listed<ScaleSetAnswer> = serde_json::from_str(set).unwrap();
        assert_eq!(listed.value.iter().map(|set| set.labels.len()).collect::<Vec<_>>(), [0, 1]);
        assert!(serde_json::from_str::<Listed<Agent>>(r#"{"value": null}"#).unwrap().value.is_empty());
    }

    #[test]
    fn a_job_is_known_by_its_name_or_else_by_its_number() {
        let id = |job_id: &str, runner_request_id| {
            JobMessage { job_id: job_id.to_owned(), runner_request_id, ..JobMessage::default() }.id()
        };
        let named = id("bd59f43d-7a1e-4b0c-9c36-0d6f2f4a4a10", 0);
        assert!(named.is_some_and(|number| number > 0));
        assert_eq!(named, id("BD59F43D-7a1e-4b0c-9c36-0d6f2f4a4a10", 7), "whatever its number is");
        assert_ne!(named, id("bd59f43d-7a1e-4b0c-9c36-0d6f2f4a4a11", 0));
        assert_eq!(id("", 7), Some(7));
        assert_eq!(id("00000000-0000-0000-0000-000000000000", 7), Some(7));
        assert_eq!((id("", 0), id("", -1)), (None, None));
    }
}
