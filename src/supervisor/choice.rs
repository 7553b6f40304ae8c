//! Which images a launch takes, decided by looking into them.

use std::{
    io,
    path::{Path, PathBuf},
};

use tracing::info;

use super::{
    forge::{Forge, Shape},
    images::{Images, Rung},
    pool::Pool,
    programs::interpreter_of,
    runner::{Given, Making, Runner},
    settings::Mode,
};
use crate::{
    model::{Error, Result, error::Context},
    work::blocking,
};

/// Where the runner's program is put in an image that has none, and where its folder is.
const GIVEN: &str = "/opt/ringer-program";
const GIVEN_FOLDER: &str = "/actions-runner";
const STARTED: &str = "/actions-runner/run.sh";

/// What of that folder is started.
const STARTS: [&str; 2] = ["run.sh", "bin/Runner.Listener"];

/// What is taken.
pub struct Chosen {
    runner: String,
    program: &'static str,
    /// What is put there, from the machine, in images without it.
    taken: Option<Taken>,
    /// The image of jobs that name none.
    pub job: String,
}

enum Taken {
    Program(PathBuf),
    Folder(PathBuf),
}

impl Chosen {
    /// What the container of the runner is made of.
    pub fn making(&self, mode: Mode) -> Making<'_> {
        let socket = match mode {
            Mode::Socket => true,
            Mode::Single { docker } => docker,
        };
        match &self.taken {
            Some(Taken::Program(path)) => {
                Making { image: &self.job, program: GIVEN, given: Given::Program(path), socket }
            }
            Some(Taken::Folder(path)) => {
                let given = Given::Folder { from: path, at: GIVEN_FOLDER };
                Making { image: &self.job, program: self.program, given, socket }
            }
            None => Making { image: &self.runner, program: self.program, given: Given::Nothing, socket },
        }
    }
}

/// Chooses, and pulls what the runner's container needs. Jobs' own images are pulled by the runner.
pub async fn choose(pool: &Pool, runner: &Runner, repository: Option<&str>) -> Result<Chosen> {
    match pool.forge.shape() {
        Shape::Program => choose_two(pool, runner, repository).await,
        Shape::Folder => choose_one(pool, runner, repository).await,
    }
}

/// The image of jobs that name none, and what says so. `default_is_runner` as in [`Images::of_job`].
pub fn job_image(
    forge: &dyn Forge,
    images: &Images,
    repository: Option<&str>,
    default_is_runner: bool,
) -> (String, Rung) {
    let (image, rung) = images.of_job(repository, default_is_runner, forge.job_image());
    match (forge.shape(), &images.runner, rung) {
        // It is the runner's too: what is said of this forge goes before what is said of all.
        (Shape::Folder, Some(of_forge), Rung::Default | Rung::BuiltIn) => (of_forge.clone(), Rung::Forge),
        _ => (image, rung),
    }
}

/// One image for both: steps run beside the runner.
async fn choose_one(pool: &Pool, runner: &Runner, repository: Option<&str>) -> Result<Chosen> {
    let (images, forge) = (&pool.settings.images, &*pool.forge);
    let (image, _) = job_image(forge, images, repository, false);
    if let Some(program) = look_into(pool, runner, &image).await? {
        return Ok(Chosen { job: image.clone(), runner: image, program, taken: None });
    }
    let (from, _) = images.of_runner(forge.runner_image());
    let program = look_into(pool, runner, &from).await?.ok_or_else(|| no_runner(pool, &from))?;
    let folder = program.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let folder = pool.shared.programs.take_folder(runner, &from, folder).await?;
    check_starts(pool, runner, &image, &folder).await?;
    info!(forge = pool.settings.name, "image {image} holds no runner: it is given that of {from}");
    Ok(Chosen { runner: from, program: STARTED, taken: Some(Taken::Folder(folder)), job: image })
}

/// Of an image in which the runner would not start nothing is registered.
async fn check_starts(pool: &Pool, runner: &Runner, image: &str, folder: &Path) -> Result<()> {
    let files = STARTS.map(|file| folder.join(file));
    let needed = blocking(move || {
        let all = files.iter().filter_map(|file| interpreter_of(file).transpose());
        all.collect::<io::Result<Vec<String>>>().context("reading the runner")
    });
    match pool.shared.programs.missing(runner, image, &needed.await?).await? {
        None => Ok(()),
        Some(path) => Err(Error::invalid(format!(
            "image {image} holds no runner, and has no {path}, by which the one that it would be given is started: that needs bash and glibc \
             (such as of Debian, Ubuntu, Fedora; not Alpine)"
        ))),
    }
}

fn no_runner(pool: &Pool, image: &str) -> Error {
    Error::invalid(format!("image {image} holds no runner: none of {} is there", pool.forge.programs().join(", ")))
}

async fn choose_two(pool: &Pool, runner: &Runner, repository: Option<&str>) -> Result<Chosen> {
    let (images, forge) = (&pool.settings.images, &*pool.forge);
    let of_default = match (&images.runner, &images.default) {
        (None, Some(default)) => look_into(pool, runner, default).await?.map(|program| (default.clone(), program)),
        _ => None,
    };
    let (job, _) = job_image(forge, images, repository, of_default.is_some());
    let (image, program) = match of_default {
        Some(found) => found,
        None => {
            let (image, _) = images.of_runner(forge.runner_image());
            let program = look_into(pool, runner, &image).await?;
            let program = program.ok_or_else(|| no_runner(pool, &image))?;
            (image, program)
        }
    };
    let taken = match pool.settings.mode {
        Mode::Socket => None,
        Mode::Single { .. } => {
            pull(runner, &job).await?;
            Some(Taken::Program(pool.shared.programs.take(runner, &image, program).await?))
        }
    };
    Ok(Chosen { runner: image, program, taken, job })
}

async fn look_into(pool: &Pool, runner: &Runner, image: &str) -> Result<Option<&'static str>> {
    pull(runner, image).await?;
    let program = pool.shared.programs.find(runner, image, pool.forge.programs()).await?;
    if program.is_some()
        && let Some(made) = runner.image_made(image).await?
    {
        pool.note_runner_image(image, made);
    }
    Ok(program)
}

async fn pull(runner: &Runner, image: &str) -> Result<()> {
    runner.pull(image).await.context(format!("pulling {image}"))
}
