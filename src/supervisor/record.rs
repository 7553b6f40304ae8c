//! What is stored of a launch, from before anything of it is made until its runner has ended.

use serde::{Deserialize, Serialize};

use super::{balance::Class, secret::Secret};
use crate::model::{id::TenantId, job::JobLimits, record::Record, time::Timestamp};

/// One launch: a job of the engine with one runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Its name, which is also that of its job and, with the instance, of its registration.
    pub name: String,
    /// The forge, by its name in the configuration.
    pub forge: String,
    /// What its runner takes.
    pub class: Class,
    /// The image of jobs that name none, once it is chosen.
    pub job_image: Option<String>,
    /// What its job may use.
    pub limits: JobLimits,
    /// The job of the engine, once it is made.
    pub tenant: Option<TenantId>,
    /// The forge was asked for a registration, and it is not known whether it has made one.
    #[serde(default)]
    pub is_registering: bool,
    /// What the forge knows the runner by, once it does.
    pub registration: Option<Registration>,
    /// By which the forge knows its runner: what it cannot say any more is said with it.
    #[serde(default)]
    pub credential: Option<Secret>,
    /// The job that its runner can take and no other, where the forge lets us choose.
    #[serde(default)]
    pub meant_for: Option<ForgeJob>,
    /// What the forge gave it to do.
    pub work: Option<ForgeJob>,
    /// Bytes of layers that were fetched for its job, once it is being removed.
    #[serde(default)]
    pub pulled: u64,
    /// Bytes of layers that were here already.
    #[serde(default)]
    pub shared: u64,
    /// Nanoseconds on the processors, as of the time when it is being removed.
    #[serde(default)]
    pub cpu: u64,
    /// How far it is.
    pub stage: Stage,
    /// When which stage was reached, as far as it came.
    pub times: Times,
}

impl Record for LaunchRecord {
    const KIND: &'static str = "launch";
}

/// A runner as the forge lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Registration {
    /// The forge's number of it.
    pub id: i64,
    /// The name that we gave it.
    pub name: String,
    /// Where in the forge's API it is listed, such as `admin` or `repos/owner/name`.
    pub scope: String,
}

/// A job of a forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeJob {
    /// The forge's number of it.
    pub id: i64,
    /// Forgejo's and GitHub's number of the workflow's run that it is part of, Woodpecker's of the pipeline. None where a scale set of GitHub
    /// told of it, whose number of the job is no other call's.
    #[serde(default)]
    pub run: Option<i64>,
    /// Forgejo's number of what a runner does for it, Woodpecker's of the repository.
    #[serde(default)]
    pub task: Option<i64>,
    /// Only its runner's log told of it: its number is that of its task.
    #[serde(default)]
    pub is_heard: bool,
    /// `owner/name`.
    pub repository: String,
    /// What the workflow calls it.
    pub name: String,
    /// Where people see it.
    pub url: String,
}

/// How far a launch is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Job, image and registration are being made.
    Preparing,
    /// The runner runs and waits for a job.
    Waiting,
    /// It has one.
    Running,
    /// It has ended, and what is left is being removed.
    Ending(String),
    /// Nothing is left.
    Ended(String),
}

/// When a launch reached what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// It was decided on.
    pub begun: Timestamp,
    /// Its job was there.
    pub made: Option<Timestamp>,
    /// The runner's image was there.
    pub pulled: Option<Timestamp>,
    /// The forge had registered the runner.
    pub minted: Option<Timestamp>,
    /// The runner was started.
    pub started: Option<Timestamp>,
    /// The forge had given it a job, as far as we saw.
    pub assigned: Option<Timestamp>,
    /// Nothing was left.
    pub ended: Option<Timestamp>,
}

impl LaunchRecord {
    /// One that is decided on.
    pub fn new(name: String, forge: String, class: Class, limits: JobLimits) -> Self {
        let times = Times {
            begun: Timestamp::now(),
            made: None,
            pulled: None,
            minted: None,
            started: None,
            assigned: None,
            ended: None,
        };
        Self {
            name,
            forge,
            class,
            job_image: None,
            limits,
            tenant: None,
            is_registering: false,
            registration: None,
            credential: None,
            meant_for: None,
            work: None,
            pulled: 0,
            shared: 0,
            cpu: 0,
            stage: Stage::Preparing,
            times,
        }
    }

    /// Whether something of it may be there.
    pub fn is_live(&self) -> bool {
        !matches!(self.stage, Stage::Ended(_))
    }

    /// Whether it can still be given a job.
    pub fn is_to_come(&self) -> bool {
        matches!(self.stage, Stage::Preparing | Stage::Waiting)
    }
}
