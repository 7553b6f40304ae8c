//! The sections of forges.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use ringer::{
    model::{Error, Result, error::Context, job::JobLimits},
    supervisor::{
        images::Images,
        secret::Secret,
        settings::{ForgeSettings, Kind, Mode},
    },
};
use serde::Deserialize;

use super::secrets::Told;
use crate::cli::values::{Bytes, Cpus, Seconds};

/// What workflows ask for most.
const LABELS: [&str; 3] = ["ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04"];

/// Jobs of a forge at once.
const CONCURRENCY: usize = 4;

/// How long a job may take: what the upstream runners say.
const JOB_TIMEOUT: Duration = Duration::from_secs(3 * 3600);

/// Longest name of a forge: it is a part of names at the forge and of links.
const NAME_LENGTH: usize = 40;

/// `[forgejo]`, `[gitea]`: forges whose runners are of the act family.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActSection {
    name: Option<String>,
    instance_url: String,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    token_env: Option<String>,
    owner: Option<String>,
    mode: Word,
    docker: bool,
    job_image: Option<String>,
    runner_image: Option<String>,
    labels: Option<Vec<String>>,
    concurrency: Option<usize>,
    memory: Option<Bytes>,
    cpus: Option<Cpus>,
    pids: Option<u64>,
    timeout: Option<Seconds>,
    hosts: BTreeMap<String, IpAddr>,
    ca_file: Option<PathBuf>,
    repositories: Option<Vec<String>>,
}

impl ActSection {
    /// What the supervisor is told. `number` is which of its kind it is.
    pub fn settings(&self, kind: Kind, number: usize, common: &Images) -> Result<ForgeSettings> {
        let first = if number == 0 { kind.word().to_owned() } else { format!("{}-{}", kind.word(), number + 1) };
        let name = self.name.clone().unwrap_or(first);
        check_name(&name)?;
        let section = format!("[{}]", name);
        let wrong = |error: Error| error.context(&section);
        let authorities = match &self.ca_file {
            Some(path) => Some(fs::read(path).context(format!("reading {}", path.display())).map_err(wrong)?),
            None => None,
        };
        let told = Told { value: &self.token, file: &self.token_file, env: &self.token_env };
        let labels: BTreeSet<String> = match &self.labels {
            Some(labels) => labels.iter().cloned().collect(),
            None => LABELS.iter().map(|&label| label.to_owned()).collect(),
        };
        if let Some(label) = labels.iter().find(|label| label.is_empty() || label.contains([':', ','])) {
            return Err(Error::invalid(format!("{section}: {label:?} is no label: it is a name without an image")));
        }
        Ok(ForgeSettings {
            kind,
            url: check_url(&self.instance_url).map_err(wrong)?,
            token: told.read(&section, "token")?,
            owner: self.owner.clone(),
            mode: self.mode().map_err(wrong)?,
            labels,
            concurrency: self.concurrency.unwrap_or(CONCURRENCY),
            limits: JobLimits {
                memory: self.memory.map(|Bytes(bytes)| bytes),
                nano_cpus: self.cpus.map(|Cpus(nano)| nano),
                pids: self.pids,
            },
            job_timeout: self.timeout.map_or(JOB_TIMEOUT, |Seconds(seconds)| Duration::from_secs(seconds)),
            hosts: self.hosts.iter().map(|(name, address)| (name.clone(), *address)).collect(),
            authorities,
            repositories: self.repositories.as_ref().map(|names| names.iter().cloned().collect()),
            images: Images { runner: self.runner_image.clone(), job: self.job_image.clone(), ..common.clone() },
            name,
        })
    }
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Socket,
    Single,
}

impl ActSection {
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

/// Jobs have to reach it as it is written.
fn check_url(text: &str) -> Result<String> {
    let invalid = |why: &str| Error::invalid(format!("invalid instance_url {text:?}: {why}"));
    let uri: http::Uri = text.trim_end_matches('/').parse().map_err(|_| invalid("no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid("expected http://HOST[:PORT] or https://HOST[:PORT]"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_loopback || host == "localhost" || host.ends_with(".localhost") {
        return Err(invalid(
            "in a job, localhost is the job: write an address of this machine that the forge listens at, or a name with \
             its address in hosts",
        ));
    }
    Ok(text.trim_end_matches('/').to_owned())
}
