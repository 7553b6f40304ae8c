//! What the supervisor is told, after files and variables were read.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{images::Images, origin::LeftOut, secret::Secret};
use crate::model::{
    job::{CacheVolume, JobLimits, Surroundings},
    registry_auth::Logins,
};

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Jobs of all forges together at once.
    pub max_jobs: Option<usize>,
    /// Bytes of memory that the limits of all jobs together may come to.
    pub max_memory: Option<u64>,
    /// Credentials for registries, by their host.
    pub registries: Logins,
    /// All registries that have a section, `host[:port]`, also without credentials.
    pub named_registries: BTreeSet<String>,
    /// The forges.
    pub forges: Vec<ForgeSettings>,
}

/// Which software a forge is, and what only that one has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Forgejo.
    Forgejo,
    /// Gitea.
    Gitea,
    /// GitHub, or a GitHub Enterprise Server.
    Github(Github),
    /// GitLab.
    Gitlab(Gitlab),
    /// Woodpecker.
    Woodpecker(Woodpecker),
}

/// What only Woodpecker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Woodpecker {
    /// Where agents connect to, `HOST:PORT`.
    pub address: String,
    /// Whether that is with TLS.
    pub secure: bool,
}

/// What only GitLab has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gitlab {
    /// The authentication token of a runner that was made there: by it our slots are known, which share it.
    pub runner: Secret,
}

/// What only GitHub has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Github {
    /// Where its API is, without a slash at its end.
    pub api: String,
    /// The runner group of an organisation; its default one if none.
    pub group: Option<String>,
    /// How jobs are found.
    pub discovery: Discovery,
    /// Scale sets are given the jobs, where nothing is asked for them.
    pub scale_sets: Option<GithubSets>,
}

/// Scale sets of GitHub: they are listened to on connections of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubSets {
    /// What they are called, if not by the instance and the forge.
    pub name: Option<String>,
}

/// How jobs of GitHub are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// All repositories are asked, again and again.
    #[default]
    Poll,
    /// Its webhook tells of them; all repositories are asked now and then, for deliveries that were lost.
    Webhook,
}

/// Who we are to a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever's this access token is.
    Token(Secret),
    /// A GitHub App.
    App(App),
}

/// A GitHub App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its number or client id.
    pub id: String,
    /// Its private key, PEM.
    pub key: Secret,
    /// The number of its installation; found if none.
    pub installation: Option<u64>,
}

impl Kind {
    /// The section's name in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
            Self::Github(_) => "github",
            Self::Gitlab(_) => "gitlab",
            Self::Woodpecker(_) => "woodpecker",
        }
    }
}

/// Where the steps of a job run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In containers that the runner makes through the job's socket.
    #[default]
    Socket,
    /// In the job image, beside the runner, whose program is put there.
    Single {
        /// Whether there is a Docker socket for the steps.
        docker: bool,
    },
}

/// Proxies, as their variables have them. Addresses may hold passwords, which jobs can read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `http_proxy`.
    pub http: Option<Secret>,
    /// `https_proxy`.
    pub https: Option<Secret>,
    /// `no_proxy`: names, domains and addresses that are reached without.
    pub none: Option<String>,
}

impl Proxies {
    /// The variables that programs read: in small letters, and in capitals, as some have it.
    fn variables(&self) -> Vec<String> {
        let all = [
            ("http_proxy", self.http.as_ref().map(Secret::reveal)),
            ("https_proxy", self.https.as_ref().map(Secret::reveal)),
            ("no_proxy", self.none.as_deref()),
        ];
        let set = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
        set.flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_uppercase())]).collect()
    }
}

/// One forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgeSettings {
    /// What logs and lists call it, unique.
    pub name: String,
    /// Which software it is.
    pub kind: Kind,
    /// Where it is, without a slash at its end.
    pub url: String,
    /// By what it knows us.
    pub access: Access,
    /// Between two looks at its queue.
    pub poll_interval: Duration,
    /// What its webhook signs deliveries with; none are taken without.
    pub webhook_secret: Option<Secret>,
    /// Whether we may make a webhook there.
    pub may_make_webhook: bool,
    /// Where its webhook finds us, if it is we who make it.
    pub public_url: Option<String>,
    /// The organisation or user whose jobs run; all of the server if none.
    pub owner: Option<String>,
    /// Where steps run.
    pub mode: Mode,
    /// What a workflow's `runs-on` may ask for.
    pub labels: BTreeSet<String>,
    /// Jobs at once.
    pub concurrency: usize,
    /// Runners that wait for jobs to come, beside those of jobs that wait.
    pub warm: usize,
    /// Limits of each job.
    pub limits: JobLimits,
    /// How long a job may take.
    pub job_timeout: Duration,
    /// What jobs may do, by the name of a policy; the daemon's policy of jobs if none.
    pub policy: Option<String>,
    /// Names that runner, job containers and our own client know, with their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// Certificates of authorities that are trusted beside the system's, PEM.
    pub authorities: Option<String>,
    /// By which the world is reached, by our own client and in jobs.
    pub proxies: Proxies,
    /// Repositories whose jobs may run, `owner/name` or `owner/*`; all if none.
    pub repositories: Option<BTreeSet<String>>,
    /// Which of their jobs may not, by whence they come.
    pub left_out: LeftOut,
    /// Volumes that a repository's jobs find as its last one has left them.
    pub cache_volumes: Vec<CacheVolume>,
    /// Whether they find the cache of its BuildKit so as well.
    pub build_cache: bool,
    /// Whether each branch has those of its own.
    pub branch_caches: bool,
    /// Whether a registration that is not dropped after one job may be the next runner's too.
    pub reuse_registrations: bool,
    /// Which image is taken for what.
    pub images: Images,
}

impl ForgeSettings {
    /// What runner and job containers find around them.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            hosts: self.hosts.clone(),
            env: self.proxies.variables(),
            authorities: self.authorities.clone(),
            ..Surroundings::default()
        }
    }

    /// Whether runners that were registered under the other ones are found under these: the same server, and the same place there.
    pub fn leads_to_the_same(&self, other: &Self) -> bool {
        let place = |settings: &Self| {
            let at = match &settings.kind {
                Kind::Github(github) => Some(Secret::new(github.api.clone())),
                // Jobs of another runner are not found by this one's.
                Kind::Gitlab(gitlab) => Some(gitlab.runner.clone()),
                Kind::Forgejo | Kind::Gitea | Kind::Woodpecker(_) => None,
            };
            let owner = settings.owner.as_ref().map(|owner| owner.to_lowercase());
            (settings.kind.word(), settings.url.clone(), at, owner)
        };
        place(self) == place(other)
    }

    /// Whether something depends on the repository whose job it is, so that no runner may be given another one's.
    pub fn depends_on_repository(&self) -> bool {
        let is_bound = self.repositories.is_some() || self.left_out.public_repositories;
        is_bound || !self.images.of_repositories.is_empty() || self.keeps_caches()
    }

    /// Whether a job leaves something to the next one of its repository.
    pub fn keeps_caches(&self) -> bool {
        self.build_cache || !self.cache_volumes.is_empty()
    }

    /// The key of a repository's caches: the same name at another forge is another repository.
    pub fn cache_key(&self, repository: &str) -> String {
        format!("{}/{}", self.url, repository.to_lowercase())
    }

    /// Whether jobs of a repository may run.
    pub fn allows(&self, repository: &str) -> bool {
        let Some(allowed) = &self.repositories else { return true };
        let owner = repository.split('/').next().unwrap_or_default();
        // Names of repositories are one whatever their letters' case, as the forges have it.
        let is = |pattern: &String| {
            pattern.eq_ignore_ascii_case(repository)
                || pattern.strip_suffix("/*").is_some_and(|of| of.eq_ignore_ascii_case(owner))
        };
        allowed.iter().any(is)
    }
}
