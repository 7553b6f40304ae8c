//! What a set's session is told of jobs, and how they become the set's.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Asked, Model, Reply, ScaleSet, Service, Shared, error, sessions::Session, unauthorized};
use crate::support::github::model::Job;

/// How long the service holds a call for messages back: about 50 s in reality [src: `http.Client` waits 5 minutes "to accomodate long polling"].
const POLL: Duration = Duration::from_secs(10);

/// Jobs that one message tells of [src: a batch].
const BATCH: usize = 50;

/// Whether a call is one of the session of a set, with the token that is good now.
fn is_of_session(set: &ScaleSet, asked: &Asked) -> bool {
    let is_it = |held: &Session| asked.query.get("sessionId").is_none_or(|id| *id == held.id);
    set.session.as_ref().is_some_and(|held| held.token == asked.bearer() && !held.is_expired && is_it(held))
}

impl Service {
    /// The set whose session a call is of, unless no token of a queue is taken.
    fn of_session(&mut self, id: i64, asked: &Asked) -> Option<&mut ScaleSet> {
        let is_taken = !self.refuses_queues;
        self.sets.get_mut(&id).filter(|set| is_taken && is_of_session(set, asked))
    }
}

/// [src: `GetAcquirableJobs` of actions-runner-controller: 204 if there are none]
pub fn offers(model: &Model, id: i64) -> Reply {
    let offered = &model.service.sets[&id].offered;
    let all: Vec<Value> =
        offered.iter().map(|job| json!({"runnerRequestId": job, "messageType": "JobAvailable"})).collect();
    if all.is_empty() { Reply::empty(204) } else { Reply::json(200, &json!({"count": all.len(), "value": all})) }
}

/// [src: `AcquireJobs`: the ids as a list, with the queue's token; those that were acquired come back. Assumption: what is somebody's already,
/// or was not offered, is not among them]
pub fn acquire(model: &mut Model, asked: &Asked, id: &str) -> Reply {
    let id = id.parse::<i64>().unwrap_or_default();
    let Some(set) = model.service.of_session(id, asked) else { return unauthorized() };
    let wanted: Vec<i64> = asked.body.as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    let acquired: Vec<i64> = wanted.into_iter().filter(|job| set.offered.remove(job)).collect();
    for job in &acquired {
        model.give(id, *job);
    }
    Reply::json(200, &json!({"count": acquired.len(), "value": acquired}))
}

/// [src: `getMessage`, `deleteMessage`; assumption: a message that is acknowledged twice is 404]
pub async fn answer(shared: &Shared, asked: &Asked, path: &str) -> Reply {
    let parts: Vec<&str> = path.split('/').collect();
    let id = parts[0].parse::<i64>().unwrap_or_default();
    match (asked.method.as_str(), &parts[1..]) {
        ("GET", ["message"]) => message(shared, asked, id).await,
        ("DELETE", ["message", message]) => {
            let mut model = shared.lock();
            let Some(set) = model.service.of_session(id, asked) else { return unauthorized() };
            let number = message.parse::<i64>().unwrap_or_default();
            let before = set.messages.len();
            set.messages.retain(|(known, _)| *known != number);
            if set.messages.len() == before {
                return error(404, "MessageNotFoundException", "No such message.");
            }
            Reply::empty(204)
        }
        _ => error(404, "VssResourceNotFoundException", "No such call."),
    }
}

async fn message(shared: &Shared, asked: &Asked, id: i64) -> Reply {
    let deadline = Instant::now() + POLL;
    let last = asked.query.get("lastMessageId").and_then(|last| last.parse::<i64>().ok()).unwrap_or(0);
    while Instant::now() < deadline {
        let changed = shared.changed.notified();
        {
            let mut model = shared.lock();
            let Some(set) = model.service.of_session(id, asked) else { return unauthorized() };
            let Ok(capacity) = asked.header("x-scalesetmaxcapacity").parse() else {
                // [src: "Capacity error handling"; assumption: that one is needed]
                return error(400, "ArgumentException", "X-ScaleSetMaxCapacity is no number.");
            };
            set.capacity = capacity;
            model.hand_out(id);
            let next = model.service.sets[&id].messages.iter().find(|(number, _)| *number > last).cloned();
            if let Some((number, jobs)) = next {
                model.service.sets.get_mut(&id).expect("it is there").delivered = number;
                return Reply::json(
                    200,
                    &json!({
                        "messageId": number, "messageType": "RunnerScaleSetJobMessages", "body": json!(jobs).to_string(),
                        "statistics": model.statistics(id),
                    }),
                );
            }
        }
        let _either = tokio::time::timeout(Duration::from_millis(200), changed).await;
    }
    Reply::empty(202)
}

impl Model {
    /// Jobs that wait are assigned to a set that covers them, as many as it has room for, or offered to it, whatever room it has.
    pub(super) fn hand_out(&mut self, id: i64) {
        let set = &self.service.sets[&id];
        let has = self.jobs.values().filter(|job| job.set == Some(id) && job.status != "completed").count();
        let room = if self.service.offers { BATCH } else { set.capacity.saturating_sub(has) };
        let covers = |job: &Job| {
            let owner = job.repository.split('/').next().unwrap_or_default();
            let is_at = set.scope == format!("repos/{}", job.repository) || set.scope == format!("orgs/{owner}");
            is_at && job.labels.iter().all(|label| set.labels.contains(&label.to_lowercase()))
        };
        let waiting = self.jobs.iter().filter(|(_, job)| job.status == "queued" && job.set.is_none() && covers(job));
        let new: Vec<i64> =
            waiting.map(|(number, _)| *number).filter(|job| !set.offered.contains(job)).take(room.min(BATCH)).collect();
        for job in new {
            if self.service.offers {
                self.service.sets.get_mut(&id).expect("it is there").offered.insert(job);
                self.tell_set(id, "JobAvailable", job, None);
            } else {
                self.give(id, job);
            }
        }
    }

    /// A job is a set's.
    fn give(&mut self, id: i64, job: i64) {
        self.jobs.get_mut(&job).expect("it is there").set = Some(id);
        self.tell_set(id, "JobAssigned", job, None);
        if self.service.reassigns {
            self.tell_set(id, "JobCompleted", job, Some("canceled"));
            self.tell_set(id, "JobAssigned", job, None);
        }
        let are_there = self.jobs.values().filter(|job| job.set.is_some() && job.status != "completed").count();
        self.service.most = self.service.most.max(are_there);
    }

    /// What has become of a job is told to whoever listens to its set, be it later.
    pub fn tell_of(&mut self, job: i64, kind: &str, result: Option<&str>) {
        if let Some(set) = self.jobs[&job].set.filter(|_| kind != "JobStarted" || !self.service.is_silent) {
            self.tell_set(set, kind, job, result);
        }
    }

    fn tell_set(&mut self, id: i64, kind: &str, number: i64, result: Option<&str>) {
        let message = self.number();
        let job = &self.jobs[&number];
        let (owner, repository) = job.repository.split_once('/').expect("a whole name");
        let (runner, name) = job.runner.clone().unwrap_or_default();
        // [iss: cloudbase/garm#459: a UUID, and no number any more; assumption: an older server that offers has numbers alone]
        let (uuid, request) = match self.service.offers {
            true => (Value::Null, number),
            false => (json!(format!("bd59f43d-0000-4000-8000-{number:012x}")), 0),
        };
        // [src: `JobMessageBase` and what is beside it]
        let body = json!({
            "messageType": kind, "runnerRequestId": request, "ownerName": owner, "repositoryName": repository,
            "jobId": uuid, "jobDisplayName": job.name, "workflowRunId": job.run, "eventName": "push",
            "jobWorkflowRef": job.todo["workflow_ref"], "requestLabels": job.labels, "queueTime": "2026-11-27T18:00:00Z",
            "scaleSetAssignTime": "2026-11-27T18:00:00Z", "runnerAssignTime": "0001-01-01T00:00:00Z",
            "finishTime": "0001-01-01T00:00:00Z", "runnerId": runner, "runnerName": name, "result": result,
        });
        if let Some(set) = self.service.sets.get_mut(&id) {
            // Assumption: what nobody has read yet is told in one.
            match set.messages.back_mut().filter(|(number, _)| *number > set.delivered) {
                Some((_, bodies)) if bodies.len() < BATCH => bodies.push(body),
                _ => set.messages.push_back((message, vec![body])),
            }
        }
    }
}
