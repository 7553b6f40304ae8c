//! What Gitea's and Forgejo's runners say (`runner.v1.RunnerService`, by the Connect protocol as JSON), as far as it is said for one that
//! is not there yet, or cannot any more.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Api, Refusal};
use crate::{
    model::{Error, Result, time::Timestamp},
    supervisor::secret::Secret,
};

/// What both servers say to one whose registration is not there (`interceptor.go`), and their runners' logs repeat.
pub const UNREGISTERED: &str = "unregistered runner";

/// Who speaks.
pub struct RunnerIdentity<'a> {
    /// `x-runner-uuid`.
    pub uuid: &'a str,
    /// `x-runner-token`.
    pub token: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Acknowledged {
    ack_index: Option<String>,
}

/// A runner that was registered.
#[derive(Deserialize)]
pub struct NewRunner {
    /// Its number: of 64 bits, which protobuf's JSON has as text.
    id: String,
    /// `x-runner-uuid`.
    pub uuid: String,
    /// `x-runner-token`.
    pub token: String,
    /// Whether it is dropped after one job: servers that know nothing of that do not say it.
    #[serde(default)]
    pub ephemeral: bool,
}

impl NewRunner {
    /// Its number.
    pub fn id(&self) -> Result<i64> {
        self.id.parse().map_err(|_| Error::system(format!("the runner's number is none: {}", self.id)))
    }
}

#[derive(Deserialize)]
struct Registered {
    runner: NewRunner,
}

/// Registers a runner for one job, if the server knows such.
pub async fn register(api: &Api, name: &str, token: &Secret, labels: &BTreeSet<String>) -> Result<NewRunner, Refusal> {
    let body = json!({
        "name": name,
        "token": token.reveal(),
        "version": concat!("ringer/", env!("CARGO_PKG_VERSION")),
        "labels": labels,
        "ephemeral": true,
    });
    let path = "api/actions/runner.v1.RunnerService/Register";
    Ok(api.post_with::<Registered>(path, &body, &[]).await?.runner)
}

/// Asks whether a server is there, which answers this to everybody.
pub async fn ping(api: &Api) -> Result<(), Refusal> {
    let path = "api/actions/ping.v1.PingService/Ping";
    api.post_with::<Value>(path, &json!({"data": "ringer"}), &[]).await.map(drop)
}

/// Whether the server knows a runner: asked by no rows of a log, which change nothing. A refusal for another reason comes after that, but
/// for those of what stands before a server that is away.
pub async fn knows(api: &Api, runner: &RunnerIdentity<'_>, task: i64) -> Result<bool, Refusal> {
    let body = json!({"taskId": task.to_string(), "index": "0", "rows": []});
    match call::<Value>(api, runner, "UpdateLog", &body).await {
        Err(refusal) if refusal.to_string().contains(UNREGISTERED) => Ok(false),
        Err(refusal) if refusal.status.is_none_or(|status| matches!(status.as_u16(), 502..=504)) => Err(refusal),
        _ => Ok(true),
    }
}

/// How a task has ended, in the word of the API; `None` as long as it runs.
pub async fn result_of(api: &Api, runner: &RunnerIdentity<'_>, task: i64) -> Result<Option<String>, Refusal> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Updated {
        state: State,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct State {
        result: String,
    }
    let body = json!({"state": {"id": task.to_string()}});
    let updated: Updated = call(api, runner, "UpdateTask", &body).await?;
    let word = updated.state.result.trim_start_matches("RESULT_").to_lowercase();
    Ok(Some(word).filter(|word| !word.is_empty() && word != "unspecified"))
}

/// Says of a task that it has failed, and why in its log. Refused if the task is another runner's.
pub async fn fail_task(api: &Api, runner: &RunnerIdentity<'_>, task: i64, why: &str) -> Result<(), Refusal> {
    let (task, now) = (task.to_string(), Timestamp::now().to_string());
    let asked = json!({"taskId": task, "index": "0", "rows": []});
    let before: Acknowledged = call(api, runner, "UpdateLog", &asked).await?;
    let rows = json!([{"time": now, "content": format!("ringer: {why}")}]);
    let index = before.ack_index.unwrap_or_else(|| "0".to_owned());
    let log = json!({"taskId": task, "index": index, "rows": rows, "noMore": true});
    // A log that is closed already needs no last word.
    let _closed = call::<Value>(api, runner, "UpdateLog", &log).await;
    let state = json!({"state": {"id": task, "result": "RESULT_FAILURE", "stoppedAt": now}});
    call::<Value>(api, runner, "UpdateTask", &state).await.map(drop)
}

async fn call<T: serde::de::DeserializeOwned>(
    api: &Api,
    runner: &RunnerIdentity<'_>,
    method: &str,
    body: &Value,
) -> Result<T, Refusal> {
    let path = format!("api/actions/runner.v1.RunnerService/{method}");
    api.post_with(&path, body, &[("x-runner-uuid", runner.uuid), ("x-runner-token", runner.token)]).await
}
