//! Jobs of an earlier life of the daemon.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{StreamExt, stream};
use tracing::{info, warn};

use super::Doors;
use crate::{
    engine::Engine,
    model::{
        Result,
        id::TenantId,
        job::{EndReason, Ending, JobLimits, JobRecord, Surroundings},
        time::Timestamp,
    },
};

/// Hosts that are opened at once.
const AT_ONCE: usize = 8;

impl Engine {
    /// Begins to serve jobs, those of earlier lives first: what was being removed is removed, the others get their sockets
    /// back. For when `doors` can make them.
    pub async fn serve_jobs(&self, doors: Arc<dyn Doors>) {
        self.jobs.set_doors(doors);
        for job in self.jobs.list() {
            if job.record().ending.is_none()
                && let Err(error) = self.let_in(&job).await
            {
                warn!(job.id = %job.id(), "taking up job {}: {}", job.record().name, error.chain());
                let _kept_in_memory = job.tell_to_end(EndReason::NotMade);
            }
            let record = job.record();
            if record.ending.is_none() {
                info!(job.id = %record.id, job.name = record.name, "took up job {}", record.name);
            }
            self.watch_job(&job);
        }
        self.look_after_caches();
    }

    /// Makes tenants of all jobs, before their networks are opened. Whose things are found without a record of a job is removed
    /// as one that is lost.
    pub(crate) async fn take_up_tenants(&self) -> Result<()> {
        for tenant in self.tenants_of_things() {
            if tenant != TenantId::default_tenant() && !self.jobs.has(&tenant) {
                warn!(job.id = %tenant, "there are things of {tenant}, but no record of such a job: they are removed");
                self.jobs.add(lost(&tenant))?;
            }
        }
        let opening = stream::iter(self.jobs.list()).for_each_concurrent(AT_ONCE, |job| async move {
            if let Err(error) = self.tenant_of(&job).await {
                warn!(job.id = %job.id(), "opening the host of job {}: {}", job.record().name, error.chain());
                // Its removal tries again.
                let _kept_in_memory = job.tell_to_end(EndReason::NotMade);
            }
        });
        opening.await;
        Ok(())
    }

    fn tenants_of_things(&self) -> BTreeSet<TenantId> {
        let containers = self.containers.list_all().into_iter().map(|container| container.record().tenant.clone());
        let tenants = containers.chain(self.networks.tenants_with_some()).chain(self.volumes.tenants_with_some());
        tenants.map(|tenant| tenant.served().unwrap_or(tenant)).collect()
    }
}

fn lost(tenant: &TenantId) -> JobRecord {
    let now = Timestamp::now();
    JobRecord {
        id: tenant.clone(),
        name: tenant.to_string(),
        created: now,
        uid: 0,
        owner: None,
        expires: None,
        limits: JobLimits::default(),
        openings: BTreeSet::new(),
        surroundings: Surroundings::default(),
        registries: BTreeSet::new(),
        policy: None,
        cache_key: None,
        cache_volumes: Vec::new(),
        host: None,
        build_cache: None,
        project: None,
        ending: Some(Ending { reason: EndReason::Lost, since: now }),
    }
}
