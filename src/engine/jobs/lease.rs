//! What ends a job: its owner's end, its time, too much on the disk, somebody's word.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::store::Job;
use crate::{
    engine::Engine,
    model::job::{EndReason, JobRecord},
    processes::ends::Watched,
};

/// The longest sleep: the machine's clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Engine {
    /// Waits for what ends a job, and removes it then.
    pub(super) fn watch_job(&self, job: &Arc<Job>) {
        let (engine, job) = (self.clone(), job.clone());
        self.spawn("job", async move {
            let stopping = engine.stopping();
            let reason = tokio::select! {
                reason = engine.wait_for_end(&job) => reason,
                () = stopping.cancelled() => return,
            };
            if let Err(error) = job.tell_to_end(reason) {
                // It ends all the same; a daemon that is killed now finds the reason again.
                warn!(job.id = %job.id(), "storing that job {} ends: {}", job.id(), error.chain());
            }
            let record = job.record();
            info!(job.id = %record.id, job.name = record.name, ?reason, "removing job {}", record.name);
            engine.end_job(&job).await;
        });
    }

    async fn wait_for_end(&self, job: &Job) -> EndReason {
        loop {
            let record = job.record();
            if let Some(ending) = &record.ending {
                return ending.reason;
            }
            tokio::select! {
                () = job.changed(&record) => {}
                () = owner_ended(&record) => return EndReason::OwnerEnded,
                () = time_is_up(&record) => return EndReason::Expired,
                () = self.took_too_much_disk(&record) => return EndReason::OverDisk,
            }
        }
    }
}

async fn owner_ended(record: &JobRecord) {
    let Some(owner) = &record.owner else { return std::future::pending().await };
    let ended = match Watched::named(owner) {
        Ok(None) => return,
        Ok(Some(process)) => process.ended().await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        warn!(job.id = %record.id, %error, "watching process {}, which owns job {}: {error}", owner.pid, record.name);
        // Rather removed too late than too early: by its time or by word.
        std::future::pending().await
    }
}

async fn time_is_up(record: &JobRecord) {
    let Some(expires) = record.expires else { return std::future::pending().await };
    loop {
        let left = expires.time_left();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}
