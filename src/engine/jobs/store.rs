//! Jobs on disk and in memory: one JSON file each.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Door, Doors};
use crate::{
    engine::records::RecordFolder,
    model::{
        Error, Result,
        error::Context,
        id::{ContainerId, TenantId},
        job::{EndReason, Ending, JobRecord, JobReport},
        time::Timestamp,
    },
};

/// Jobs that may be there at once.
const MOST: usize = 10_000;

/// Jobs that have ended by themselves of which it is known why.
const REMEMBERED: usize = 256;

/// A new tenant's id.
pub(super) fn new_id() -> TenantId {
    let random = ContainerId::random();
    format!("job-{}", random.short()).parse().expect("hex digits fit into a tenant's name")
}

/// Makes the folder of a socket, for its user alone. Those above it can be walked through, not read.
pub(super) fn make_folder(folder: &Path, uid: u32) -> io::Result<()> {
    let above = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o711).create(above)?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(folder, Some(uid), None)
}

/// What is known of a job now.
#[derive(Clone, Debug)]
struct State {
    record: Arc<JobRecord>,
    /// Why its removal has not come to its end yet.
    trouble: Option<String>,
    /// What was removed; then nothing is left of it.
    gone: Option<JobReport>,
}

/// A job that is there.
pub(crate) struct Job {
    id: TenantId,
    records: Arc<RecordFolder>,
    state: watch::Sender<State>,
    door: Mutex<Option<Box<dyn Door>>>,
}

impl Job {
    fn new(record: JobRecord, records: &Arc<RecordFolder>) -> Arc<Self> {
        let (id, records) = (record.id.clone(), records.clone());
        let state = State { record: Arc::new(record), trouble: None, gone: None };
        Arc::new(Self { id, records, state: watch::Sender::new(state), door: Mutex::default() })
    }

    /// The tenant behind its socket.
    pub(super) fn id(&self) -> &TenantId {
        &self.id
    }

    /// What is stored of it.
    pub(super) fn record(&self) -> Arc<JobRecord> {
        self.state.borrow().record.clone()
    }

    /// Why its removal has not come to its end yet.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.borrow().trouble.clone()
    }

    /// Changes and stores the record; after an error nothing has changed.
    pub(super) fn change(&self, change: impl FnOnce(&mut JobRecord) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        self.state.send_if_modified(|state| {
            let mut record = JobRecord::clone(&state.record);
            result =
                change(&mut record).and_then(|()| if record == *state.record { Ok(()) } else { self.write(&record) });
            let is_new = result.is_ok() && record != *state.record;
            if is_new {
                state.record = Arc::new(record);
            }
            is_new
        });
        result
    }

    /// Says that it has to end. The first reason stays.
    pub(super) fn tell_to_end(&self, reason: EndReason) -> Result<()> {
        self.change(|record| {
            record.ending.get_or_insert_with(|| Ending { reason, since: Timestamp::now() });
            Ok(())
        })
    }

    fn write(&self, record: &JobRecord) -> Result<()> {
        self.records.write(self.id.as_str(), record).context(format!("storing job {}", record.name))
    }

    /// Waits until the record is another than `seen`.
    pub(super) async fn changed(&self, seen: &Arc<JobRecord>) {
        let mut states = self.state.subscribe();
        // The sender is ours: it is there as long as we are.
        let _changed = states.wait_for(|state| !Arc::ptr_eq(&state.record, seen)).await;
    }

    /// Keeps its socket until [`Self::close_door`].
    pub(super) fn keep_door(&self, door: Box<dyn Door>) {
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = Some(door);
    }

    /// Takes its socket away and cuts off who is connected.
    pub(super) async fn close_door(&self) {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(door) = door {
            door.close().await;
        }
    }

    /// Says why its removal has not come to its end.
    pub(super) fn has_trouble(&self, why: String) {
        self.state.send_modify(|state| state.trouble = Some(why));
    }

    /// Tells who waits that nothing is left.
    fn is_gone(&self, report: JobReport) {
        self.state.send_modify(|state| state.gone = Some(report));
    }

    /// Waits until nothing is left of it; `None` after `limit`.
    pub(super) async fn gone(&self, limit: Duration) -> Option<JobReport> {
        let mut states = self.state.subscribe();
        let gone = states.wait_for(|state| state.gone.is_some());
        tokio::time::timeout(limit, gone).await.ok()?.ok()?.gone
    }
}

/// What is told of a job that is gone.
struct Ended {
    id: TenantId,
    name: String,
    reason: EndReason,
}

/// All jobs.
pub struct JobStore {
    records: Arc<RecordFolder>,
    jobs: Mutex<BTreeMap<TenantId, Arc<Job>>>,
    doors: OnceLock<Arc<dyn Doors>>,
    /// Those that have ended by themselves in this life of the daemon, the last one first.
    ended: Mutex<VecDeque<Ended>>,
}

impl JobStore {
    /// Reads what is below `data_root`. A record that cannot be read is left alone and named in the log.
    pub fn open(data_root: &Path) -> Result<Self> {
        let records = Arc::new(RecordFolder::open(data_root, "jobs")?);
        let jobs =
            records.read::<JobRecord>()?.into_iter().map(|record| (record.id.clone(), Job::new(record, &records)));
        let jobs = Mutex::new(jobs.collect());
        Ok(Self { records, jobs, doors: OnceLock::new(), ended: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says who makes sockets.
    pub(super) fn set_doors(&self, doors: Arc<dyn Doors>) {
        let _set_before = self.doors.set(doors);
    }

    pub(super) fn doors(&self) -> Option<Arc<dyn Doors>> {
        self.doors.get().cloned()
    }

    /// Stores a new job. Conflict if its name is taken.
    pub(super) fn add(&self, record: JobRecord) -> Result<Arc<Job>> {
        let mut jobs = self.lock();
        if let Some(other) = jobs.values().find(|job| job.record().name == record.name) {
            return Err(Error::conflict(format!("the name {} is in use by job {}", record.name, other.id())));
        }
        if jobs.len() >= MOST {
            return Err(Error::unavailable(format!("there are {MOST} jobs already")));
        }
        let job = Job::new(record, &self.records);
        job.write(&job.record())?;
        jobs.insert(job.id().clone(), job.clone());
        Ok(job)
    }

    /// Whether there is a job behind a tenant.
    pub(super) fn has(&self, tenant: &TenantId) -> bool {
        self.lock().contains_key(tenant)
    }

    /// What is stored of the job behind a tenant.
    pub(super) fn record_of(&self, tenant: &TenantId) -> Option<Arc<JobRecord>> {
        self.lock().get(tenant).map(|job| job.record())
    }

    /// By id, name or unique prefix of an id.
    pub(super) fn get(&self, reference: &str) -> Result<Arc<Job>> {
        let jobs = self.lock();
        let exact = jobs.values().find(|job| job.id().as_str() == reference);
        if let Some(job) = exact.or_else(|| jobs.values().find(|job| job.record().name == reference)) {
            return Ok(job.clone());
        }
        let mut matching =
            jobs.values().filter(|job| !reference.is_empty() && job.id().as_str().starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some(job), None) => Ok(job.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!("several jobs begin with {reference}"))),
            (None, _) => Err(Error::not_found(format!("no such job: {reference}{}", self.why_none(reference)))),
        }
    }

    /// Why there is no such job any more, as the end of a sentence.
    fn why_none(&self, reference: &str) -> String {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ended.iter().find(|job| job.id.as_str() == reference || job.name == reference);
        found.map(|job| format!(" (removed: {})", job.reason)).unwrap_or_default()
    }

    fn remember(&self, job: Ended) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push_front(job);
        ended.truncate(REMEMBERED);
    }

    /// All of them, oldest first.
    pub(super) fn list(&self) -> Vec<Arc<Job>> {
        let mut jobs: Vec<_> = self.lock().values().cloned().collect();
        jobs.sort_by_key(|job| job.record().created);
        jobs
    }

    /// Forgets a job of which nothing is left, and tells who waits for that.
    pub(super) fn forget(&self, job: &Job, report: JobReport) -> Result<()> {
        self.records.forget(job.id().as_str()).map_err(|error| {
            Error::system(format!("removing the record of job {}: {error}", job.id())).with_source(error)
        })?;
        self.lock().remove(job.id());
        let record = job.record();
        if let Some(reason) = record.ended_by_itself() {
            self.remember(Ended { id: record.id.clone(), name: record.name.clone(), reason });
        }
        job.is_gone(report);
        Ok(())
    }
}
