//! A job as GitLab describes it to its runner: what we need of `JOB_RESPONSE_FILE` (`common/spec` of gitlab-runner's sources).

use ringer::model::{Error, Result, json, limits, network::null_is_default, registry_auth::RegistryAuth};
use serde::Deserialize;
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
    /// Whose caches are kept apart.
    #[serde(default, deserialize_with = "null_is_default")]
    pub job_info: JobInfo,
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
}

/// What the job is part of.
#[derive(Default, Deserialize)]
pub struct JobInfo {
    /// The project's number.
    #[serde(default)]
    pub project_id: u64,
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
