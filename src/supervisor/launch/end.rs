//! The end of a launch: what is there of it is taken away, on the machine and at its forge.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::Launch;
use crate::{
    model::{Error, ErrorKind, Result, time::Timestamp},
    supervisor::{Shared, pool::Pool, record::Stage, runner::Runner},
};

/// Between two tries to take something away.
const PAUSES: [u64; 6] = [1, 2, 5, 10, 30, 60];

impl Launch {
    /// What an earlier life has left of it is taken away.
    pub async fn sweep(self: Arc<Self>, pool: Arc<Pool>) {
        self.clean_up(&pool, "the daemon ended meanwhile".to_owned()).await;
        pool.has_ended(&self, false);
    }

    /// The same, for one whose forge is not configured any more and cannot be asked.
    pub async fn abandon(&self, shared: &Shared) {
        match self.remove_job(shared).await {
            Ok(()) => {
                self.has_ended("the daemon ended meanwhile; its forge is not configured any more".to_owned());
                shared.wake_pools();
            }
            Err(error) => warn!("removing job {}: {}", self.record().name, error.chain()),
        }
    }

    /// Takes everything away, on the machine and at the forge. Tried until it is done.
    pub(super) async fn clean_up(&self, pool: &Arc<Pool>, why: String) {
        let (traffic, usage) = (self.traffic(&pool.shared), self.usage(&pool.shared).await);
        self.change(|record| {
            record.stage = Stage::Ending(why.clone());
            (record.pulled, record.shared) = traffic;
            record.cpu = usage.map_or(record.cpu, |usage| usage.cpu);
        });
        let name = self.record().name.clone();
        self.say_farewell(pool).await;
        let mut pauses = pauses_between_tries();
        while let Err(error) = self.remove_job(&pool.shared).await {
            if !self.may_try_again(pool, &mut pauses, "removing its job", &error).await {
                return;
            }
        }
        drop(self.minting.lock().await);
        // It may have been given a job in the moment in which it was told to end.
        self.note_work(&self.latest(pool)).await;
        let mut concluded = self.conclude(&self.latest(pool), &why).await;
        let mut pauses = pauses_between_tries();
        while let Err(error) = self.deregister(&self.latest(pool)).await {
            if !self.may_try_again(pool, &mut pauses, "deregistering its runner", &error).await {
                return;
            }
        }
        if concluded.is_err() {
            concluded = self.conclude(&self.latest(pool), &why).await;
        }
        let words = concluded
            .unwrap_or_else(|error| format!("{why}; the forge does not say how the job ended: {}", error.chain()));
        info!(launch = name, "{name} has ended: {words}");
        self.has_ended(words);
    }

    /// Which pool speaks for it now.
    fn latest(&self, pool: &Arc<Pool>) -> Arc<Pool> {
        pool.latest(self.record().registration.as_ref())
    }

    /// Waits before the next try; `false` if the supervisor stops before.
    pub(super) async fn may_try_again(
        &self,
        pool: &Pool,
        pauses: &mut (impl Iterator<Item = u64> + Send),
        doing: &str,
        error: &Error,
    ) -> bool {
        let name = &self.record().name;
        warn!(launch = name, "{doing}, of {name}, to be tried again: {}", error.chain());
        let seconds = pauses.next().expect("there is always a next");
        pool.shared.pause(Duration::from_secs(seconds)).await
    }

    fn has_ended(&self, words: String) {
        self.change(|record| {
            record.stage = Stage::Ended(words);
            record.credential = None;
            record.times.ended = Some(Timestamp::now());
        });
    }

    async fn remove_job(&self, shared: &Shared) -> Result<()> {
        // A life that ended between the job's making and its noting knows it by its name alone.
        let record = self.record();
        let reference = record.tenant.as_ref().map_or(record.name.as_str(), |tenant| tenant.as_str());
        match shared.engine.job_delete(reference).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// A runner that has a job and can still tell the forge what becomes of it is told to end before it is made to.
    async fn say_farewell(&self, pool: &Pool) {
        let record = self.record();
        let (Some(limit), Some(_), Some(job)) = (pool.forge.farewell(), &record.work, &record.tenant) else { return };
        let Ok(runner) = Runner::of(&pool.shared, job) else { return };
        match runner.stop(limit).await {
            Err(error) if !matches!(error.kind(), ErrorKind::NotModified | ErrorKind::NotFound) => {
                warn!(launch = record.name, "telling the runner of {} to end: {}", record.name, error.chain());
            }
            _ => {}
        }
    }

    async fn deregister(&self, pool: &Pool) -> Result<()> {
        let record = self.record();
        if let Some(registration) = &record.registration {
            return pool.forge.deregister(registration).await;
        }
        if record.is_registering {
            let name = pool.runner_name(&record.name);
            let mut left = pool.forge.registrations(&name, Some(&record.class)).await?;
            left.retain(|registration| registration.name == name);
            for registration in left {
                pool.forge.deregister(&registration).await?;
            }
        }
        Ok(())
    }

    /// The forge's word of how the job has ended, if there is one: exit codes of runners say nothing. A job of which its runner has not
    /// said it has failed: the forge would wait for minutes.
    async fn conclude(&self, pool: &Pool, why: &str) -> Result<String> {
        let record = self.record();
        let Some(job) = &record.work else { return Ok(why.to_owned()) };
        let mut conclusion = pool.forge.conclusion(job).await;
        if let (Ok(None), Some(credential)) = (&conclusion, &record.credential) {
            match pool.forge.give_up(job, credential, why).await {
                Ok(()) => conclusion = pool.forge.conclusion(job).await,
                Err(error) => {
                    warn!(launch = record.name, "telling the forge that {} has failed: {}", job.name, error.chain());
                }
            }
        }
        Ok(conclusion?.unwrap_or_else(|| format!("{why}; the forge says of the job that it still runs")))
    }
}

pub(super) fn pauses_between_tries() -> impl Iterator<Item = u64> + Send {
    PAUSES.into_iter().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]))
}
