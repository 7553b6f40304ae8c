//! What jobs have, in numbers.

use std::sync::Arc;

use crate::{
    engine::{
        Engine,
        tenants::{Tenant, Traffic},
    },
    model::{id::TenantId, job::JobRecord},
};

/// What a job has now, and what its pulls needed.
#[derive(Clone, Debug)]
pub struct JobObjects {
    /// The job.
    pub job: Arc<JobRecord>,
    /// Containers, running or not, without its runner's.
    pub containers: usize,
    /// Networks, with the predefined ones.
    pub networks: usize,
    /// Volumes.
    pub volumes: usize,
    /// Bytes of layers that were fetched for it, also for its runner.
    pub pulled: u64,
    /// Bytes of layers that were here already.
    pub shared: u64,
}

/// What the processes of a job use: of its containers, its runner and its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobUsage {
    /// Time on the processors since the job was made, in nanoseconds.
    pub cpu: u64,
    /// Bytes of memory now.
    pub memory: u64,
}

impl Engine {
    /// None of one that is gone.
    pub async fn job_usage(&self, job: &TenantId) -> Option<JobUsage> {
        let usage = self.backends.runtime.parent_stats(job).await.ok()?;
        Some(JobUsage { cpu: usage.cpu.total, memory: usage.memory.without_idle_files() })
    }

    /// The same of all jobs, oldest first.
    pub fn job_objects(&self) -> Vec<JobObjects> {
        self.jobs.list().iter().map(|job| self.objects_of(job.record())).collect()
    }

    /// Bytes of layers that were fetched for a job, and those that were here already; none of one that is gone.
    pub fn job_traffic(&self, job: &TenantId) -> Option<(u64, u64)> {
        let both = [job.clone(), job.of_runner()];
        let tenants: Vec<Arc<Tenant>> = both.iter().filter_map(|id| self.tenants.get(id).ok()).collect();
        let sum = |of: fn(&Traffic) -> u64| tenants.iter().map(|tenant| of(tenant.traffic())).sum();
        (!tenants.is_empty()).then(|| (sum(Traffic::pulled), sum(Traffic::shared)))
    }

    fn objects_of(&self, job: Arc<JobRecord>) -> JobObjects {
        let id = &job.id;
        // What is gone meanwhile needs nothing any more.
        let (pulled, shared) = self.job_traffic(id).unwrap_or_default();
        JobObjects {
            containers: self.containers.list(id).len(),
            networks: self.networks.list(id).len(),
            volumes: self.volumes.list(id).len(),
            pulled,
            shared,
            job,
        }
    }
}
