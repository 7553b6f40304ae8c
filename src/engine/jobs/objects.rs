//! What jobs have, in numbers.

use std::sync::Arc;

use crate::{
    engine::{Engine, tenants::Tenant},
    model::job::JobRecord,
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

impl Engine {
    /// The same of all jobs, oldest first.
    pub fn job_objects(&self) -> Vec<JobObjects> {
        self.jobs.list().iter().map(|job| self.objects_of(job.record())).collect()
    }

    fn objects_of(&self, job: Arc<JobRecord>) -> JobObjects {
        let id = &job.id;
        let both = [id.clone(), id.of_runner()];
        // What is gone meanwhile needs nothing any more.
        let tenants: Vec<Arc<Tenant>> = both.iter().filter_map(|id| self.tenants.get(id).ok()).collect();
        JobObjects {
            containers: self.containers.list(id).len(),
            networks: self.networks.list(id).len(),
            volumes: self.volumes.list(id).len(),
            pulled: tenants.iter().map(|tenant| tenant.traffic().pulled()).sum(),
            shared: tenants.iter().map(|tenant| tenant.traffic().shared()).sum(),
            job,
        }
    }
}
