//! What messages have told of the jobs of scale sets. It outlives sessions, and pools of one forge. `jobs` is what is known of one set's.

mod jobs;
mod recent;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::{
    jobs::{Jobs, OPEN, Open},
    recent::Recent,
};
use super::answers::{JobMessage, Statistics};
use crate::supervisor::{
    forge::{QueuedJob, RunningJob},
    record::ForgeJob,
};

/// What has been heard.
#[derive(Default)]
pub struct Heard {
    known: Mutex<Known>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// By the scopes of the sets, in small letters.
    sets: BTreeMap<String, Jobs>,
    /// What runners had, by their name.
    of_runners: Recent<String, ForgeJob>,
    /// How jobs have ended, by the scope of their set, in small letters, and their id there.
    ends: Recent<(String, i64), End>,
}

struct End {
    conclusion: String,
    runner: Option<String>,
}

impl Heard {
    /// A message to the set at `scope`, of a server at `url`.
    pub fn note(&self, scope: &str, url: &str, statistics: Option<Statistics>, messages: &[JobMessage]) {
        let mut known = self.lock();
        known.set(scope).count(statistics);
        for message in messages {
            known.note(scope, url, message);
        }
        let jobs = known.set(scope);
        let waits = |id: &i64| jobs.open.get(id).is_some_and(|open| open.runner.is_none());
        let assigned = messages.iter().filter(|message| message.message_type == "JobAssigned");
        // One that was taken back and assigned again is told of twice.
        let told: BTreeSet<i64> = assigned.filter_map(JobMessage::id).filter(waits).collect();
        jobs.told = told.len();
        jobs.messages += 1;
        drop(known);
        self.has_changed();
    }

    /// Messages to the set at `scope` until now.
    pub fn messages(&self, scope: &str) -> u64 {
        self.lock().set(scope).messages
    }

    /// What was counted when so many `messages` had been told.
    pub fn count(&self, scope: &str, messages: u64, statistics: Statistics) {
        let mut known = self.lock();
        let jobs = known.set(scope);
        if jobs.messages != messages || (jobs.statistics == Some(statistics) && jobs.told == 0) {
            return;
        }
        jobs.count(Some(statistics));
        jobs.told = 0;
        drop(known);
        self.has_changed();
    }

    /// How many jobs the set at `scope` has, those that run among them.
    pub fn assigned(&self, scope: &str) -> usize {
        self.lock().set(scope).assigned()
    }

    /// The jobs of the set at `scope` that wait for a runner, and those that have one. Their count is GitHub's: what was told to an
    /// earlier life is not told again.
    pub fn jobs(&self, scope: &str) -> (Vec<QueuedJob>, Vec<RunningJob>) {
        let mut known = self.lock();
        let jobs = known.set(scope);
        let running = jobs.open.values().filter(|open| open.runner.is_some());
        let running =
            running.map(|open| RunningJob { job: open.job.clone(), runner: open.runner.clone(), handle: None });
        (jobs.queued(scope, Instant::now()), running.collect())
    }

    /// A runner was made of the set at `scope`.
    pub fn runner_is_there(&self, scope: &str, runner: &str) {
        self.lock().set(scope).runners.insert(runner.to_owned(), Instant::now());
    }

    /// One is not there any more. For how long nothing is launched for jobs of which nobody tells, if it has waited for one in vain.
    pub fn runner_is_gone(&self, scope: &str, runner: &str) -> Option<Duration> {
        let had_a_job = self.of_runner(runner).is_some();
        let pause = self.lock().set(scope).runner_is_gone(runner, had_a_job, Instant::now());
        self.has_changed();
        pause
    }

    /// Whether a runner of the set at `scope` is there.
    pub fn has_runner(&self, scope: &str, runner: &str) -> bool {
        self.lock().set(scope).runners.contains_key(runner)
    }

    /// Whether the set at `scope` has runners.
    pub fn has_runners(&self, scope: &str) -> bool {
        !self.lock().set(scope).runners.is_empty()
    }

    /// Changes when something is heard.
    pub fn news(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Something is to be looked at.
    pub fn has_changed(&self) {
        self.changed.send_replace(());
    }

    /// What a runner had.
    pub fn of_runner(&self, runner: &str) -> Option<ForgeJob> {
        let known = self.lock();
        let mut open = known.sets.values().flat_map(|jobs| jobs.open.values());
        let has = open.find(|open| open.runner.as_deref() == Some(runner)).map(|open| &open.job);
        has.or_else(|| known.of_runners.get(&runner.to_owned())).cloned()
    }

    /// How a job of the set at one of these scopes, in small letters, has ended.
    pub fn end_of(&self, scopes: &[String], job: i64) -> Option<String> {
        let known = self.lock();
        scopes.iter().find_map(|scope| Some(known.ends.get(&(scope.clone(), job))?.conclusion.clone()))
    }

    /// Waits until something has been heard.
    pub async fn until(&self, is_heard: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        while !is_heard(self) {
            // The sender is ours: it is there for as long as we are.
            let _always = changed.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn set(&mut self, scope: &str) -> &mut Jobs {
        self.sets.entry(scope.to_lowercase()).or_default()
    }

    /// Messages that were not acknowledged come again. A job that no runner took in time is told to be cancelled, and assigned again by
    /// its id ("Job Reassignment" of actions/scaleset): that is no end of it.
    fn note(&mut self, scope: &str, url: &str, message: &JobMessage) {
        let Some(id) = message.id() else { return };
        let job = message.job(id, url);
        let runner = Some(&message.runner_name).filter(|name| !name.is_empty()).cloned();
        if let Some(runner) = &runner {
            self.of_runners.insert(runner.clone(), job.clone());
        }
        let key = (scope.to_lowercase(), id);
        let jobs = self.sets.entry(key.0.clone()).or_default();
        match message.message_type.as_str() {
            "JobCompleted" => {
                let runner = jobs.open.remove(&id).and_then(|open| open.runner).or(runner);
                let conclusion = message.conclusion();
                if runner.is_some() || conclusion != "cancelled" {
                    self.ends.insert(key, End { conclusion, runner });
                }
            }
            "JobAssigned" | "JobStarted" if jobs.open.len() < OPEN => {
                if runner.is_some() && self.ends.get(&key).is_some_and(|end| end.runner == runner) {
                    return;
                }
                self.ends.remove(&key);
                if runner.is_some() && !jobs.open.contains_key(&id) {
                    jobs.nameless_has_begun();
                }
                let known = jobs.open.entry(id).or_insert(Open { job, since: message.since(), runner: None });
                known.runner = runner.or(known.runner.take());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "orgs/acme";

    fn message(kind: &str, id: i64, runner: &str, result: &str) -> JobMessage {
        JobMessage {
            message_type: kind.to_owned(),
            runner_request_id: id,
            owner_name: "acme".to_owned(),
            repository_name: "tool".to_owned(),
            runner_name: runner.to_owned(),
            result: result.to_owned(),
            ..JobMessage::default()
        }
    }

    fn counted(assigned: usize, running: usize) -> Option<Statistics> {
        Some(Statistics { total_assigned_jobs: assigned, total_running_jobs: running, total_available_jobs: 0 })
    }

    fn ids(heard: &Heard) -> (Vec<i64>, Vec<i64>) {
        let (queued, running) = heard.jobs(SCOPE);
        (queued.iter().map(|job| job.job.id).collect(), running.iter().map(|job| job.job.id).collect())
    }

    #[test]
    fn a_job_waits_runs_and_has_ended_whatever_comes_twice() {
        let heard = Heard::default();
        let note = |statistics, message: JobMessage| heard.note(SCOPE, "https://g", statistics, &[message]);
        for _ in 0..2 {
            note(counted(1, 0), message("JobAssigned", 7, "", ""));
            assert_eq!(ids(&heard), (vec![7], vec![]));
        }
        note(counted(1, 1), message("JobStarted", 7, "r1", ""));
        assert_eq!(ids(&heard), (vec![], vec![7]));
        assert_eq!(heard.of_runner("r1").unwrap().repository, "acme/tool");
        note(counted(0, 0), message("JobCompleted", 7, "r1", "canceled"));
        note(counted(0, 0), message("JobStarted", 7, "r1", ""));
        assert_eq!(ids(&heard), (vec![], vec![]));
        assert_eq!(heard.end_of(&[SCOPE.to_owned()], 7).as_deref(), Some("cancelled"));
        assert_eq!(heard.end_of(&["repos/acme/tool".to_owned()], 7), None, "another service's number");
    }

    #[test]
    fn a_job_that_was_taken_back_and_assigned_again_runs() {
        let heard = Heard::default();
        let note = |statistics, message: JobMessage| heard.note(SCOPE, "https://g", statistics, &[message]);
        let end = || heard.end_of(&[SCOPE.to_owned()], 7);
        for _ in 0..2 {
            note(counted(1, 0), message("JobAssigned", 7, "", ""));
            assert_eq!(ids(&heard), (vec![7], vec![]));
            note(counted(0, 0), message("JobCompleted", 7, "", "canceled"));
            assert_eq!((ids(&heard), end()), ((vec![], vec![]), None));
        }
        let again = [
            message("JobAssigned", 7, "", ""),
            message("JobCompleted", 7, "", "canceled"),
            message("JobAssigned", 7, "", ""),
        ];
        heard.note(SCOPE, "https://g", counted(1, 0), &again);
        assert_eq!(ids(&heard), (vec![7], vec![]), "one runner, not two");
        note(counted(1, 1), message("JobStarted", 7, "r1", ""));
        assert_eq!(ids(&heard), (vec![], vec![7]));
        note(counted(0, 0), message("JobCompleted", 7, "r1", "failed"));
        assert_eq!(end().as_deref(), Some("failure"));
        note(counted(1, 1), message("JobStarted", 7, "r2", ""));
        assert_eq!((ids(&heard).1, end()), (vec![7], None), "another runner has it");
    }

    #[test]
    fn what_is_told_counts_beside_what_was_counted_before() {
        let heard = Heard::default();
        heard.note(SCOPE, "https://g", counted(0, 0), &[message("JobAssigned", 7, "", "")]);
        assert_eq!((ids(&heard).0, heard.assigned(SCOPE)), (vec![7], 1));
        let messages = heard.messages(SCOPE);
        heard.count(SCOPE, messages - 1, Statistics::default());
        assert_eq!(ids(&heard).0, [7], "counted before it was told");
        heard.count(SCOPE, messages, Statistics::default());
        assert_eq!((ids(&heard).0, heard.assigned(SCOPE)), (vec![], 0));
    }

    #[test]
    fn the_newest_are_remembered_and_what_runs_is_known() {
        let heard = Heard::default();
        let note = |kind, id: i64| {
            let message = message(kind, id, &format!("r{id}"), "succeeded");
            heard.note(SCOPE, "https://g", None, &[message]);
        };
        note("JobStarted", 1);
        (2..=1002).for_each(|id| note("JobCompleted", id));
        assert_eq!(heard.of_runner("r1").unwrap().id, 1);
        let end = |id| heard.end_of(&[SCOPE.to_owned()], id).is_some();
        assert_eq!((end(2), end(3), end(1002)), (false, true, true));
    }

    #[test]
    fn the_number_of_jobs_is_what_github_counts() {
        let heard = Heard::default();
        heard.note(SCOPE, "https://g", counted(3, 1), &[]);
        assert_eq!(ids(&heard), (vec![-1, -2], vec![]), "nobody has told of them");
        heard.note(
            SCOPE,
            "https://g",
            counted(2, 1),
            &[message("JobAssigned", 7, "", ""), message("JobAssigned", 8, "", "")],
        );
        assert_eq!(ids(&heard).0, [7, 8]);
        heard.note(SCOPE, "https://g", counted(2, 1), &[]);
        assert_eq!(ids(&heard).0, [7], "another one has been taken back");
        heard.note(SCOPE, "https://g", None, &[]);
        assert_eq!(ids(&heard).0, [7]);
        heard.note(SCOPE, "https://g", counted(0, 0), &[]);
        assert_eq!(ids(&heard), (vec![], vec![]));
        heard.note(SCOPE, "https://g", counted(1, 0), &[message("JobAssigned", 7, "", "")]);
        assert_eq!(ids(&heard).0, [7]);
        assert_eq!(heard.jobs("orgs/else"), (Vec::new(), Vec::new()));
    }
}
