//! The sections of forges.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use ringer::{
    model::{
        Error, Result,
        job::{CacheVolume, JobLimits},
    },
    supervisor::{
        check::is_loopback,
        images::Images,
        origin::LeftOut,
        secret::Secret,
        settings::{Access, ForgeSettings, Kind, Mode, Proxies},
    },
};
use serde::Deserialize;

pub use self::{github::GithubSection, gitlab::GitlabSection, woodpecker::WoodpeckerSection};
use super::{
    read_text,
    secrets::{OwnedTold, Told},
};
use crate::cli::values::{Bytes, Cpus, Seconds};

/// What workflows ask for most.
const LABELS: [&str; 3] = ["ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04"];

/// Jobs of a forge at once.
const CONCURRENCY: usize = 4;

/// How long a job may take: what the upstream runners say.
const JOB_TIMEOUT: Duration = Duration::from_secs(3 * 3600);

/// Between two looks at a forge that has its jobs in one list.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Longest name of a forge: it is a part of names at the forge and of links.
const NAME_LENGTH: usize = 40;

/// The section of a forge: its own keys, and those that all forges have. (serde's `flatten` would take unknown keys.)
macro_rules! section {
    ($(#[$about:meta])* $name:ident { $($own:ident: $type:ty,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($own: $type,)+
            name: Option<String>,
            mode: Word,
            docker: bool,
            job_image: Option<String>,
            runner_image: Option<String>,
            labels: Option<Vec<String>>,
            concurrency: Option<usize>,
            warm: usize,
            memory: Option<Bytes>,
            cpus: Option<Cpus>,
            pids: Option<u64>,
            disk: Option<Bytes>,
            timeout: Option<Seconds>,
            policy: Option<String>,
            hosts: BTreeMap<String, IpAddr>,
            ca_file: Option<PathBuf>,
            http_proxy: Option<Secret>,
            https_proxy: Option<Secret>,
            no_proxy: Option<String>,
            poll_interval: Option<Seconds>,
            webhook_secret: Option<Secret>,
            webhook_secret_file: Option<PathBuf>,
            webhook_secret_env: Option<String>,
        }

        impl $name {
            /// The keys that all forges have.
            fn common(&self) -> Common {
                Common {
                    name: self.name.clone(),
                    mode: self.mode,
                    docker: self.docker,
                    job_image: self.job_image.clone(),
                    runner_image: self.runner_image.clone(),
                    labels: self.labels.clone(),
                    concurrency: self.concurrency,
                    warm: self.warm,
                    limits: JobLimits {
                        memory: self.memory.map(|Bytes(bytes)| bytes),
                        nano_cpus: self.cpus.map(|Cpus(nano)| nano),
                        pids: self.pids,
                        disk: self.disk.map(|Bytes(bytes)| bytes),
                    },
                    timeout: self.timeout,
                    policy: self.policy.clone(),
                    hosts: self.hosts.clone(),
                    ca_file: self.ca_file.clone(),
                    proxies: Proxies {
                        http: self.http_proxy.clone(),
                        https: self.https_proxy.clone(),
                        none: self.no_proxy.clone(),
                    },
                    poll_interval: self.poll_interval,
                    webhook_secret: OwnedTold {
                        value: self.webhook_secret.clone(),
                        file: self.webhook_secret_file.clone(),
                        env: self.webhook_secret_env.clone(),
                    },
                }
            }
        }
    };
}

mod github;
mod gitlab;
mod woodpecker;

section! {
    /// `[forgejo]`, `[gitea]`: forges whose runners are of the act family.
    ActSection {
        instance_url: String,
        token: Option<Secret>,
        token_file: Option<PathBuf>,
        token_env: Option<String>,
        owner: Option<String>,
        repositories: Option<Vec<String>>,
        cache_volumes: Vec<CacheVolume>,
        build_cache: bool,
        branch_caches: bool,
        forks: Option<bool>,
        public_repositories: Option<bool>,
        make_webhook: Option<bool>,
        reuse_registrations: bool,
    }
}

/// What every section has.
struct Common {
    name: Option<String>,
    mode: Word,
    docker: bool,
    job_image: Option<String>,
    runner_image: Option<String>,
    labels: Option<Vec<String>>,
    concurrency: Option<usize>,
    warm: usize,
    limits: JobLimits,
    timeout: Option<Seconds>,
    policy: Option<String>,
    hosts: BTreeMap<String, IpAddr>,
    ca_file: Option<PathBuf>,
    proxies: Proxies,
    poll_interval: Option<Seconds>,
    webhook_secret: OwnedTold,
}

/// What a section's own keys come to.
struct Own {
    kind: Kind,
    url: String,
    access: Access,
    owner: Option<String>,
    labels: Vec<String>,
    repositories: Option<BTreeSet<String>>,
    left_out: LeftOut,
    cache_volumes: Vec<CacheVolume>,
    build_cache: bool,
    /// Between two looks, if nothing else is said.
    poll_interval: Duration,
}

impl ActSection {
    /// What the supervisor is told. `number` is which of its kind it is.
    pub fn settings(&self, kind: Kind, number: usize, common: &Images) -> Result<ForgeSettings> {
        let settings = self.common().settings(kind.word(), number, common, |name| {
            if kind == Kind::Forgejo && self.common().webhook_secret.told().is_set(name, "webhook_secret") {
                return Err(Error::invalid(
                    "webhook_secret: Forgejo has no webhook that tells of jobs; ringer asks it every 2 s",
                ));
            }
            self.check(&kind)?;
            let told = Told { value: &self.token, file: &self.token_file, env: &self.token_env };
            Ok(Own {
                left_out: LeftOut {
                    forks: self.forks == Some(false),
                    public_repositories: self.public_repositories == Some(false),
                },
                url: check_url("instance_url", &self.instance_url)?,
                access: Access::Token(told.read(name, "token")?),
                owner: self.owner.clone(),
                labels: LABELS.map(ToOwned::to_owned).to_vec(),
                repositories: self.repositories.as_ref().map(|names| names.iter().cloned().collect()),
                cache_volumes: self.cache_volumes.clone(),
                build_cache: self.build_cache,
                poll_interval: POLL_INTERVAL,
                kind,
            })
        })?;
        Ok(ForgeSettings {
            reuse_registrations: self.reuse_registrations,
            branch_caches: self.branch_caches,
            may_make_webhook: self.make_webhook != Some(false),
            ..settings
        })
    }

    /// What one of the two cannot keep is not promised.
    fn check(&self, kind: &Kind) -> Result<()> {
        let is_gitea = *kind == Kind::Gitea;
        let why = if is_gitea && self.forks == Some(false) {
            "forks: Gitea hands a job to any runner that its labels fit, so that one that was launched for another job may get a fork's, and it \
             calls nothing before the first step; Gitea itself lets the pull requests of new contributors wait for approval"
        } else if is_gitea && self.branch_caches {
            "branch_caches: a runner of Gitea's that was launched for one branch may be given another's job of its repository, and the caches of \
             a job are bound when it is made"
        } else if self.branch_caches && self.cache_volumes.is_empty() && !self.build_cache {
            "branch_caches: it says whose cache_volumes and build_cache are, and there are none"
        } else if !is_gitea && self.make_webhook.is_some() {
            "make_webhook: Forgejo has no webhook that tells of jobs, so that none is made there"
        } else {
            return Ok(());
        };
        Err(Error::invalid(why))
    }
}

impl Common {
    fn settings(
        self,
        word: &str,
        number: usize,
        images: &Images,
        own: impl FnOnce(&str) -> Result<Own>,
    ) -> Result<ForgeSettings> {
        let first = if number == 0 { word.to_owned() } else { format!("{word}-{}", number + 1) };
        let name = self.name.clone().unwrap_or(first);
        check_name(&name)?;
        let section = format!("[{name}]");
        let wrong = |error: Error| error.context(&section);
        let own = own(&name).map_err(wrong)?;
        let authorities = self.ca_file.as_deref().map(read_text).transpose().map_err(wrong)?;
        let secret = self.webhook_secret.told();
        let is_hooked = secret.is_set(&name, "webhook_secret");
        let webhook_secret = is_hooked.then(|| secret.read(&name, "webhook_secret")).transpose().map_err(wrong)?;
        let interval = self.poll_interval.map(|Seconds(seconds)| Duration::from_secs(seconds.max(1)));
        let mode = self.mode().map_err(wrong)?;
        let labels: BTreeSet<String> = self.labels.unwrap_or(own.labels).into_iter().collect();
        if let Some(label) = labels.iter().find(|label| label.is_empty() || label.contains([':', ','])) {
            return Err(Error::invalid(format!("{section}: {label:?} is no label: it is a name without an image")));
        }
        if mode != Mode::Socket && !own.cache_volumes.is_empty() {
            return Err(Error::invalid(format!(
                "{section}: cache_volumes are named by workflows, in container.volumes: with mode = \"single\" there is no such \
                 container"
            )));
        }
        let settings = ForgeSettings {
            kind: own.kind,
            url: own.url,
            access: own.access,
            poll_interval: interval.unwrap_or(own.poll_interval),
            webhook_secret,
            may_make_webhook: true,
            public_url: None,
            owner: own.owner,
            mode,
            labels,
            concurrency: self.concurrency.unwrap_or(CONCURRENCY),
            warm: self.warm,
            limits: self.limits,
            job_timeout: self.timeout.map_or(JOB_TIMEOUT, |Seconds(seconds)| Duration::from_secs(seconds)),
            policy: self.policy,
            hosts: self.hosts.into_iter().collect(),
            authorities,
            proxies: checked(self.proxies).map_err(wrong)?,
            repositories: own.repositories,
            left_out: own.left_out,
            cache_volumes: own.cache_volumes,
            build_cache: own.build_cache,
            branch_caches: false,
            reuse_registrations: false,
            images: Images { runner: self.runner_image, job: self.job_image, ..images.clone() },
            name,
        };
        check_warm(&settings).map_err(wrong)?;
        Ok(settings)
    }
}

/// A runner that is started ahead takes whatever comes.
fn check_warm(settings: &ForgeSettings) -> Result<()> {
    let why = if settings.warm == 0 {
        return Ok(());
    } else if settings.kind == Kind::Forgejo {
        "it is not for Forgejo, whose runners are each registered for one job that waits, and whose list of jobs does not tell which runner \
         has one"
    } else if settings.depends_on_repository() {
        "a runner that waits takes any repository's job, so that repositories (or repos), public_repositories, cache_volumes and [runner] images of \
         repositories cannot be kept"
    } else if settings.warm > settings.concurrency {
        "more of them than concurrency lets be there"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("warm: {why}")))
}

/// Addresses that jobs reach too.
fn checked(proxies: Proxies) -> Result<Proxies> {
    for (key, url) in [("http_proxy", &proxies.http), ("https_proxy", &proxies.https)] {
        if let Some(url) = url {
            // The address may hold a password.
            let wrong = |_| Error::invalid(format!("{key}: expected http://HOST:PORT, at an address that jobs reach"));
            check_url(key, url.reveal()).map_err(wrong)?;
        }
    }
    Ok(proxies)
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Socket,
    Single,
}

impl Common {
    /// Of forges whose runner makes a container for each step, and whose webhooks ringer does not read.
    fn needs_no_more_than_a_socket(&self, runner: &str, name: &str) -> Result<()> {
        if self.mode != Word::Socket {
            return Err(Error::invalid(format!(
                "mode = \"single\": {runner} runs steps in containers of its own alone"
            )));
        }
        if self.webhook_secret.told().is_set(name, "webhook_secret") {
            return Err(Error::invalid(
                "webhook_secret: webhooks of this forge are not read; it is asked every poll_interval",
            ));
        }
        Ok(())
    }

    fn mode(&self) -> Result<Mode> {
        match self.mode {
            Word::Single => Ok(Mode::Single { docker: self.docker }),
            Word::Socket if self.docker => Err(Error::invalid(
                "docker is for mode = \"single\": with the other the runner has a socket, and gives it to jobs",
            )),
            Word::Socket => Ok(Mode::Socket),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > NAME_LENGTH || !name.chars().all(fits) {
        return Err(Error::invalid(format!("invalid name of a forge {name:?}: only [a-z0-9-], at most {NAME_LENGTH}")));
    }
    Ok(())
}

/// The address by which this machine reaches others, as a URL has it. Nothing is sent to find it out.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // One of documentation, which nobody has.
    socket.connect(("192.0.2.1", 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

/// Jobs have to reach it as it is written.
pub fn check_url(key: &str, text: &str) -> Result<String> {
    let invalid = |why: &str| Error::invalid(format!("invalid {key} {text:?}: {why}"));
    let uri: http::Uri = text.trim_end_matches('/').parse().map_err(|_| invalid("no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid("expected http://HOST[:PORT] or https://HOST[:PORT]"));
    }
    let host = uri.host().unwrap_or_default();
    if is_loopback(host) {
        let such_as = own_address().map(|address| format!(", such as {}", text.replacen(host, &address, 1)));
        return Err(invalid(&format!(
            "in a job, localhost is the job: write an address of this machine that the forge listens at{}, or a name with its address \
             in hosts",
            such_as.unwrap_or_default()
        )));
    }
    Ok(text.trim_end_matches('/').to_owned())
}
