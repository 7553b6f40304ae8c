//! What requests and answers of the admin API look like; its clients read and write the same.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{
        container::Container,
        jobs::{JobView, Owner},
    },
    model::{
        event::Event,
        id::TenantId,
        job::{CacheVolume, DiskPlace, EndReason, JobLimits, JobRequest},
        policy::PolicyRef,
        time::Timestamp,
    },
    supervisor::{ForgeView, LaunchView, Purged, Reached, WaitingJob, record::Stage},
};

/// What a policy is called that came without a name.
const UNNAMED: &str = "of-the-job";

/// Body of `POST /jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobBody {
    /// A name; the id if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// User number whose the socket's folder is; root if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Number of a process: the job ends with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_pid: Option<i32>,
    /// Seconds until the job ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// Bytes of memory for all its containers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Billionths of processors for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<u64>,
    /// Processes and threads of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes of the disk for all that they write: more is refused where a file system can, and the job ends when it takes more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// What its clients may do: `trusted`, `ci`, `strict`, or a name of the daemon's folder; that of jobs if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The same as TOML; `policy` is what it is called then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_toml: Option<String>,
    /// Paths of the machine that its clients may bind beside what the policy allows: `PATH`, or `PATH:ro` for reading only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<String>,
    /// Jobs with the same key have the same caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<String>,
    /// Volumes that it finds as the last job with its key has left them: `NAME`, or `NAME:ro` for reading only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_volumes: Vec<CacheVolume>,
    /// A job of the same user, id or name, whose network namespace it has too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_from: Option<String>,
}

impl From<JobBody> for JobRequest {
    fn from(body: JobBody) -> Self {
        let limits = JobLimits { memory: body.memory, nano_cpus: body.nano_cpus, pids: body.pids, disk: body.disk };
        let policy = match (body.policy, body.policy_toml) {
            (name, Some(toml)) => Some(PolicyRef::Text { name: name.unwrap_or_else(|| UNNAMED.to_owned()), toml }),
            (name, None) => name.map(PolicyRef::Named),
        };
        Self {
            name: body.name,
            uid: body.uid.unwrap_or(0),
            owner_pid: body.owner_pid,
            ttl: body.ttl,
            limits,
            policy,
            binds: body.binds,
            cache_key: body.cache_key,
            cache_volumes: body.cache_volumes,
            network_from: body.network_from,
            ..Self::default()
        }
    }
}

/// Body of `POST /jobs/{id}/extend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendBody {
    /// Seconds from now until the job ends.
    pub ttl: u64,
    /// Whether it ends no more with its owner.
    #[serde(default)]
    pub disown: bool,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAnswer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `DOCKER_HOST` for its clients.
    pub docker_host: String,
    /// Path of the same socket.
    pub socket: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends at the latest.
    pub expires: Option<Timestamp>,
    /// The process with which it ends.
    pub owner_pid: Option<i32>,
    /// The user whose the socket's folder is.
    pub uid: u32,
    /// Limits of all its containers together.
    #[serde(flatten)]
    pub limits: JobLimits,
    /// Where file systems refuse what would be more than its limit of the disk, which is watched in any case.
    pub disk_quota: Vec<DiskPlace>,
    /// What its clients may do is called so.
    pub policy: Option<String>,
    /// Jobs with the same key have the same caches.
    pub cache_key: Option<String>,
    /// Volumes that it found and will leave.
    pub cache_volumes: Vec<CacheVolume>,
    /// Id of the job for which the network namespace was made that it has, if not for itself; that job may be gone.
    pub network_from: Option<String>,
    /// Why it is being removed, if it is.
    pub ending: Option<EndReason>,
    /// Why that has not come to its end yet.
    pub trouble: Option<String>,
}

impl From<JobView> for JobAnswer {
    fn from(JobView { record, socket, disk_quota, trouble }: JobView) -> Self {
        let socket = socket.display().to_string();
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            docker_host: format!("unix://{socket}"),
            socket,
            created: record.created,
            expires: record.expires,
            owner_pid: record.owner.as_ref().map(|owner| owner.pid),
            uid: record.uid,
            limits: record.limits,
            disk_quota,
            policy: record.policy.as_ref().map(|policy| policy.name.clone()),
            cache_key: record.cache_key.clone(),
            cache_volumes: record.cache_volumes.clone(),
            network_from: record.host.as_ref().map(TenantId::to_string),
            ending: record.ending.as_ref().map(|ending| ending.reason),
            trouble,
        }
    }
}

/// A container of any tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerAnswer {
    /// Name of its job; none of the default socket's.
    pub job: Option<String>,
    /// Whether it is the job's runner, which the job's clients do not see.
    pub is_runner: bool,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image that it was made of, as its client called it.
    pub image: String,
    /// `created`, `running`, `paused`, `restarting`, `exited`, `removing` or `dead`.
    pub state: String,
    /// How it has ended.
    pub exit_code: Option<i64>,
    /// When it was made.
    pub created: Timestamp,
}

impl From<(Owner, Arc<Container>)> for ContainerAnswer {
    fn from((owner, container): (Owner, Arc<Container>)) -> Self {
        let record = container.record();
        let (job, is_runner) = told(owner);
        Self {
            job,
            is_runner,
            id: record.id.to_string(),
            name: record.name.clone(),
            image: record.config.image.clone(),
            state: record.state.as_str().to_owned(),
            exit_code: record.state.ended().map(|ended| ended.exit_code),
            created: record.created,
        }
    }
}

/// Something that happened to a thing of any tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAnswer {
    /// When.
    pub time: Timestamp,
    /// Name of the job; none of the default socket's.
    pub job: Option<String>,
    /// Whether it is about the job's runner, which the job's clients do not see.
    pub is_runner: bool,
    /// Kind of the thing: `container`, `image`, `network`, `volume`, `builder`.
    pub kind: String,
    /// What happened, in Docker's words.
    pub action: String,
    /// Its id, or a volume's name.
    pub actor: String,
    /// Its labels, and facts on the event.
    pub attributes: IndexMap<String, String>,
}

impl From<(Owner, Event)> for EventAnswer {
    fn from((owner, event): (Owner, Event)) -> Self {
        let Event { kind, action, actor, attributes, time } = event;
        let (job, is_runner) = told(owner);
        Self { time, job, is_runner, kind: kind.as_str().to_owned(), action, actor, attributes }
    }
}

fn told(owner: Owner) -> (Option<String>, bool) {
    match owner {
        Owner::Default => (None, false),
        Owner::Job { name, is_runner } => (Some(name), is_runner),
    }
}

/// A runner that was launched, with what the forge gave it to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchAnswer {
    /// Its name, which its job has too.
    pub name: String,
    /// The forge, by its name in the configuration.
    pub forge: String,
    /// The labels of the runner.
    pub labels: Vec<String>,
    /// `owner/name` of what runs, or of the only one that may.
    pub repository: Option<String>,
    /// What the workflow calls the job.
    pub job: Option<String>,
    /// Where people see it at the forge.
    pub url: Option<String>,
    /// The image of a job that names none, once it is chosen.
    pub image: Option<String>,
    /// Bytes of layers that were fetched for it.
    pub pulled: u64,
    /// Bytes of layers that it needed and that were here already.
    pub shared: u64,
    /// Milliseconds on the processors that its job has taken.
    pub cpu_ms: u64,
    /// Bytes of memory that its job has now, while it is there.
    pub memory: Option<u64>,
    /// `preparing`, `waiting`, `running`, `ending` or `ended`.
    pub state: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// When it was decided on.
    pub begun: Timestamp,
    /// When its runner was started.
    pub started: Option<Timestamp>,
    /// When the forge had given it a job, as far as it was seen.
    pub assigned: Option<Timestamp>,
    /// When nothing was left of it.
    pub ended: Option<Timestamp>,
}

impl From<LaunchView> for LaunchAnswer {
    fn from(LaunchView { record, pulled, shared, cpu, memory }: LaunchView) -> Self {
        let (state, outcome) = match &record.stage {
            Stage::Preparing => ("preparing", None),
            Stage::Waiting => ("waiting", None),
            Stage::Running => ("running", None),
            Stage::Ending(why) => ("ending", Some(why.clone())),
            Stage::Ended(why) => ("ended", Some(why.clone())),
        };
        let work = record.work.as_ref();
        Self {
            name: record.name.clone(),
            forge: record.forge.clone(),
            labels: record.class.labels.iter().cloned().collect(),
            repository: work.map(|job| job.repository.clone()).or_else(|| record.class.repository.clone()),
            job: work.map(|job| job.name.clone()),
            url: work.map(|job| job.url.clone()),
            image: record.job_image.clone(),
            pulled,
            shared,
            cpu_ms: u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX),
            memory,
            state: state.to_owned(),
            outcome,
            begun: record.times.begun,
            started: record.times.started,
            assigned: record.times.assigned,
            ended: record.times.ended,
        }
    }
}

/// A forge that is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeAnswer {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Why no runner is launched for it, if so.
    pub trouble: Option<String>,
    /// When the last look that it answered began.
    pub looked: Option<Timestamp>,
    /// Launches at once at most.
    pub concurrency: usize,
    /// Launches of which something is there.
    pub live: usize,
    /// Jobs that the last look saw waiting and that are ours to run.
    pub waiting: usize,
    /// Jobs that it saw waiting for which no runner is launched.
    pub left_alone: Vec<LeftAlone>,
    /// Images with runners that were pulled since the daemon has started.
    pub runner_images: Vec<RunnerImage>,
}

/// A job for which no runner is launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Its repository.
    pub repository: String,
    /// Its name.
    pub job: String,
    /// Why.
    pub why: String,
}

/// An image with a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerImage {
    /// Its name.
    pub image: String,
    /// When it was made.
    pub created: Timestamp,
}

impl From<ForgeView> for ForgeAnswer {
    fn from(view: ForgeView) -> Self {
        let waiting = view.queue.iter().filter(|waiting| waiting.why.is_none()).count();
        let ForgeView { name, url, trouble, looked, concurrency, live, queue, runner_images, .. } = view;
        let left_alone = |WaitingJob { queued, why }: WaitingJob| {
            Some(LeftAlone { repository: queued.job.repository, job: queued.job.name, why: why? })
        };
        let left_alone = queue.into_iter().filter_map(left_alone).collect();
        let runner_images = runner_images.into_iter().map(|(image, created)| RunnerImage { image, created }).collect();
        Self { name, url, trouble, looked, concurrency, live, waiting, left_alone, runner_images }
    }
}

/// An address of a forge, as its jobs find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachAnswer {
    /// The address.
    pub url: String,
    /// Why nobody answers there, if so.
    pub trouble: Option<String>,
}

impl From<Reached> for ReachAnswer {
    fn from(Reached { url, trouble }: Reached) -> Self {
        Self { url, trouble }
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeAnswer {
    /// Launches, those that had ended before too.
    pub launches: usize,
    /// Registrations that no launch was left of.
    pub registrations: usize,
    /// Webhooks that ringer had made.
    pub webhooks: usize,
}

impl From<Purged> for PurgeAnswer {
    fn from(Purged { launches, registrations, webhooks }: Purged) -> Self {
        Self { launches, registrations, webhooks }
    }
}
