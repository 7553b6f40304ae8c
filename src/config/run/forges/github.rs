//! `[github]`: a token or an App, an organisation or repositories; `scale_sets` is what holds of those.

mod scale_sets;

use std::{collections::BTreeSet, env::consts::ARCH, time::Duration};

use ringer::supervisor::settings::{App, Discovery, Github};

use self::scale_sets::SET_INTERVAL;
use super::{
    Access, BTreeMap, Bytes, CacheVolume, Common, Cpus, Deserialize, Error, ForgeSettings, Images, IpAddr, JobLimits,
    Kind, LeftOut, Own, OwnedTold, PathBuf, Proxies, Result, Seconds, Secret, Told, Word, check_url,
};

/// Where it is unless somebody has a server of their own.
const INSTANCE: &str = "https://github.com";

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The same where webhooks tell of jobs, for those that were lost.
const ROUND_INTERVAL: Duration = Duration::from_secs(120);

section! {
    /// `[github]`.
    GithubSection {
        instance_url: Option<String>,
        api_url: Option<String>,
        token: Option<Secret>,
        token_file: Option<PathBuf>,
        token_env: Option<String>,
        app_id: Option<AppId>,
        installation_id: Option<u64>,
        private_key: Option<Secret>,
        private_key_file: Option<PathBuf>,
        private_key_env: Option<String>,
        org: Option<String>,
        repos: Option<Vec<String>>,
        forks: Option<bool>,
        public_repositories: Option<bool>,
        runner_group: Option<String>,
        discovery: Way,
        scale_set: Option<String>,
        container_as_runner: bool,
        cache_volumes: Vec<CacheVolume>,
        build_cache: bool,
    }
}

/// The number of an App, or its client id.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum AppId {
    Number(u64),
    Text(String),
}

/// How jobs are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    #[default]
    Poll,
    Webhook,
    ScaleSet,
}

impl GithubSection {
    /// What the supervisor is told. `number` is which of its kind it is.
    pub fn settings(&self, number: usize, images: &Images) -> Result<ForgeSettings> {
        let settings = self.common().settings("github", number, images, |name| self.own(name))?;
        if self.discovery == Way::ScaleSet {
            self.check_sets(&settings).map_err(|error| error.context(format!("[{}]", settings.name)))?;
        }
        Ok(in_small_letters(settings, self.scale_set.as_deref()))
    }

    fn own(&self, name: &str) -> Result<Own> {
        if self.container_as_runner {
            return Err(Error::invalid(
                "container_as_runner: GitHub hands a job to any runner whose labels it fits, so that nobody knows which workflow's container: \
                 a runner would have to be; name the image as job_image or in [runner] images of the repository: jobs without container: \
                 run in it, beside the runner that it holds or is given",
            ));
        }
        if self.forks == Some(false) {
            return Err(Error::invalid(
                "forks: GitHub gives a runner any job that its labels fit, also a fork's, and no hook of a runner keeps steps with if: always() from \
                 running; let GitHub hold the runs of forks for approval, or leave public repositories out",
            ));
        }
        let (discovery, poll_interval) = match self.discovery {
            Way::Poll => (Discovery::Poll, POLL_INTERVAL),
            Way::Webhook => (Discovery::Webhook, ROUND_INTERVAL),
            Way::ScaleSet => (Discovery::Poll, SET_INTERVAL),
        };
        let url = check_url("instance_url", self.instance_url.as_deref().unwrap_or(INSTANCE))?;
        let api = match &self.api_url {
            Some(api) => check_url("api_url", api)?,
            None => api_of(&url),
        };
        Ok(Own {
            access: self.access(name)?,
            owner: self.org.clone(),
            labels: ["self-hosted", "linux", architecture()].map(ToOwned::to_owned).to_vec(),
            repositories: self.repositories()?,
            left_out: LeftOut { public_repositories: self.public_repositories == Some(false), ..LeftOut::default() },
            cache_volumes: self.cache_volumes.clone(),
            build_cache: self.build_cache,
            kind: Kind::Github(Github {
                api,
                group: self.runner_group.clone(),
                discovery,
                scale_sets: self.scale_sets()?,
            }),
            poll_interval,
            url,
        })
    }

    fn access(&self, name: &str) -> Result<Access> {
        let token = Told { value: &self.token, file: &self.token_file, env: &self.token_env };
        let key = Told { value: &self.private_key, file: &self.private_key_file, env: &self.private_key_env };
        let Some(id) = &self.app_id else {
            if key.is_set(name, "private_key") || self.installation_id.is_some() {
                return Err(Error::invalid("private_key and installation_id are an App's: app_id is missing"));
            }
            return Ok(Access::Token(token.read(name, "token")?));
        };
        if token.is_set(name, "token") {
            return Err(Error::invalid("token or app_id: only one of them can be set"));
        }
        let id = match id {
            AppId::Number(number) => number.to_string(),
            AppId::Text(text) => text.clone(),
        };
        Ok(Access::App(App { id, key: key.read(name, "private_key")?, installation: self.installation_id }))
    }

    /// Whole names: a bare one is the organisation's.
    fn repositories(&self) -> Result<Option<BTreeSet<String>>> {
        if self.org.is_none() && self.repos.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid(
                "org or repos is missing: GitHub has runners of organisations and of repositories",
            ));
        }
        let Some(names) = &self.repos else { return Ok(None) };
        let whole = |name: &String| match (name.split('/').count(), &self.org) {
            (1, Some(org)) if !name.is_empty() => Ok(format!("{org}/{name}")),
            (2, None) if name.ends_with("/*") => {
                Err(Error::invalid(format!("repos: {name:?} needs an org: GitHub has no runners of users")))
            }
            (2, _) if !name.starts_with('/') && !name.ends_with('/') => Ok(name.clone()),
            _ => Err(Error::invalid(format!("repos: {name:?} is no repository: expected OWNER/NAME"))),
        };
        names.iter().map(whole).collect::<Result<_>>().map(Some)
    }
}

/// Labels are the same whatever their letters' case. The name of a scale set is one of them.
fn in_small_letters(mut settings: ForgeSettings, scale_set: Option<&str>) -> ForgeSettings {
    let labels = settings.labels.iter().map(String::as_str).chain(scale_set);
    settings.labels = labels.map(str::to_lowercase).collect();
    settings
}

/// As GitHub calls it.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Of GitHub itself, of GitHub Enterprise Cloud with data residency, of a server of one's own.
fn api_of(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, host)) if host == "github.com" || host.ends_with(".ghe.com") => format!("{scheme}://api.{host}"),
        _ => format!("{url}/api/v3"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn settings(text: &str) -> Result<ForgeSettings> {
        let section: GithubSection = toml::from_str(text).map_err(|error| Error::invalid(error.to_string()))?;
        section.settings(0, &Images::default())
    }

    fn api(settings: &ForgeSettings) -> &str {
        let Kind::Github(github) = &settings.kind else { panic!("it is GitHub") };
        &github.api
    }

    #[test]
    fn two_lines_are_enough() {
        let settings = settings("token = 't'\norg = 'Acme'").unwrap();
        assert_eq!((settings.url.as_str(), api(&settings)), ("https://github.com", "https://api.github.com"));
        assert!(settings.labels.contains("self-hosted") && !settings.depends_on_repository());
    }

    #[test]
    fn servers_of_ones_own_have_their_api_below_them() {
        let of = |url: &str| settings(&format!("token = 't'\norg = 'a'\ninstance_url = '{url}'")).unwrap();
        assert_eq!(api(&of("https://ghes.example.org/")), "https://ghes.example.org/api/v3");
        assert_eq!(api(&of("https://acme.ghe.com")), "https://api.acme.ghe.com");
    }

    #[test]
    fn repositories_are_whole_names_and_what_is_theirs_depends_on_them() {
        let of_org = settings("token = 't'\norg = 'a'\nrepos = ['x', 'b/y']").unwrap();
        assert_eq!(of_org.repositories, Some(["a/x".to_owned(), "b/y".to_owned()].into()));
        assert!(of_org.depends_on_repository());
        let caching = settings("token = 't'\norg = 'a'\nbuild_cache = true").unwrap();
        assert!(caching.depends_on_repository() && caching.keeps_caches());
        let error = |text: &str| settings(text).unwrap_err().chain();
        assert!(error("token = 't'\nrepos = ['x']").contains("OWNER/NAME"));
        assert!(error("token = 't'\nrepos = ['x/*']").contains("needs an org"));
        assert!(error("token = 't'").contains("org or repos is missing"));
    }

    #[test]
    fn a_name_leads_to_a_place() {
        let of = |text: &str| settings(&format!("token = 't'\n{text}")).unwrap();
        let acme = of("org = 'acme'");
        assert!(acme.leads_to_the_same(&of("org = 'Acme'\nlabels = ['new']\nrepos = ['x']")));
        assert!(!acme.leads_to_the_same(&of("org = 'other'")));
        assert!(!acme.leads_to_the_same(&of("org = 'acme'\ninstance_url = 'https://ghes.example.org'")));
        assert!(!acme.leads_to_the_same(&ForgeSettings { kind: Kind::Gitea, ..acme.clone() }));
    }

    #[test]
    fn it_is_a_token_or_an_app() {
        let app = settings("app_id = 7\nprivate_key = 's3cr3t'\norg = 'a'\nlabels = ['Big']").unwrap();
        assert!(matches!(&app.access, Access::App(App { id, .. }) if id == "7"));
        assert!(app.labels.contains("big"), "in small letters");
        let error = |text: &str| settings(text).unwrap_err().chain();
        assert!(error("app_id = 7\ntoken = 't'\norg = 'a'").contains("only one of them"));
        assert!(error("private_key = 'k'\norg = 'a'").contains("app_id is missing"));
        assert!(error("app_id = 'Iv1'\norg = 'a'").contains("private_key"));
        assert!(error("org = 'a'").contains("token"));
        assert!(!format!("{app:?}").contains("s3cr3t"), "no secret is printed");
    }

    #[test]
    fn a_workflows_container_is_no_runner() {
        let error = settings("token = 't'\norg = 'a'\ncontainer_as_runner = true").unwrap_err().chain();
        assert!(error.contains("container_as_runner: ") && error.contains("job_image"), "{error}");
        assert!(settings("token = 't'\norg = 'a'\ncontainer_as_runner = false").is_ok());
    }

    #[test]
    fn webhooks_make_looks_rare() {
        let hooked = settings("token = 't'\norg = 'a'\ndiscovery = 'webhook'\nwebhook_secret = 's3cr3t'").unwrap();
        assert_eq!(hooked.poll_interval, ROUND_INTERVAL);
        assert!(!format!("{hooked:?}").contains("s3cr3t"), "no secret is printed");
    }
}
