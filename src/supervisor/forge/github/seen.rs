//! Jobs that were seen waiting or running and have not been seen ended: which runner had one is known only of the job itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::answers::Job;
use crate::supervisor::record::ForgeJob;

/// Runners whose job is remembered.
const REMEMBERED: usize = 1000;

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
