//! A job as GitLab describes it to its runner: what we need of `JOB_RESPONSE_FILE` (`common/spec` of gitlab-runner's sources).

use std::collections::BTreeMap;

use http::Uri;
use ringer::model::{Error, Result, json, limits, network::null_is_default, registry_auth::RegistryAuth};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

/// What of our own comes on top of GitLab's time for a job: the end of its stages, and of its containers. Seconds.
const AFTER: u64 = 20 * 60;

/// GitLab's time for a job that names none. Seconds.
const USUAL: u64 = 3600;

/// The job.
#[derive(Deserialize)]
pub struct JobResponse {
    id: u64,
    token: String,
    #[serde(default, deserialize_with = "null_is_default")]
    job_info: JobInfo,
    #[serde(default, deserialize_with = "null_is_default")]
    git_info: GitInfo,
    #[serde(default, deserialize_with = "null_is_default")]
    cache: Vec<Cache>,
    #[serde(default, deserialize_with = "null_is_default")]
    runner_info: RunnerInfo,
    /// `image:`; without a name if there is none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub image: Image,
    /// `services:`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub services: Vec<Image>,
    /// Of GitLab's own registry and its proxy.
    #[serde(default, deserialize_with = "null_is_default")]
    pub credentials: Vec<Credentials>,
    /// As GitLab sent them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub variables: Vec<Variable>,
    /// `secrets:`, variables that gitlab-runner fetches from elsewhere, by their names.
    #[serde(default, deserialize_with = "null_is_default")]
    pub secrets: BTreeMap<String, IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct JobInfo {
    #[serde(default)]
    project_id: u64,
}

#[derive(Default, Deserialize)]
struct GitInfo {
    /// With credentials in it.
    #[serde(default, deserialize_with = "null_is_default")]
    repo_url: String,
    /// Whether the branch or tag is; GitLab says so from 18.3 on.
    protected: Option<bool>,
}

/// One of `cache:`.
#[derive(Deserialize)]
struct Cache {
    #[serde(default, deserialize_with = "null_is_default")]
    key: String,
}

#[derive(Default, Deserialize)]
struct RunnerInfo {
    /// Seconds.
    #[serde(default)]
    timeout: u64,
}

/// `image:` or one of `services:`.
#[derive(Default, Deserialize)]
pub struct Image {
    /// Its reference, perhaps with variables.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// Further names of a service, between blanks or commas.
    #[serde(default, deserialize_with = "null_is_default")]
    alias: String,
    /// In place of the image's own; none for that.
    #[serde(default, deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// In place of the image's own; none for that.
    #[serde(default, deserialize_with = "null_is_default")]
    pub command: Vec<String>,
    /// A service's own.
    #[serde(default, deserialize_with = "null_is_default")]
    pub variables: Vec<Variable>,
    /// Tried one after the other; none for the runner's own.
    #[serde(default, deserialize_with = "null_is_default")]
    pub pull_policy: Vec<PullPolicy>,
    #[serde(default, deserialize_with = "null_is_default")]
    executor_opts: ExecutorOptions,
}

/// When an image is asked for at its registry.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Each time; what is here already is not fetched again.
    Always,
    /// Not if the job has it from the start (`serve --preload`).
    IfNotPresent,
    /// Only what it has from the start.
    Never,
}

#[derive(Default, Deserialize)]
struct ExecutorOptions {
    #[serde(default, deserialize_with = "null_is_default")]
    docker: DockerOptions,
}

/// What is for Docker alone.
#[derive(Default, Deserialize)]
pub struct DockerOptions {
    /// `linux/arm64`; the machine's own if it is empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub platform: String,
    /// Who runs in the container; the image's own if it is empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: String,
}

/// Of a registry, or of something else.
#[derive(Deserialize)]
pub struct Credentials {
    #[serde(rename = "type", default)]
    kind: String,
    /// The registry.
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// A variable.
#[derive(Deserialize)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// What it is, perhaps with others in it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub value: String,
    /// Whether it is in the repository anyway: services are given no other.
    #[serde(default)]
    pub public: bool,
    /// Whether it is the name of a file, which only scripts have.
    #[serde(default)]
    pub file: bool,
}

impl JobResponse {
    /// Reads it.
    pub fn read(text: &[u8]) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| Error::invalid(format!("JOB_RESPONSE_FILE: {error}"));
        json::check(text, limits::DOCUMENT_VALUES).map_err(|error| failed(&error))?;
        serde_json::from_slice(text).map_err(|error| failed(&error))
    }

    /// What our job is called, in all its calls, and also when gitlab-runner prepares it again. A job of another GitLab may have the same
    /// number, and its own variables could name any: the token is nobody else's, and its digest tells nobody.
    pub fn name(&self) -> String {
        let digest = Sha256::digest(self.token.as_bytes());
        let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("gitlab-{}-{digest}", self.id)
    }

    /// Which jobs find each other's caches: those of a project of a server, apart by whether their branch or tag is protected. Of GitLab's
    /// own words alone: a job may set any variable.
    pub fn cache_key(&self) -> Result<String> {
        let server = self.server().ok_or_else(|| {
            Error::invalid(
                "JOB_RESPONSE_FILE has no URL in git_info.repo_url, by which caches of servers are kept apart",
            )
        })?;
        let kind = if self.is_protected() { "protected" } else { "other" };
        Ok(format!("{server} project {} {kind}", self.job_info.project_id))
    }

    /// `https://gitlab.example.org`
    fn server(&self) -> Option<String> {
        let url: Uri = self.git_info.repo_url.parse().ok()?;
        let (scheme, host) = (url.scheme_str()?, url.host()?);
        let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{scheme}://{host}{port}").to_lowercase())
    }

    /// A GitLab that does not say it ends the keys of caches so, where it keeps those of protected branches apart.
    fn is_protected(&self) -> bool {
        let by_keys = || self.cache.iter().any(|cache| cache.key.ends_with("-protected"));
        self.git_info.protected.unwrap_or_else(by_keys)
    }

    /// Seconds after which nothing is left of it, whoever does not clean up.
    pub fn ttl(&self) -> u64 {
        let timeout = if self.runner_info.timeout == 0 { USUAL } else { self.runner_info.timeout };
        timeout.saturating_add(AFTER)
    }
}

impl Image {
    /// The names that the job gives a service.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.alias.split(|c: char| c == ',' || c.is_whitespace()).filter(|alias| !alias.is_empty())
    }

    /// What is for Docker alone.
    pub fn docker(&self) -> &DockerOptions {
        &self.executor_opts.docker
    }
}

impl Credentials {
    /// Of a registry.
    pub fn login(&self) -> Option<RegistryAuth> {
        let login = || RegistryAuth {
            username: self.username.clone(),
            password: self.password.clone(),
            serveraddress: self.url.clone(),
            ..RegistryAuth::default()
        };
        (self.kind == "registry").then(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<JobResponse> {
        JobResponse::read(text.as_bytes())
    }

    #[test]
    fn what_is_absent_or_null_is_nothing() {
        let job = read(r#"{"id":7,"token":"t","image":{"name":""},"services":null,"runner_info":null}"#).unwrap();
        assert_eq!((job.image.name.as_str(), job.services.len(), job.ttl()), ("", 0, 3600 + AFTER));
        assert!(read("{}").is_err() && read("[").is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn a_name_is_the_jobs_own_and_the_same_each_time() {
        let name = |id, token: &str| read(&format!(r#"{{"id":{id},"token":"{token}"}}"#)).unwrap().name();
        assert_eq!(name(7, "secret"), name(7, "secret"));
        assert_ne!(name(7, "secret"), name(7, "another"));
        assert!(name(7, "secret").starts_with("gitlab-7-") && !name(7, "secret").contains("secret"));
        ringer::model::job::check_name(&name(u64::MAX, "x")).unwrap();
    }

    /// The key of a job of project 7.
    fn key(git_info: &str, caches: &str) -> Result<String> {
        read(&format!(
            r#"{{"id":1,"token":"t","job_info":{{"project_id":7}},"git_info":{git_info},"cache":{caches}}}"#
        ))?
        .cache_key()
    }

    #[test]
    fn servers_have_caches_of_their_own_and_no_password_is_in_a_key() {
        for (url, server) in [
            ("https://gitlab-ci-token:secret@GitLab.example.org/a/b.git", "https://gitlab.example.org"),
            ("https://gitlab.example.org/a/b.git", "https://gitlab.example.org"),
            ("http://u:p@gitlab.example.org:8929/a/b.git", "http://gitlab.example.org:8929"),
            ("http://u:p@[fd00::1]:8929/a/b.git", "http://[fd00::1]:8929"),
        ] {
            let key = key(&format!(r#"{{"repo_url":"{url}"}}"#), "null").unwrap();
            assert_eq!(key, format!("{server} project 7 other"));
            ringer::model::job::check_cache_key(&key).unwrap();
        }
        for none in ["null", "{}", r#"{"repo_url":""}"#, r#"{"repo_url":"/a/b.git"}"#] {
            assert!(key(none, "null").is_err(), "{none}");
        }
    }

    #[test]
    fn protected_branches_have_caches_of_their_own() {
        let both = r#"[{"key":"a-non_protected"},{"key":"a-protected"}]"#;
        for (said, caches, kind) in [
            ("true", "null", "protected"),
            ("false", both, "other"),
            ("null", both, "protected"),
            ("null", r#"[{"key":"a-non_protected"},{"key":null}]"#, "other"),
            ("null", "[]", "other"),
        ] {
            let git_info = format!(r#"{{"repo_url":"https://u:p@example.org/a.git","protected":{said}}}"#);
            assert_eq!(
                key(&git_info, caches).unwrap(),
                format!("https://example.org project 7 {kind}"),
                "{said} {caches}"
            );
        }
    }

    #[test]
    fn services_may_have_several_aliases() {
        let job = read(
            r#"{"id":1,"token":"t","services":[{"name":"postgres","alias":"db, sql  pg","pull_policy":["if-not-present"]}]}"#,
        );
        let job = job.unwrap();
        assert_eq!(job.services[0].aliases().collect::<Vec<_>>(), ["db", "sql", "pg"]);
        assert_eq!(job.services[0].pull_policy, [PullPolicy::IfNotPresent]);
    }
}
