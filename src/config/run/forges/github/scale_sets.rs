//! What `[github]` says of scale sets: any runner of one is given any of its jobs.

use std::{collections::BTreeSet, time::Duration};

use ringer::supervisor::settings::GithubSets;

use super::{
    super::{Error, ForgeSettings, Result},
    GithubSection, Way,
};

/// Between two looks where scale sets are listened to, for runners whose registration is gone.
pub const SET_INTERVAL: Duration = Duration::from_secs(60);

/// Scale sets that one forge may have: each is a connection.
const SETS: usize = 20;

/// Longest name of a scale set: what actions-runner-controller takes.
const NAME: usize = 45;

/// What a forge's name may have of that: `ringer-INSTANCE-` is before it.
const OF_DEFAULT: usize = NAME - 16;

impl GithubSection {
    /// Any runner of a set is given any of its jobs.
    pub(super) fn check_sets(&self, settings: &ForgeSettings) -> Result<()> {
        let why = match &settings.repositories {
            None if settings.depends_on_repository() => {
                "images of repositories, cache_volumes and build_cache depend on the repository, and any runner of an organisation's scale \
                 set is given any repository's job: name the repositories in repos, so that each has a scale set of its own"
            }
            Some(names) if names.iter().any(|name| name.ends_with("/*")) => {
                "repos: each repository has a scale set of its own: name them, without OWNER/*"
            }
            Some(names) if has_twice(names) => "repos: letters' case apart, a repository is named twice",
            None | Some(_) if self.scale_set.is_none() && settings.name.len() > OF_DEFAULT => {
                "name: too long for the name that its scale set would have: set scale_set"
            }
            Some(names) if names.len() > SETS => "repos: more than 20 repositories, each with a scale set of its own",
            _ if settings.webhook_secret.is_some() => "webhook_secret: scale sets are listened to, and need no webhook",
            _ if settings.warm > 0 => "warm: a scale set's runners are each for a job that is there",
            _ if settings.left_out.public_repositories => {
                "public_repositories: GitHub has given a scale set its jobs before it could be asked whence they come"
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(format!("discovery = \"scale-set\": {why}")))
    }

    /// What is configured of scale sets, if they are wanted.
    pub(super) fn scale_sets(&self) -> Result<Option<GithubSets>> {
        let is_wanted = self.discovery == Way::ScaleSet;
        let Some(name) = &self.scale_set else { return Ok(is_wanted.then_some(GithubSets { name: None })) };
        if !is_wanted {
            return Err(Error::invalid("scale_set: the name is for discovery = \"scale-set\""));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME || !name.chars().all(fits) {
            return Err(Error::invalid(format!("scale_set: {name:?}: only [A-Za-z0-9._-], at most {NAME}")));
        }
        Ok(Some(GithubSets { name: Some(name.clone()) }))
    }
}

fn has_twice(names: &BTreeSet<String>) -> bool {
    let all: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
    all.len() < names.len()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::settings, SET_INTERVAL};

    #[test]
    fn scale_sets_are_of_an_organisation_or_of_repositories_that_are_named() {
        let of = |text: &str| settings(&format!("token = 't'\ndiscovery = 'scale-set'\n{text}"));
        let named = of("org = 'a'\nscale_set = 'Linux-CI'").unwrap();
        assert!(named.labels.contains("linux-ci") && named.labels.contains("self-hosted"));
        assert_eq!(named.poll_interval, SET_INTERVAL);
        assert!(of("org = 'a'\nrepos = ['x']\nbuild_cache = true").is_ok(), "each has its own");
        let error = |text: &str| of(text).unwrap_err().chain();
        assert!(error("org = 'a'\nbuild_cache = true").contains("name the repositories in repos"));
        assert!(error("org = 'a'\nrepos = ['b/*']").contains("without OWNER/*"));
        assert!(error("org = 'a'\nrepos = ['b', 'B']").contains("named twice"));
        assert!(error(&format!("org = 'a'\nname = '{}'", "a".repeat(30))).contains("set scale_set"));
        assert!(error("org = 'a'\nwebhook_secret = 's'").contains("need no webhook"));
        assert!(error("org = 'a'\nscale_set = 'a b'").contains("scale_set"));
        assert!(settings("token = 't'\norg = 'a'\nscale_set = 'x'").unwrap_err().chain().contains("discovery"));
    }
}
