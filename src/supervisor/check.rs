//! What `ringer config check` tells: whether each forge answers and lets us, and which images its jobs would get.

use futures_util::future::join_all;

use super::{
    choice,
    forge::{self, Forge, Shape},
    images::Rung,
    settings::{ForgeSettings, Settings},
};
use crate::model::Result;

/// What was found of one forge.
#[derive(Debug)]
pub struct Checked<'a> {
    /// What is configured.
    pub settings: &'a ForgeSettings,
    /// What the supervisor would log of it, or why it could not work.
    pub greeting: Result<String>,
    /// Which images are taken; `None` if what is configured makes no client.
    pub images: Option<CheckedImages>,
}

/// The images of a forge's runners and jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedImages {
    /// The image with the runner, and what says so.
    pub runner: (String, Rung),
    /// Those of jobs that name none.
    pub jobs: Vec<JobImage>,
    /// Whether `[runner] default_image` becomes the runner image if it holds the runner, which is looked into at the first job.
    pub default_may_be_runner: bool,
}

/// An image of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobImage {
    /// The repository as it is configured; all others if none.
    pub repository: Option<String>,
    /// The image.
    pub image: String,
    /// What says so.
    pub rung: Rung,
}

/// Asks each forge with its credentials, all at once; nothing is changed there.
pub async fn check(settings: &Settings) -> Vec<Checked<'_>> {
    join_all(settings.forges.iter().map(check_one)).await
}

async fn check_one(settings: &ForgeSettings) -> Checked<'_> {
    match forge::connect(settings, None) {
        Ok(forge) => Checked { settings, greeting: forge.greet().await, images: Some(images_of(settings, &*forge)) },
        Err(error) => Checked { settings, greeting: Err(error), images: None },
    }
}

fn images_of(settings: &ForgeSettings, forge: &dyn Forge) -> CheckedImages {
    let images = &settings.images;
    let job = |repository: Option<&String>| {
        let (image, rung) = choice::job_image(forge, images, repository.map(String::as_str), false);
        JobImage { repository: repository.cloned(), image, rung }
    };
    CheckedImages {
        runner: images.of_runner(forge.runner_image()),
        jobs: images.of_repositories.keys().map(Some).chain([None]).map(job).collect(),
        default_may_be_runner: forge.shape() == Shape::Program && images.runner.is_none() && images.default.is_some(),
    }
}
