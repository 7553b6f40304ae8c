//! What `ringer config check` tells: whether each forge answers and lets us, and which images its jobs would get.

use std::net::IpAddr;

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
    /// What the server calls itself, where it tells.
    pub own_url: Option<OwnUrl>,
    /// Where the webhook is to be made that ringer makes, or why the token may not.
    pub webhook: Option<Result<Vec<String>>>,
    /// Which images are taken; `None` if what is configured makes no client.
    pub images: Option<CheckedImages>,
}

/// What a server calls itself: jobs fetch from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnUrl {
    /// As it is configured here.
    Same,
    /// Another way, which is not opened to jobs.
    Other(String),
    /// In a way that leads each job to itself.
    Loopback(String),
}

impl OwnUrl {
    fn of(own: String, configured: &str) -> Self {
        let host = own.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(ToOwned::to_owned)).unwrap_or_default();
        if is_loopback(&host) {
            Self::Loopback(own)
        } else if own.eq_ignore_ascii_case(configured) {
            Self::Same
        } else {
            Self::Other(own)
        }
    }
}

/// Whether the host of a URL is, in a job, the job.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let is_address = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_address || host == "localhost" || host.ends_with(".localhost")
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
        Ok(forge) => Checked {
            settings,
            greeting: forge.greet().await,
            own_url: forge.own_url().await.map(|own| OwnUrl::of(own, &settings.url)),
            webhook: match &settings.public_url {
                Some(_) => places_of(&*forge).await.transpose(),
                None => None,
            },
            images: Some(images_of(settings, &*forge)),
        },
        Err(error) => Checked { settings, greeting: Err(error), own_url: None, webhook: None, images: None },
    }
}

/// Where webhooks would be made, if the token may see those that are there.
async fn places_of(forge: &dyn Forge) -> Result<Option<Vec<String>>> {
    let Some(webhooks) = forge.webhooks().await? else { return Ok(None) };
    let places = webhooks.places().await?;
    for place in &places {
        webhooks.list(place).await?;
    }
    Ok(Some(places))
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

    #[test]
    fn a_server_that_calls_itself_localhost_is_found_out() {
        let of = |own: &str| OwnUrl::of(own.to_owned(), "http://git.example.org:3000");
        assert_eq!(of("http://Git.example.org:3000"), OwnUrl::Same);
        assert_eq!(of("https://git.example.org"), OwnUrl::Other("https://git.example.org".to_owned()));
        for own in ["http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000", "http://git.localhost"] {
            assert_eq!(of(own), OwnUrl::Loopback(own.to_owned()));
        }
    }

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
