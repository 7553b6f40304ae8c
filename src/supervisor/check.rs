//! What `ringer config check` tells: whether each forge answers and lets us, and which images its jobs would get.

use futures_util::future::join_all;

use super::{
    choice,
    forge::{self, Forge, Shape},
    images::Rung,
    settings::{ForgeSettings, Settings},
};
use crate::{
    model::{
        Result,
        registry_auth::{Logins, RegistryAuth},
    },
    registry::Registry,
};

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

/// Asks each registry whether it takes the credentials that are configured for it, all at once.
pub async fn check_registries<'l>(logins: &'l Logins, registry: &Registry) -> Vec<(&'l str, Result<()>)> {
    join_all(logins.iter().map(async |(host, login)| {
        let auth = RegistryAuth { serveraddress: host.clone(), ..login.clone() };
        (host.as_str(), registry.login(&auth).await.map(drop))
    }))
    .await
}

async fn check_one(settings: &ForgeSettings) -> Checked<'_> {
    match forge::connect(settings, None, None) {
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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::registry::{
        RegistryConfig,
        tests::fake::{self, Guard},
    };

    #[tokio::test]
    async fn registries_say_whether_they_take_the_credentials() {
        let (right, wrong) = (fake::Registry::start().await, fake::Registry::start().await);
        right.guard(Guard::Basic(STANDARD.encode("u:pw")));
        wrong.guard(Guard::Basic(STANDARD.encode("u:other")));
        let login = RegistryAuth { username: "u".to_owned(), password: "pw".to_owned(), ..RegistryAuth::default() };
        let logins = Logins::from([(right.host(), login.clone()), (wrong.host(), login)]);
        let registry = Registry::new(RegistryConfig::default()).unwrap();
        let checked = check_registries(&logins, &registry).await;
        let of = |host: &str| &checked.iter().find(|(checked, _)| *checked == host).expect("it was asked").1;
        assert!(of(&right.host()).is_ok());
        let refusal = of(&wrong.host()).as_ref().unwrap_err().chain();
        assert!(refusal.contains("401") && !refusal.contains("pw"), "{refusal}");
    }
}
