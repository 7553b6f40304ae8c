//! What runners speak to: the names of the real service's calls [src: `BrokerHttpClient.cs`, `RunServiceHttpClient.cs`], with much less in
//! them. A configuration is good for one session.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Asked, Shared, model::Reply};

/// How long a runner waits for a message: 50 s in reality [mem].
const POLL: Duration = Duration::from_secs(10);

pub async fn answer(shared: &Shared, asked: &Asked) -> Reply {
    match (asked.method.as_str(), asked.path.strip_prefix("/_service/").unwrap_or_default()) {
        ("POST", "oauth2/token") => token(shared, asked),
        ("GET", "message") => message(shared, asked).await,
        (_, path) => match runner_of(shared, asked) {
            None => Reply::json(401, &json!({"errorKind": "RunnerNotFound"})),
            Some(id) => call(shared, asked, path, id),
        },
    }
}

/// Client credentials: one whose registration is gone is told `invalid_client`.
fn token(shared: &Shared, asked: &Asked) -> Reply {
    let model = shared.lock();
    let secret = asked.body["client_assertion"].as_str().unwrap_or_default();
    let id = asked.body["client_id"].as_str().and_then(|id| id.parse::<i64>().ok());
    match id.and_then(|id| model.runners.get(&id)).filter(|runner| runner.secret == secret) {
        Some(_) => Reply::json(200, &json!({"access_token": secret, "expires_in": 3600, "token_type": "JWT"})),
        None => Reply::json(400, &json!({"error": "invalid_client"})),
    }
}

fn runner_of(shared: &Shared, asked: &Asked) -> Option<i64> {
    let model = shared.lock();
    let token = asked.bearer();
    model.runners.iter().find(|(_, runner)| runner.secret == token).map(|(id, _)| *id)
}

fn call(shared: &Shared, asked: &Asked, path: &str, id: i64) -> Reply {
    let mut model = shared.lock();
    let of_body = |name: &str| asked.body[name].as_str().and_then(|id| id.parse::<i64>().ok());
    let Some(runner) = model.runners.get_mut(&id) else { return Reply::error(404, "gone") };
    match (asked.method.as_str(), path) {
        ("POST", "session") if runner.session.is_some() => {
            Reply::json(409, &json!({"errorKind": "TaskAgentSessionConflict"}))
        }
        ("POST", "session") => {
            runner.session = Some(format!("session-{id}"));
            Reply::json(200, &json!({"sessionId": runner.session}))
        }
        ("DELETE", "session") => Reply::empty(204),
        ("POST", "run/acquirejob") => match of_body("jobMessageId").filter(|job| runner.job == Some(*job)) {
            Some(job) => {
                let found = &model.jobs[&job];
                let mut todo = found.todo.clone();
                todo["jobId"] = job.to_string().into();
                todo["jobDisplayName"] = found.name.as_str().into();
                todo["repository"] = found.repository.as_str().into();
                Reply::json(200, &todo)
            }
            None => Reply::error(404, "job not found"),
        },
        ("POST", "run/renewjob") => {
            let job = runner.job;
            if let Some(job) = job.and_then(|job| model.jobs.get_mut(&job)) {
                job.renewed = Some(Instant::now());
            }
            Reply::json(200, &json!({}))
        }
        ("POST", "run/completejob") => match of_body("jobId").filter(|job| runner.job == Some(*job)) {
            Some(job) => {
                let conclusion = match asked.body["conclusion"].as_str() {
                    Some("succeeded") => "success",
                    Some("canceled") => "cancelled",
                    _ => "failure",
                };
                let log = asked.body["log"].as_str().unwrap_or_default().to_owned();
                model.complete(job, conclusion, &log);
                Reply::json(200, &json!({}))
            }
            None => Reply::error(404, "job not found"),
        },
        _ => Reply::error(404, "no such call"),
    }
}

/// Waits for a message, as long as the runner is registered.
async fn message(shared: &Shared, asked: &Asked) -> Reply {
    let deadline = Instant::now() + POLL;
    while Instant::now() < deadline {
        let changed = shared.changed.notified();
        let Some(id) = runner_of(shared, asked) else { return gone() };
        if let Some(message) = next_message(shared, asked, id) {
            return Reply::json(200, &message);
        }
        let _either = tokio::time::timeout(Duration::from_millis(200), changed).await;
    }
    Reply::empty(202)
}

fn next_message(shared: &Shared, asked: &Asked, id: i64) -> Option<Value> {
    let mut model = shared.lock();
    if asked.query.get("status").is_some_and(|status| status == "Online") {
        model.assign(id);
    }
    if model.holds_back {
        return None;
    }
    model.runners.get_mut(&id)?.messages.pop_front()
}

fn gone() -> Reply {
    Reply::json(404, &json!({"source": "actions-broker-listener", "errorKind": "RunnerNotFound"}))
}
