//! What a scale set is told: read, carried out, and acknowledged before the next.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{
    super::{
        answers::{JobMessage, Listed, Message, Offer, Session},
        queue::Queue,
        service::SETS,
    },
    ScaleSet,
};
use crate::{
    model::Error,
    supervisor::forge::{
        github::hub::Failure,
        http::{Refusal, segments},
    },
};

/// Offers that are remembered.
const OFFERS: usize = 10_000;

/// How long an acquired job counts that is not told to be assigned.
const ASSIGNED: Duration = Duration::from_secs(60);

/// A token that is refused so soon after it was renewed will be refused again.
const RENEWED: Duration = Duration::from_secs(60);

/// What a message tells of jobs, and how many of its entries are something else.
fn jobs_in(body: &str) -> (Vec<JobMessage>, usize) {
    let Ok(entries) = serde_json::from_str::<Vec<Value>>(body) else { return (Vec::new(), 1) };
    let all = entries.len();
    let read = entries.iter().filter_map(|entry| JobMessage::deserialize(entry).ok());
    let jobs: Vec<JobMessage> = read.filter(|job| job.id().is_some()).collect();
    let unread = all - jobs.len();
    (jobs, unread)
}

impl ScaleSet {
    /// Takes the message out of the queue that was read last. `false` if it is to be tried again.
    pub(super) async fn acknowledge(&self, queue: &Queue) -> Result<bool, Failure> {
        let Some(message) = queue.unacknowledged else { return Ok(true) };
        match queue.acknowledge(message).await {
            Err(refusal) => self.recover(queue, refusal).await.map(|()| false),
            Ok(()) => {
                self.change(queue, |queue| queue.unacknowledged = None);
                self.is_well();
                Ok(true)
            }
        }
    }

    /// Carries a message out, and notes that it is to be acknowledged. One that comes again, though a newer one was read, is no news.
    pub(super) fn read(&self, queue: &Queue, message: &Message) -> bool {
        let number = message.message_id;
        let is_new = queue.last.is_none_or(|last| number > last);
        if is_new {
            self.carry_out(message);
        }
        self.change(queue, |queue| {
            (queue.last, queue.unacknowledged) = (queue.last.max(Some(number)), Some(number));
        });
        is_new
    }

    fn carry_out(&self, message: &Message) {
        let jobs = self.jobs_of(message);
        {
            let mut state = self.state();
            for job in &jobs {
                let id = job.runner_request_id;
                if job.message_type != "JobAvailable" {
                    state.offers.remove(&id);
                    state.acquired.remove(&id);
                } else if id > 0 && state.offers.len() < OFFERS {
                    state.offers.insert(id);
                }
            }
        }
        self.common.heard.note(&self.scope, self.common.url(), message.statistics, &jobs);
    }

    /// An entry that cannot be read is left to what the message counts, and its words are nobody's to read in a log.
    fn jobs_of(&self, message: &Message) -> Vec<JobMessage> {
        if message.body.is_empty() {
            return Vec::new();
        }
        let (jobs, unread) = jobs_in(&message.body);
        if unread > 0 {
            let id = message.message_id;
            warn!(forge = self.common.forge(), "{unread} entries of message {id} are not what was expected");
            // At once.
            self.state().counted = None;
        }
        jobs
    }

    /// What waited before we listened is offered to nobody again. Without an answer it is acquired when it is offered anew.
    pub(super) async fn ask_for_offers(&self, id: i64) {
        match self.look_up::<Option<Listed<Offer>>>(format!("{SETS}/{id}/acquirablejobs")).await {
            Ok(listed) => {
                let offers = listed.into_iter().flat_map(|listed| listed.value).map(|offer| offer.runner_request_id);
                self.state().offers.extend(offers.take(OFFERS));
            }
            Err(failure) => {
                debug!(forge = self.common.forge(), "asking for offers at {}: {}", self.scope, Error::from(failure));
            }
        }
    }

    /// Servers that do not assign jobs by themselves offer them, whatever the capacity (`AcquireJobs` of actions-runner-controller):
    /// those are taken that there is room for. `false` if it is to be tried again.
    pub(super) async fn acquire(&self, queue: &Queue, capacity: usize) -> Result<bool, Failure> {
        let jobs = self.offers_with_room(capacity);
        let (Some(id), false) = (self.id(), jobs.is_empty()) else { return Ok(true) };
        let path = format!("{SETS}/{id}/acquirejobs");
        let acquired = self.service.post_as::<Listed<i64>>(self.common.hub(), &queue.token, &path, &json!(jobs)).await;
        let acquired = match acquired {
            Ok(acquired) => acquired.value,
            Err(Failure::Refused(refusal)) if refusal.status == Some(StatusCode::UNAUTHORIZED) => {
                return self.recover(queue, refusal).await.map(|()| false);
            }
            Err(failure) if failure.status().is_some_and(|status| status.is_client_error()) => {
                let error = Error::from(failure);
                warn!(forge = self.common.forge(), "{} jobs are not to be had at {}: {error}", jobs.len(), self.scope);
                Vec::new()
            }
            Err(failure) => return Err(failure),
        };
        debug!(forge = self.common.forge(), "{} of {} jobs are ours", acquired.len(), jobs.len());
        let mut state = self.state();
        state.offers.retain(|offer| !jobs.contains(offer));
        let now = Instant::now();
        state.acquired.extend(acquired.into_iter().filter(|job| jobs.contains(job)).map(|job| (job, now)));
        Ok(true)
    }

    fn offers_with_room(&self, capacity: usize) -> Vec<i64> {
        let assigned = self.common.heard.assigned(&self.scope);
        let mut state = self.state();
        state.acquired.retain(|_, at| at.elapsed() < ASSIGNED);
        let room = capacity.saturating_sub(assigned + state.acquired.len());
        state.offers.iter().copied().take(room).collect()
    }

    /// After a refusal: a token of the queue is good for a while, and a session may be gone.
    pub(super) async fn recover(&self, queue: &Queue, refusal: Refusal) -> Result<(), Failure> {
        let (Some(StatusCode::UNAUTHORIZED), Some(id)) = (refusal.status, self.id()) else {
            return Err(refusal.into());
        };
        if self.state().renewed.is_some_and(|at| at.elapsed() < RENEWED) {
            return Err(refusal.into());
        }
        self.state().renewed = Some(Instant::now());
        debug!(forge = self.common.forge(), "refreshing the session at {}", self.scope);
        let path = format!("{SETS}/{id}/sessions/{}", segments(&queue.session));
        match self.ask::<Session>(Method::PATCH, path, json!({})).await {
            Ok(session) => {
                let statistics = session.statistics;
                let refreshed = queue.clone().refreshed(session, self.common.hub().api())?;
                self.change(queue, |queue| *queue = refreshed);
                self.common.heard.note(&self.scope, self.common.url(), statistics, &[]);
                Ok(())
            }
            // The next turn opens another one.
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => {
                self.state().queue = None;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Changes the queue, unless another one is in its place.
    pub(super) fn change(&self, queue: &Queue, change: impl FnOnce(&mut Queue)) {
        if let Some(same) = self.state().queue.as_mut().filter(|same| same.session == queue.session) {
            change(same);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::heard::Heard, *};

    #[test]
    fn each_entry_of_a_message_is_read_by_itself() {
        let body = r#"[{"messageType": "JobAssigned", "runnerRequestId": 7, "workflowRunId": null, "ownerName": null}, 3,
            {"messageType": null, "runnerRequestId": 8}, {"runnerRequestId": null}, {"runnerRequestId": 9, "jobDisplayName": 5},
            {"messageType": "JobOfAnotherKind", "runnerRequestId": 10}, {"messageType": "JobStarted", "runnerRequestId": 11}]"#;
        let (jobs, unread) = jobs_in(body);
        assert_eq!(jobs.iter().map(|job| job.runner_request_id).collect::<Vec<_>>(), [7, 8, 10, 11]);
        assert_eq!(unread, 3);
        assert_eq!(jobs_in("{").1, 1);
    }

    #[test]
    fn jobs_without_numbers_are_known_by_their_names() {
        let body = r#"[{"messageType": "JobAssigned", "jobId": "bd59f43d-0001", "runnerRequestId": 0},
            {"messageType": "JobAssigned", "jobId": "bd59f43d-0002", "runnerRequestId": 0},
            {"messageType": "JobStarted", "jobId": "bd59f43d-0001", "runnerRequestId": 0, "runnerName": "r1"}]"#;
        let (jobs, unread) = jobs_in(body);
        assert_eq!((jobs.len(), unread), (3, 0));
        let heard = Heard::default();
        heard.note("orgs/acme", "https://github.com", None, &jobs);
        let (queued, running) = heard.jobs("orgs/acme");
        let ids = |job: &JobMessage| job.id().unwrap();
        assert_eq!(queued.iter().map(|job| job.job.id).collect::<Vec<_>>(), [ids(&jobs[1])]);
        assert_eq!(running.iter().map(|job| job.job.id).collect::<Vec<_>>(), [ids(&jobs[0])]);
        assert_eq!(heard.of_runner("r1").unwrap().id, ids(&jobs[2]));
    }
}
