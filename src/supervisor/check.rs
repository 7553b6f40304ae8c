//! What `ringer config check` tells: whether each forge answers and lets us, and which images its jobs would get.

use futures_util::future::join_all;

use super::{
    forge,
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
    /// The image of the runner, where `[runner] default_image` does not hold one, and whether it is configured.
    pub runner: (String, Rung),
    /// The images of jobs that name none.
    pub jobs: Vec<JobImage>,
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
    let images = &settings.images;
    let forge = match forge::connect(settings) {
        Ok(forge) => forge,
        Err(error) => {
            return Checked {
                settings,
                greeting: Err(error),
                runner: (String::new(), Rung::BuiltIn),
                jobs: Vec::new(),
            };
        }
    };
    let job = |repository: Option<&String>| {
        let (image, rung) = images.of_job(repository.map(String::as_str), false, forge.job_image());
        JobImage { repository: repository.cloned(), image, rung }
    };
    let jobs = images.of_repositories.keys().map(Some).chain([None]).map(job).collect();
    let runner = match &images.runner {
        Some(image) => (image.clone(), Rung::Forge),
        None => (forge.runner_image().to_owned(), Rung::BuiltIn),
    };
    Checked { settings, greeting: forge.greet().await, runner, jobs }
}
