//! What a forge is to the supervisor. A new one is a file in here and a line in [`connect`].

mod gitea;
mod http;

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    balance::Class,
    record::{ForgeJob, Registration},
    secret::Secret,
    settings::{ForgeSettings, Kind},
};
use crate::model::Result;

/// A job that waits for a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedJob {
    /// The job.
    pub job: ForgeJob,
    /// The labels that it asks for.
    pub labels: Vec<String>,
}

/// What one look at a forge saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Jobs that wait for a runner, oldest first.
    pub queued: Vec<QueuedJob>,
    /// Jobs that run, with the names of their runners.
    pub running: Vec<(String, ForgeJob)>,
    /// Of the registrations that were asked for, those that are there.
    pub registered: Vec<Registration>,
}

/// A credential for one runner and one job.
#[derive(Clone, Debug)]
pub struct Minted {
    /// What the forge knows it by.
    pub registration: Registration,
    /// What tells the forge that the runner is this one, as the forge's runner reads it.
    pub credential: Secret,
}

/// A file of a runner's container.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// Its name, in [`FOLDER`].
    pub name: &'static str,
    /// What is in it.
    pub content: Secret,
}

/// The folder of a runner's files in its container.
pub const FOLDER: &str = "/opt/ringer-runner";

/// How a runner is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What comes after the program.
    pub arguments: Vec<String>,
    /// Variables beside the image's, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Files for it, readable by its user alone.
    pub files: Vec<PlannedFile>,
}

/// What a launch is for.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The name of the runner.
    pub name: &'a str,
    /// What it takes.
    pub class: &'a Class,
    /// The image of jobs that name none.
    pub job_image: &'a str,
}

/// A forge. Every call is bounded in time and in what it reads.
#[async_trait]
pub trait Forge: Send + Sync + 'static {
    /// Asks who is there and whether we may; answers in one sentence which way is taken.
    async fn greet(&self) -> Result<String>;

    /// Looks at the queue, and whether `registrations` are there.
    async fn look(&self, registrations: &[Registration]) -> Result<Look>;

    /// All registrations whose name begins with `prefix`, for the sweep of an earlier life.
    async fn registrations(&self, prefix: &str) -> Result<Vec<Registration>>;

    /// Registers a runner for one job.
    async fn mint(&self, order: &Order<'_>) -> Result<Minted>;

    /// Takes a registration back; one that is gone already is no error.
    async fn deregister(&self, registration: &Registration) -> Result<()>;

    /// The job that a runner was given, when no look has seen it running.
    async fn work_of(&self, registration: &Registration) -> Result<Option<ForgeJob>>;

    /// How a job has ended, in the forge's word; `None` if it has not.
    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>>;

    /// How the runner is started.
    fn plan(&self, order: &Order<'_>, minted: &Minted) -> Plan;

    /// Where the runner's program is in its image: the first that is there.
    fn programs(&self) -> &'static [&'static str];

    /// The runner image if none is configured.
    fn runner_image(&self) -> &'static str;

    /// The image of jobs if none is configured.
    fn job_image(&self) -> &'static str;
}

/// The forge that is configured. Nothing is asked of it yet.
pub fn connect(settings: &ForgeSettings) -> Result<Arc<dyn Forge>> {
    Ok(match settings.kind {
        Kind::Gitea => Arc::new(gitea::Gitea::new(settings)?),
    })
}
