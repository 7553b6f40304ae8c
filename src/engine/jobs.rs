//! Jobs: verbs. A job is a tenant with a socket of its own and an end; everything made through the socket goes with it.
//!
//! `caches` and `build_caches` keep what outlives them, `store` keeps the records, `lease` waits for what ends a job, `disk` for its taking too much of it, `end` removes it, `restore` takes jobs up at start, `objects` counts what they have, `overview` shows it, `kept` what they have left.

mod build_caches;
mod caches;
mod disk;
mod end;
mod kept;
mod lease;
mod objects;
mod overview;
mod restore;
mod store;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tracing::info;

pub(crate) use self::store::Job;
pub use self::{
    build_caches::BuildCacheStore,
    caches::CacheStore,
    kept::KeptCache,
    objects::{JobObjects, JobUsage},
    overview::Owner,
    store::JobStore,
};
use crate::{
    engine::{
        Engine,
        tenants::{Host, Tenant},
    },
    model::{
        Error, Result,
        error::Context,
        id::TenantId,
        job::{self, DiskPlace, EndReason, JobRecord, JobReport, JobRequest},
        registry_auth::Logins,
        time::Timestamp,
    },
    policy,
    processes::ends,
};

/// How long a client is kept waiting for the end of a job; the removal itself goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens the sockets of jobs: what stands above the engine and serves an API.
pub trait Doors: Send + Sync + 'static {
    /// Makes the socket of a job and serves its tenant there. A dead socket in its place is replaced.
    fn open(&self, job: &JobRecord, socket: &Path) -> Result<Box<dyn Door>>;
}

/// The socket of a job.
#[async_trait]
pub trait Door: Send + Sync {
    /// Takes it away: nobody is let in any more, and whoever is in is cut off. Returns when that has happened.
    async fn close(self: Box<Self>);
}

/// A job for clients.
#[derive(Clone, Debug)]
pub struct JobView {
    /// What is stored of it.
    pub record: Arc<JobRecord>,
    /// Its socket.
    pub socket: PathBuf,
    /// Where file systems keep its limit of the disk, which is watched in any case.
    pub disk_quota: Vec<DiskPlace>,
    /// Why its removal has not come to its end yet.
    pub trouble: Option<String>,
}

impl Engine {
    /// Makes a job: its record, its network, its cgroup, its socket. What a failure leaves is taken back.
    pub async fn job_create(&self, request: JobRequest) -> Result<JobView> {
        let engine = self.clone();
        self.run("job_create", async move { engine.create_job(request).await }).await
    }

    async fn create_job(&self, request: JobRequest) -> Result<JobView> {
        let owner = request.owner_pid.map(|pid| {
            ends::name_of(pid)
                .map_err(|error| Error::invalid(format!("no process {pid} that could own a job: {error}")))
        });
        caches::check(&request, self.backends.builders.is_here())?;
        let id = store::new_id();
        let name = request.name.unwrap_or_else(|| id.to_string());
        job::check_name(&name)?;
        let policy = self.find_policy(request.policy.as_ref())?;
        let policy = policy::with_binds(policy, self.check_binds(request.binds)?);
        let host = request.network_from.map(|other| self.host_for(&other, request.uid)).transpose()?;
        let (owner, expires) = (owner.transpose()?, request.ttl.map(job::expiry).transpose()?);
        let project = self.choose_project(&request.limits).await;
        let changing = self.build_caches.changing.lock().await;
        let build_cache = self.choose_build_cache(request.cache_key.as_deref(), &request.cache_volumes)?;
        let record = JobRecord {
            id,
            name,
            created: Timestamp::now(),
            uid: request.uid,
            owner,
            expires,
            limits: request.limits,
            openings: request.openings,
            surroundings: request.surroundings,
            registries: request.registries.into_iter().chain(request.logins.keys().cloned()).collect(),
            policy: Some(policy),
            cache_key: request.cache_key,
            cache_volumes: request.cache_volumes,
            host,
            build_cache,
            project,
            ending: None,
        };
        let job = self.jobs.add(record)?;
        drop(changing);
        match self.open_job(&job, &request.logins).await {
            Ok(()) => {
                let record = job.record();
                info!(job.id = %record.id, job.name = record.name, "made job {}", record.name);
                self.watch_job(&job);
                Ok(self.view(&job))
            }
            Err(error) => {
                job.tell_to_end(EndReason::NotMade)?;
                self.watch_job(&job);
                job.gone(PATIENCE).await;
                Err(error.context("making a job"))
            }
        }
    }

    /// In whose name the host was made that a new job of `uid` has with another one.
    fn host_for(&self, other: &str, uid: u32) -> Result<TenantId> {
        let other = self.jobs.get(other)?.record();
        if other.uid != uid {
            return Err(Error::invalid(format!(
                "job {} is of another user: its network is not given away",
                other.name
            )));
        }
        match other.ending {
            Some(_) => Err(Error::conflict(format!("job {} is being removed", other.name))),
            None => Ok(other.host().clone()),
        }
    }

    /// All jobs, oldest first.
    pub fn job_list(&self) -> Vec<JobView> {
        self.jobs.list().iter().map(|job| self.view(job)).collect()
    }

    /// A job by its id, its name or a unique prefix of its id.
    pub fn job_inspect(&self, reference: &str) -> Result<JobView> {
        Ok(self.view(&*self.jobs.get(reference)?))
    }

    /// Gives a job another time from now on; with `disown`, it ends no more with its owner.
    pub fn job_extend(&self, reference: &str, ttl: u64, disown: bool) -> Result<JobView> {
        let job = self.jobs.get(reference)?;
        let expires = job::expiry(ttl)?;
        job.change(|record| match record.ending {
            Some(_) => Err(Error::conflict(format!("job {} is being removed", record.name))),
            None => {
                record.expires = Some(expires);
                if disown {
                    record.owner = None;
                }
                Ok(())
            }
        })?;
        Ok(self.view(&job))
    }

    /// Ends a job and removes everything of it. Answers when nothing is left, with what was removed.
    pub async fn job_delete(&self, reference: &str) -> Result<JobReport> {
        let job = self.jobs.get(reference)?;
        job.tell_to_end(EndReason::Removed)?;
        let record = job.record();
        let report = job.gone(PATIENCE).await.ok_or_else(|| {
            let why = job.trouble().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            Error::unavailable(format!("job {} is still being removed{why}", record.name))
        })?;
        Ok(JobReport { ending: record.ended_by_itself(), ..report })
    }

    fn view(&self, job: &Job) -> JobView {
        let disk_quota = self.disk_quota(job.id());
        JobView { record: job.record(), socket: self.job_socket(job), disk_quota, trouble: job.trouble() }
    }

    /// Where a job's socket is: alone in a folder, which containers can be given whole.
    pub(crate) fn job_socket(&self, job: &Job) -> PathBuf {
        self.job_folder(job).join("docker.sock")
    }

    fn job_folder(&self, job: &Job) -> PathBuf {
        self.config.exec_root.join("jobs").join(job.id().as_str())
    }

    /// Whatever a job needs before somebody uses it. For one that a later life of the daemon takes up its networks are opened with all others.
    async fn open_job(&self, job: &Job, logins: &Logins) -> Result<()> {
        let tenant = self.enter_host(job).await?;
        for tenant in [tenant, self.tenants.get(&job.id().of_runner())?] {
            tenant.has_logins(logins.clone());
            self.open_networks_of(&tenant).await?;
        }
        self.give_preloaded(job.id()).await;
        self.give_cache_volumes(&job.record()).await?;
        self.let_in(job).await
    }

    /// The tenant of a new job, let into its host. That of another job may have been left by all since it was asked for.
    async fn enter_host(&self, job: &Job) -> Result<Arc<Tenant>> {
        let _changing = self.tenants.change_hosts().await;
        let record = job.record();
        match &record.host {
            Some(host) if !self.tenants.is_anybody_in(host) => {
                Err(Error::conflict(format!("the job whose network {} was to have is gone", record.name)))
            }
            _ => self.tenant_of(job).await,
        }
    }

    /// Makes its cgroup and its socket.
    async fn let_in(&self, job: &Job) -> Result<()> {
        let record = job.record();
        self.backends.runtime.make_parent(&record.id, &record.limits).await?;
        self.open_door(job)
    }

    /// The tenant of a job under its policy, with the host of its networks, in which its runner's is too. The runner is no
    /// client of the job: it has what dockerd gives everybody.
    async fn tenant_of(&self, job: &Job) -> Result<Arc<Tenant>> {
        let id = job.id();
        if let Ok(tenant) = self.tenants.get(id) {
            return Ok(tenant);
        }
        let record = job.record();
        let policy = match &record.policy {
            Some(stored) => policy::completed(stored.clone()),
            None => self.find_policy(None)?,
        };
        let host = Host { of: record.host().clone(), network: self.backends.network.open(record.host()).await? };
        if !record.openings.is_empty() {
            self.backends.network.open_job_to(record.host(), record.openings.clone()).await?;
        }
        self.write_authorities(&record.surroundings)?;
        let quota = self.set_quota(&record).await?;
        let runner = self.tenants.add_within(&id.of_runner(), host.clone(), &record.surroundings);
        let tenant = self.tenants.add_within(id, host, &record.surroundings);
        for tenant in [&runner, &tenant] {
            quota.iter().for_each(|quota| tenant.has_quota(quota.clone()));
        }
        tenant.obeys(Arc::new(policy));
        tenant.has_registries(record.registries.clone());
        Ok(tenant)
    }

    fn open_door(&self, job: &Job) -> Result<()> {
        let (record, socket) = (job.record(), self.job_socket(job));
        let doors = self.jobs.doors().ok_or_else(|| Error::unavailable("no sockets can be made yet"))?;
        store::make_folder(&self.job_folder(job), record.uid).context("making the folder of a job's socket")?;
        for tenant in [record.id.clone(), record.id.of_runner()] {
            self.tenant_listens_at(&tenant, socket.clone())?;
        }
        job.keep_door(doors.open(&record, &socket)?);
        Ok(())
    }
}
