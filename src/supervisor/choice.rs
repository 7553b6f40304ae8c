//! Which images a launch takes, decided by looking into them.

use std::path::PathBuf;

use super::{
    pool::Pool,
    runner::{Making, Runner},
    settings::Mode,
};
use crate::model::{Error, Result, error::Context};

/// Where the runner's program is put in an image that has none.
const GIVEN: &str = "/opt/ringer-program";

/// What is taken.
pub struct Chosen {
    runner: String,
    program: &'static str,
    /// The program as a file of the machine, for images without it.
    taken: Option<PathBuf>,
    /// The image of jobs that name none.
    pub job: String,
}

impl Chosen {
    /// What the container of the runner is made of.
    pub fn making(&self, mode: Mode) -> Making<'_> {
        match mode {
            Mode::Socket => Making { image: &self.runner, program: self.program, given: None, socket: true },
            Mode::Single { docker } => {
                Making { image: &self.job, program: GIVEN, given: self.taken.as_deref(), socket: docker }
            }
        }
    }
}

/// Chooses, and pulls what the runner's container needs. Jobs' own images are pulled by the runner.
pub async fn choose(pool: &Pool, runner: &Runner, repository: Option<&str>) -> Result<Chosen> {
    let (images, forge) = (&pool.settings.images, &pool.forge);
    let of_default = match (&images.runner, &images.default) {
        (None, Some(default)) => look_into(pool, runner, default).await?.map(|program| (default.clone(), program)),
        _ => None,
    };
    let (job, _) = images.of_job(repository, of_default.is_some(), forge.job_image());
    let (image, program) = match of_default {
        Some(found) => found,
        None => {
            let image = images.runner.clone().unwrap_or_else(|| forge.runner_image().to_owned());
            let program = look_into(pool, runner, &image).await?;
            let none = || {
                let tried = forge.programs().join(", ");
                Error::invalid(format!("image {image} holds no runner: none of {tried} is there"))
            };
            (image.clone(), program.ok_or_else(none)?)
        }
    };
    let taken = match pool.settings.mode {
        Mode::Socket => None,
        Mode::Single { .. } => {
            pull(pool, runner, &job).await?;
            Some(pool.shared.programs.take(runner, &image, program).await?)
        }
    };
    Ok(Chosen { runner: image, program, taken, job })
}

async fn look_into(pool: &Pool, runner: &Runner, image: &str) -> Result<Option<&'static str>> {
    pull(pool, runner, image).await?;
    pool.shared.programs.find(runner, image, pool.forge.programs()).await
}

async fn pull(pool: &Pool, runner: &Runner, image: &str) -> Result<()> {
    runner.pull(image, pool.shared.settings.login_for(image)).await.context(format!("pulling {image}"))
}
