//! What a forge is to the supervisor. A new one is a file in here and a line in [`connect`].

mod act;
mod connect;
mod forgejo;
mod gitea;
mod github;
mod gitlab;
pub(super) mod http;
#[cfg(test)]
mod refusals;
mod server;
#[cfg(test)]
pub(super) mod tests;
pub mod webhooks;
mod woodpecker;

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;

use self::webhooks::Webhooks;
use super::{
    artifacts::BegunJob,
    balance::Class,
    hooks::HookedJob,
    identities::Identities,
    kept_sets::KeptSets,
    origin::Origin,
    record::{ForgeJob, Registration},
    secret::Secret,
    settings::{ForgeSettings, Kind},
};
use crate::model::{Error, Result, time::Timestamp};

/// A job that waits for a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedJob {
    /// The job.
    pub job: ForgeJob,
    /// The labels that it asks for.
    pub labels: Vec<String>,
    /// By which a runner can be told to take this one and no other, where the forge has that.
    pub handle: Option<String>,
    /// Since when the forge knows it, where it tells.
    pub since: Option<Timestamp>,
}

/// A job that a runner has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningJob {
    /// The job.
    pub job: ForgeJob,
    /// The name of its runner, where the forge tells.
    pub runner: Option<String>,
    /// Its handle, where the forge has that.
    pub handle: Option<String>,
}

/// What one look at a forge saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Jobs that wait for a runner, oldest first.
    pub queued: Vec<QueuedJob>,
    /// Jobs that run.
    pub running: Vec<RunningJob>,
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

/// How long a runner waits that was launched for a job.
const IDLE: Duration = Duration::from_secs(600);

/// How a runner is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What comes after the program.
    pub arguments: Vec<String>,
    /// Variables beside the image's, with their values.
    pub env: Vec<(&'static str, Secret)>,
    /// Files for it, readable by its user alone.
    pub files: Vec<PlannedFile>,
}

/// What a forge's runner is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One program, which runs steps in containers that it makes, or beside itself if it is told so.
    Program,
    /// A folder of programs that it also writes to. Steps of jobs that name no image run beside it: the job image is the runner's.
    Folder,
}

/// What a launch is for.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The name of the runner.
    pub name: &'a str,
    /// What it takes.
    pub class: &'a Class,
    /// Where the steps of a job run whose workflow names no image.
    pub steps: Steps<'a>,
}

/// Where steps run.
#[derive(Clone, Copy, Debug)]
pub enum Steps<'a> {
    /// In a container of this image.
    In(&'a str),
    /// Beside the runner.
    Here,
}

impl Order<'_> {
    /// The labels as runners of the act family read them: `NAME:docker://IMAGE` or `NAME:host`.
    fn labels_with_steps(&self) -> Vec<String> {
        let of = |label: &String| match self.steps {
            Steps::In(image) => format!("{label}:docker://{image}"),
            Steps::Here => format!("{label}:host"),
        };
        self.class.labels.iter().map(of).collect()
    }
}

/// How a runner that waits for a job is kept from taking one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quit {
    /// It is ended at once: a job that it takes in that moment fails.
    Ended,
    /// It is sent this signal, does the job that it may have been given meanwhile, and ends by itself.
    Signalled(&'static str),
    /// The forge is told to give it none ([`Forge::keep_idle`]), and it ends by itself.
    Told,
    /// Its registration is taken back ([`Forge::take_back`]), and it is ended where that was in time.
    TakenBack,
}

/// A forge. Every call is bounded in time and in what it reads.
#[async_trait]
pub trait Forge: Any + Send + Sync {
    /// Asks who is there and whether we may; answers in one sentence which way is taken.
    async fn greet(&self) -> Result<String>;

    /// Looks at the queue, and whether `registrations` are there.
    async fn look(&self, registrations: &[Registration]) -> Result<Look>;

    /// All registrations whose name begins with `prefix`, at the place where runners of a class are registered; without one, wherever
    /// an earlier life may have left some.
    async fn registrations(&self, prefix: &str, class: Option<&Class>) -> Result<Vec<Registration>>;

    /// Registers a runner for one job.
    async fn mint(&self, order: &Order<'_>) -> Result<Minted>;

    /// Takes a registration back; one that is gone already is no error.
    async fn deregister(&self, registration: &Registration) -> Result<()>;

    /// The job that a runner was given, when no look has seen it running; `meant_for` is the one that it was made for, if it was.
    async fn work_of(&self, registration: &Registration, meant_for: Option<&ForgeJob>) -> Result<Option<ForgeJob>>;

    /// Whence a job comes. Asked where a rule depends on it, which only the configuration of forges that tell lets be.
    async fn origin(&self, _: &ForgeJob) -> Result<Origin> {
        Err(Error::not_implemented("this forge does not tell whence its jobs come"))
    }

    /// Says of a job that has not ended that it has failed, in the name of its runner, which cannot any more.
    async fn give_up(&self, job: &ForgeJob, credential: &Secret, why: &str) -> Result<()>;

    /// How a job has ended, in the forge's word; `None` if it has not.
    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>>;

    /// How the runner is started.
    fn plan(&self, order: &Order<'_>, minted: &Minted) -> Plan;

    /// Between two looks. A job that a runner has may have to be followed more closely than the queue.
    fn pause(&self, has_runners: bool) -> Duration;

    /// A webhook tells of a job that is one of ours, before the next look.
    fn hear(&self, _: &HookedJob) {}

    /// Said before each look: of how many jobs there may be runners, those that are there among them; `None` while none is launched.
    /// What has to be made at the forge for the pool as a whole gets the name.
    fn takes(&self, _jobs: Option<usize>, _name: &str) {}

    /// Returns when the forge has told of something since the last look, where it does so on a connection of ours.
    async fn news(&self) {
        std::future::pending().await
    }

    /// Another one takes this one's place: what it does not hold itself goes with [`Forge::leave`].
    fn is_followed_by(&self, _successor: &dyn Forge) {}

    /// Whether it alone hears of a runner of its own, whatever is in its place.
    fn holds(&self, _runner: &Registration) -> bool {
        false
    }

    /// Ends what is held at the forge for looks, which there are no more; `for_good` if the forge is not configured any more. `false` if
    /// something of it is still needed, or could not be ended.
    async fn leave(&self, _for_good: bool) -> bool {
        true
    }

    /// How many runners are to be there whether a job waits or not, where so many are configured. Asked before any of them is launched;
    /// what has to be registered for that gets the name.
    async fn ahead(&self, _: &str, warm: usize) -> Result<usize> {
        Ok(warm)
    }

    /// Where its webhooks are made that tell of jobs.
    async fn webhooks(&self) -> Result<Option<&dyn Webhooks>> {
        Ok(None)
    }

    /// What the server calls itself, where it tells: jobs are told that, whatever is configured here.
    async fn own_url(&self) -> Option<String> {
        None
    }

    /// A runner has said this line: the job that it has by that, where nobody else tells us.
    fn reads(&self, _: &Registration, _: &str) -> Option<ForgeJob> {
        None
    }

    /// How long a runner waits for a job.
    fn patience(&self) -> Duration {
        IDLE
    }

    /// Forgets what is kept of registrations beyond launches. Fails with what nobody can take back.
    async fn forget(&self) -> Result<()> {
        Ok(())
    }

    /// How long a runner with a job that is told to end (by a TERM) may take to tell the forge; one that would not is ended at once.
    fn farewell(&self) -> Option<Duration> {
        None
    }

    /// How a runner that waits is kept from taking a job.
    fn quit(&self) -> Quit {
        Quit::Ended
    }

    /// Gives a runner that waits nothing any more, where that is how it quits.
    async fn keep_idle(&self, _: &Registration) -> Result<()> {
        Ok(())
    }

    /// Takes the registration of a runner that waits back, where that is how it quits; `false` if the runner has a job, or has had one.
    async fn take_back(&self, _: &Registration) -> Result<bool> {
        Ok(true)
    }

    /// How long the removal of a job's network takes at least, for a runner that does its last work meanwhile.
    fn network_linger(&self) -> Duration {
        Duration::ZERO
    }

    /// The variable by which its runner is told of a program that it calls before the first step of its job, and waits for.
    fn job_hook(&self) -> Option<&'static str> {
        None
    }

    /// The text of the workflow of a job that begins; `None` if it is none that this forge would be asked for.
    async fn workflow(&self, _: &BegunJob) -> Result<Option<String>> {
        Ok(None)
    }

    /// What the end of a runner's log tells of the configuration, if it has had no job and that is why.
    fn explain(&self, _: &str) -> Option<String> {
        None
    }

    /// What the runner is made of.
    fn shape(&self) -> Shape {
        Shape::Program
    }

    /// Where the runner's program is in its image: the first that is there.
    fn programs(&self) -> &'static [&'static str];

    /// The runner image if none is configured.
    fn runner_image(&self) -> &'static str;

    /// The image of jobs if none is configured.
    fn job_image(&self) -> &'static str;
}

/// What forges keep on disk.
#[derive(Clone)]
pub struct Kept {
    /// Registrations that outlive their runners.
    pub identities: Arc<Identities>,
    /// Scale sets.
    pub sets: Arc<KeptSets>,
}

/// The forge that is configured, which may have been configured otherwise before. Nothing is asked of it yet. Without what is
/// kept it is only to be asked.
pub fn connect(
    settings: &ForgeSettings,
    earlier: Option<&Arc<dyn Forge>>,
    kept: Option<Kept>,
) -> Result<Arc<dyn Forge>> {
    let (identities, sets) = kept.map(|kept| (kept.identities, kept.sets)).unzip();
    Ok(match &settings.kind {
        Kind::Forgejo => Arc::new(act::Act::new(settings, act::Family::Forgejo, identities)?),
        Kind::Gitea => Arc::new(act::Act::new(settings, act::Family::Gitea, identities)?),
        Kind::Github(github) => github::connect(settings, github, as_it_was(earlier), sets)?,
        Kind::Gitlab(gitlab) => Arc::new(gitlab::GitLab::new(settings, gitlab, as_it_was(earlier))?),
        Kind::Woodpecker(server) => Arc::new(woodpecker::Woodpecker::new(settings, server)?),
    })
}

/// A forge that was configured before, if it was of this kind.
fn as_it_was<T: Forge>(earlier: Option<&Arc<dyn Forge>>) -> Option<&T> {
    (&**earlier? as &dyn Any).downcast_ref()
}
