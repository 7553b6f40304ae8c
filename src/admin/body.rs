//! What requests and answers of the admin API look like; its clients read and write the same.

use serde::{Deserialize, Serialize};

use crate::{
    engine::jobs::JobView,
    model::{
        job::{EndReason, JobLimits, JobRequest},
        time::Timestamp,
    },
};

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
}

impl From<JobBody> for JobRequest {
    fn from(body: JobBody) -> Self {
        let limits = JobLimits { memory: body.memory, nano_cpus: body.nano_cpus, pids: body.pids };
        Self { name: body.name, uid: body.uid.unwrap_or(0), owner_pid: body.owner_pid, ttl: body.ttl, limits }
    }
}

/// Body of `POST /jobs/{id}/extend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendBody {
    /// Seconds from now until the job ends.
    pub ttl: u64,
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
    /// Why it is being removed, if it is.
    pub ending: Option<EndReason>,
    /// Why that has not come to its end yet.
    pub trouble: Option<String>,
}

impl From<JobView> for JobAnswer {
    fn from(JobView { record, socket, trouble }: JobView) -> Self {
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
            ending: record.ending.as_ref().map(|ending| ending.reason),
            trouble,
        }
    }
}
