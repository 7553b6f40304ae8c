//! `[gitlab]`: a runner that was made there, and a token that sees its jobs.

use std::time::Duration;

use ringer::supervisor::settings::Gitlab;

use super::{
    Access, BTreeMap, Bytes, CacheVolume, Common, Cpus, Deserialize, Error, ForgeSettings, Images, IpAddr, JobLimits,
    Kind, LeftOut, Own, OwnedTold, PathBuf, Proxies, Result, Seconds, Secret, Told, Word, check_url,
};

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(3);

section! {
    /// `[gitlab]`.
    GitlabSection {
        url: String,
        token: Option<Secret>,
        token_file: Option<PathBuf>,
        token_env: Option<String>,
        api_token: Option<Secret>,
        api_token_file: Option<PathBuf>,
        api_token_env: Option<String>,
        repositories: Option<Vec<String>>,
        forks: Option<bool>,
        public_repositories: Option<bool>,
        cache_volumes: Vec<CacheVolume>,
    }
}

impl GitlabSection {
    /// What the supervisor is told. `number` is which of its kind it is.
    pub fn settings(&self, number: usize, images: &Images) -> Result<ForgeSettings> {
        self.common().settings("gitlab", number, images, |name| self.own(name))
    }

    fn own(&self, name: &str) -> Result<Own> {
        if self.repositories.is_some() {
            return Err(Error::invalid(
                "repositories: GitLab hands a runner's slots the jobs of all its projects, and none can be bound to one: make the \
                 runner at a group or project, with one [[gitlab]] each",
            ));
        }
        if self.forks == Some(false) || self.public_repositories == Some(false) {
            return Err(Error::invalid(
                "forks, public_repositories: GitLab hands a runner's slots the jobs of all its projects, and none can be kept from one: say there which projects and pull requests the runner serves",
            ));
        }
        if !self.cache_volumes.is_empty() {
            return Err(Error::invalid(
                "cache_volumes: they are a repository's, and nobody knows whose job a slot of GitLab's gets before it has one",
            ));
        }
        if self.labels.is_some() {
            return Err(Error::invalid("labels: GitLab keeps the tags of a runner: set them there"));
        }
        self.common().needs_no_more_than_a_socket("gitlab-runner", name)?;
        let runner = Told { value: &self.token, file: &self.token_file, env: &self.token_env };
        let api = Told { value: &self.api_token, file: &self.api_token_file, env: &self.api_token_env };
        Ok(Own {
            kind: Kind::Gitlab(Gitlab { runner: runner.read(name, "token")? }),
            url: check_url("url", &self.url)?,
            access: Access::Token(api.read(name, "api_token")?),
            owner: None,
            labels: Vec::new(),
            repositories: None,
            left_out: LeftOut::default(),
            cache_volumes: Vec::new(),
            build_cache: false,
            poll_interval: POLL_INTERVAL,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE_LINES: &str = "url = 'https://git.example.org'\ntoken = 'glrt-s3cr3t'\napi_token = 'glpat-s3cr3t'\n";

    fn settings(text: &str) -> Result<ForgeSettings> {
        let section: GitlabSection = toml::from_str(text).map_err(|error| Error::invalid(error.to_string()))?;
        section.settings(0, &Images::default())
    }

    #[test]
    fn three_lines_are_enough() {
        let settings = settings(THREE_LINES).unwrap();
        assert_eq!((settings.name.as_str(), settings.kind.word()), ("gitlab", "gitlab"));
        assert!(!format!("{settings:?}").contains("s3cr3t"), "no secret is printed");
    }

    #[test]
    fn what_gitlab_cannot_do_is_refused_with_the_reason() {
        let error = |more: &str| settings(&format!("{THREE_LINES}{more}")).unwrap_err().chain();
        assert!(error("repositories = ['a/b']").contains("none can be bound to one"));
        assert!(error("cache_volumes = ['go']").contains("nobody knows whose job"));
        assert!(error("labels = ['a']").contains("set them there"));
        assert!(error("mode = 'single'").contains("in containers of its own alone"));
        assert!(error("webhook_secret = 's'").contains("are not read"));
        assert!(settings("url = 'https://git.example.org'\ntoken = 't'").unwrap_err().chain().contains("api_token"));
    }

    #[test]
    fn another_runner_is_another_place() {
        let one = settings(THREE_LINES).unwrap();
        assert!(one.leads_to_the_same(&settings(&format!("{THREE_LINES}concurrency = 9")).unwrap()));
        assert!(!one.leads_to_the_same(&settings(&THREE_LINES.replace("glrt-", "glrt-other-")).unwrap()));
    }
}
