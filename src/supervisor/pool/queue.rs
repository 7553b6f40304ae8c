//! What a look saw waiting: which jobs are ours to run, and how long they had waited.

use std::collections::BTreeSet;

use tracing::info;

use super::{Pool, lock, origins::NOT_YET};
use crate::{
    model::time::Timestamp,
    supervisor::{balance::Class, forge::QueuedJob, tally::Part},
};

/// What the last look saw waiting.
#[derive(Clone, Default)]
pub(super) struct Queue {
    /// When it began.
    pub looked: Option<Timestamp>,
    /// Jobs that are ours to run.
    pub served: Vec<QueuedJob>,
    /// The others.
    pub unserved: Vec<Unserved>,
}

/// A job that waits for nobody, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// What waits.
    pub queued: QueuedJob,
    /// Why no runner is launched.
    pub why: String,
}

impl Pool {
    /// The jobs that are ours to run, and the others with the reason.
    pub(super) async fn sort_out(&self, queued: Vec<QueuedJob>) -> (Vec<QueuedJob>, Vec<Unserved>) {
        let (mut served, mut unserved) = (Vec::new(), Vec::new());
        for job in queued {
            let unknown: Vec<&str> =
                job.labels.iter().filter(|label| !self.settings.labels.contains(*label)).map(String::as_str).collect();
            let why = if !self.settings.allows(&job.job.repository) {
                Some(format!("jobs of {} are not allowed here", job.job.repository))
            } else if !unknown.is_empty() {
                Some(format!("no runner here has the label {}", unknown.join(", ")))
            } else {
                None
            };
            match why {
                Some(why) => unserved.push(Unserved { queued: job, why }),
                None => served.push(job),
            }
        }
        let (served, refused) = self.leave_out(served).await;
        unserved.extend(refused);
        (served, unserved)
    }

    /// Where images depend on the repository, no runner may be given another one's job.
    pub(super) fn class_of(&self, job: &QueuedJob) -> Class {
        let repository = self.settings.depends_on_repository().then(|| job.job.repository.clone());
        Class { labels: job.labels.iter().cloned().collect(), repository, handle: job.handle.clone() }
    }

    /// How long jobs were waiting that no look has seen before: a job that was not there at the last one has come since.
    pub(super) fn note_discovered(&self, queued: &[QueuedJob], before: &Queue) {
        let known: BTreeSet<i64> = before.served.iter().map(|queued| queued.job.id).collect();
        for job in queued.iter().filter(|queued| !known.contains(&queued.job.id)) {
            if let Some(since) = job.since.max(before.looked) {
                self.shared.tally.waited(&self.settings.name, Part::Discovery, since.elapsed());
            }
        }
    }

    pub(super) fn tell_unserved(&self, unserved: &[Unserved]) {
        let mut told = lock(&self.told);
        for Unserved { queued: QueuedJob { job, .. }, why } in unserved.iter().filter(|left| left.why != NOT_YET) {
            if told.unserved.get(&job.id) != Some(why) {
                info!(forge = self.settings.name, "job {} of {} is left alone: {why}", job.name, job.repository);
            }
        }
        told.unserved = unserved.iter().map(|left| (left.queued.job.id, left.why.clone())).collect();
    }
}
