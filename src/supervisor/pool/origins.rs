//! Whence the jobs come that wait, where some are left out for that. An answer is kept for a while, and one that failed for a moment.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{Pool, lock, queue::Unserved};
use crate::{
    model::{Error, Result},
    supervisor::{forge::QueuedJob, origin::Origin, record::ForgeJob},
};

/// How long an answer holds: a repository may become public.
const KEPT: Duration = Duration::from_secs(300);

/// The same of one that the job is a fork's, which it stays.
const KEPT_OF_FORK: Duration = Duration::from_secs(24 * 3600);

/// Until something is asked again that could not be told.
const FAILED: Duration = Duration::from_secs(60);

/// How long one look goes on asking, and how much at once.
const ASKING: Duration = Duration::from_secs(20);
const AT_ONCE: usize = 6;

/// What is said of a job that was not asked for yet.
pub(super) const NOT_YET: &str = "it is not known yet whether it may run";

/// By repository and run; by the repository alone where nothing depends on the run.
pub(super) type Origins = BTreeMap<(String, i64), (Instant, Result<Origin, String>)>;

fn is_good(kept: &(Instant, Result<Origin, String>)) -> bool {
    let longest = match &kept.1 {
        Ok(origin) if origin.is_of_fork == Some(true) => KEPT_OF_FORK,
        Ok(_) => KEPT,
        Err(_) => FAILED,
    };
    kept.0.elapsed() < longest
}

impl Pool {
    /// Whence a job comes.
    pub async fn origin_of(&self, job: &ForgeJob) -> Result<Origin> {
        let depends_on_run = self.settings.left_out.forks || self.settings.branch_caches;
        let run = if depends_on_run { job.run.unwrap_or(job.id) } else { 0 };
        let key = (job.repository.clone(), run);
        let kept = lock(&self.origins).get(&key).filter(|kept| is_good(kept)).map(|kept| kept.1.clone());
        let told = match kept {
            Some(told) => told,
            None => {
                let told = self.forge.origin(job).await.map_err(|error| error.chain());
                let mut origins = lock(&self.origins);
                origins.retain(|_, kept| is_good(kept));
                origins.insert(key, (Instant::now(), told.clone()));
                told
            }
        };
        told.map_err(Error::unavailable)
    }

    /// Why a job does not run here by whence it comes, if so.
    async fn refusal_of(&self, job: &ForgeJob) -> Option<String> {
        match self.origin_of(job).await {
            Ok(origin) => self.settings.left_out.refusal(&job.repository, &origin),
            Err(error) => Some(format!("whether it may run cannot be told: {}", error.chain())),
        }
    }

    /// Of jobs that are ours to run, those that are not left out.
    pub(super) async fn leave_out(&self, jobs: Vec<QueuedJob>) -> (Vec<QueuedJob>, Vec<Unserved>) {
        if !self.settings.left_out.is_any() {
            return (jobs, Vec::new());
        }
        let begun = Instant::now();
        let asked = stream::iter(jobs).map(async |queued| {
            let is_late = begun.elapsed() > ASKING;
            let why = if is_late { Some(NOT_YET.to_owned()) } else { self.refusal_of(&queued.job).await };
            (queued, why)
        });
        let (mut served, mut unserved) = (Vec::new(), Vec::new());
        for (queued, why) in asked.buffered(AT_ONCE).collect::<Vec<_>>().await {
            match why {
                Some(why) => unserved.push(Unserved { queued, why }),
                None => served.push(queued),
            }
        }
        (served, unserved)
    }
}
