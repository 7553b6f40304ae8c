//! What Gitea's and Forgejo's runners say (`runner.v1.RunnerService`, by the Connect protocol as JSON), as far as it has to be said for one
//! that cannot any more.

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Api, Refusal};
use crate::model::time::Timestamp;

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
