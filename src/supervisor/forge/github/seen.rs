//! Jobs that were seen waiting or running and have not been seen ended: which runner had one is known only of the job itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::answers::Job;
use crate::supervisor::record::ForgeJob;

/// Runners whose job is remembered.
const REMEMBERED: usize = 1000;

/// Jobs that webhooks may tell of before a look has seen them ended.
const HEARD: usize = 10_000;

/// The looks at all repositories.
#[derive(Default)]
pub struct Round(Mutex<(Option<Instant>, Option<Instant>)>);

impl Round {
    /// Whether the next look is one; the last that was is as long ago as that, or none has come to its end.
    pub fn is_due(&self, interval: Duration) -> bool {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = round.0.is_none_or(|done| done.elapsed() >= interval);
        round.1 = is_due.then(Instant::now);
        is_due
    }

    /// The look has come to its end.
    pub fn is_done(&self) {
        let mut round = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        round.0 = round.1.take().or(round.0);
    }
}

/// What the looks have seen.
#[derive(Default)]
pub struct Seen(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Repositories of jobs that have not ended, by the jobs' number.
    open: BTreeMap<i64, String>,
    /// What runners had, by their name.
    of_runners: BTreeMap<String, ForgeJob>,
}

impl Seen {
    /// A job as it is now.
    pub fn note(&self, repository: &str, job: &Job) {
        let mut known = self.lock();
        if let Some(runner) = job.runner_name.as_ref().filter(|runner| !runner.is_empty()) {
            if known.of_runners.len() >= REMEMBERED {
                known.of_runners.clear();
            }
            known.of_runners.insert(runner.clone(), job.in_repository(repository));
        }
        if job.status == "completed" {
            known.open.remove(&job.id);
        } else {
            known.open.insert(job.id, repository.to_owned());
        }
    }

    /// One of which a webhook tells, unless a look has seen more of it.
    pub fn hear(&self, repository: &str, job: i64) {
        let mut known = self.lock();
        if known.open.len() < HEARD {
            known.open.entry(job).or_insert_with(|| repository.to_owned());
        }
    }

    /// The repositories of those that have not ended.
    pub fn repositories(&self) -> BTreeSet<String> {
        self.lock().open.values().cloned().collect()
    }

    /// Jobs that have not ended and are not among these, with their repositories.
    pub fn missing(&self, present: &BTreeSet<i64>) -> Vec<(i64, String)> {
        let known = self.lock();
        known.open.iter().filter(|(id, _)| !present.contains(id)).map(|(id, name)| (*id, name.clone())).collect()
    }

    /// One that is there no more.
    pub fn forget(&self, job: i64) {
        self.lock().open.remove(&job);
    }

    /// What a runner had.
    pub fn of_runner(&self, runner: &str) -> Option<ForgeJob> {
        self.lock().of_runners.get(runner).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
