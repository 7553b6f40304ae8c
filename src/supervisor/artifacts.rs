//! Artifact images: a workflow names an image in `RINGER_IMAGE` (or `EPHEMERD_IMAGE`) of its `env`, and each job that it holds for finds the
//! image's files at [`PLACE`], read-only, before its first step.
//!
//! Which job a runner is given is known only when it has it. So the runner is told of a program that it calls before the job's first step
//! and waits for (`hook`); that says which job it is, the workflow is asked of the forge and read (`workflow`), and the image is
//! mounted into the container that runs.

mod hook;
mod workflow;

use std::time::Duration;

use tracing::{info, warn};

pub use self::hook::JobHook;
use super::{pool::Pool, runner::Runner};
use crate::model::{Error, ErrorKind, Result};

/// Where a job finds the files.
pub const PLACE: &str = "/deps";

/// What of an image is shown there, the first that is there: images for virtual machines have their files in a folder of this name.
pub const PARTS: [&str; 2] = ["deps", ""];

/// Before each further try to read a workflow.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// A job that begins, as its runner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunJob {
    /// Its repository.
    pub repository: String,
    /// The file of its workflow there.
    pub path: String,
    /// The commit at which that holds.
    pub commit: String,
    /// The job's key in it.
    pub key: String,
}

/// What the job is told: whether it goes on, and a sentence if there is something to say.
struct Answer {
    goes_on: bool,
    words: String,
}

impl Answer {
    fn goes_on(words: impl Into<String>) -> Self {
        Self { goes_on: true, words: words.into() }
    }

    fn fails(words: impl Into<String>) -> Self {
        Self { goes_on: false, words: words.into() }
    }
}

async fn answer(pool: &Pool, runner: &Runner, said: &str) -> Answer {
    let Some(job) = BegunJob::read(said) else { return Answer::goes_on("") };
    let text = match read_workflow(pool, &job).await {
        Ok(Some(text)) => text,
        Ok(None) => return Answer::goes_on(""),
        // Nobody knows whether it names an image. Most do not, and a token need not be allowed to read them.
        Err(error) => {
            return Answer::goes_on(format!(
                "{} cannot be read, so no image that it may name is at {PLACE}: {}",
                job.path,
                error.chain()
            ));
        }
    };
    let named = match workflow::artifact_image(&text, &job.key) {
        Ok(Some(named)) => named,
        Ok(None) => return Answer::goes_on(""),
        Err(error) => return Answer::fails(error.chain()),
    };
    match named.image {
        Ok(image) => show(pool, runner, &job, &image, named.is_optional).await,
        Err(error) => failed(named.is_optional, &error),
    }
}

async fn show(pool: &Pool, runner: &Runner, job: &BegunJob, image: &str, is_optional: bool) -> Answer {
    match runner.show_image(image, &PARTS, PLACE).await {
        Ok(id) => {
            info!(forge = pool.settings.name, "job {} of {} has {image} ({id}) at {PLACE}", job.key, job.repository);
            Answer::goes_on(format!("{image} ({id}) is at {PLACE}"))
        }
        Err(error) => {
            warn!(forge = pool.settings.name, "job {} of {}: {}", job.key, job.repository, error.chain());
            failed(is_optional, &error)
        }
    }
}

fn failed(is_optional: bool, error: &Error) -> Answer {
    let words = format!("artifact image: {}", error.chain());
    if is_optional { Answer::goes_on(words) } else { Answer::fails(words) }
}

async fn read_workflow(pool: &Pool, job: &BegunJob) -> Result<Option<String>> {
    for pause in PAUSES {
        match pool.forge.workflow(job).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => tokio::time::sleep(pause).await,
            other => return other,
        }
    }
    pool.forge.workflow(job).await
}

impl BegunJob {
    /// What the hook says, a line each: repository, `OWNER/NAME/PATH@REF` of the workflow, commit, key. `None` for what is no workflow of that
    /// repository's own, and for what is no such thing at all: any program of the container could say it.
    fn read(said: &str) -> Option<Self> {
        let mut lines = said.lines();
        let (repository, workflow, commit, key) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
        let is_plain = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let (path, _) = workflow.strip_prefix(repository)?.strip_prefix('/')?.split_once('@')?;
        let mut parts = path.split('/');
        let is_path = parts.all(|part| is_plain(part, "-_. ") && !matches!(part, "." | ".."));
        let is_repository = repository.split('/').filter(|part| is_plain(part, "-_.")).count() == 2;
        let is_commit = commit.chars().all(|c| c.is_ascii_hexdigit()) && matches!(commit.len(), 40 | 64);
        (is_path && is_repository && is_commit && is_plain(key, "-_")).then(|| Self {
            repository: repository.to_owned(),
            path: path.to_owned(),
            commit: commit.to_owned(),
            key: key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_known_by_what_its_runner_says() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let said = format!("acme/tool\nacme/tool/.github/workflows/ci.yml@refs/heads/main\n{commit}\nbuild\n");
        let job = BegunJob::read(&said).unwrap();
        assert_eq!((job.path.as_str(), job.key.as_str()), (".github/workflows/ci.yml", "build"));
        for (what, wrong) in [("acme/tool/", "acme/other/"), ("ci.yml", "../../x"), ("0123", "main"), ("build", "a b")]
        {
            assert_eq!(BegunJob::read(&said.replace(what, wrong)), None, "{wrong}");
        }
        assert_eq!(BegunJob::read("\n\n\n\n"), None);
    }
}
