//! Jobs: small machines of their own, each a tenant with a socket and an end.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Error, Result,
    id::TenantId,
    limits,
    network::Opening,
    policy::{Policy, PolicyRef},
    record::Record,
    registry_auth::Logins,
    time::Timestamp,
};

/// The longest `--name`.
const NAME_LENGTH: usize = 128;

/// The longest time that a job may be given, in seconds: ten years.
const LONGEST: u64 = 10 * 365 * 24 * 3600;

/// A job as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The tenant behind its socket.
    pub id: TenantId,
    /// What people call it, unique among the jobs that are there.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The user who may use its socket.
    pub uid: u32,
    /// The process with which it ends.
    pub owner: Option<ProcessName>,
    /// When it ends at the latest.
    pub expires: Option<Timestamp>,
    /// What all its containers together may use.
    #[serde(default)]
    pub limits: JobLimits,
    /// What it reaches beside what is open to all jobs.
    #[serde(default)]
    pub openings: BTreeSet<Opening>,
    /// What all its containers find around them.
    #[serde(flatten)]
    pub surroundings: Surroundings,
    /// Registries, `host[:port]`, that its operator has named: they are asked from the machine.
    #[serde(default)]
    pub registries: BTreeSet<String>,
    /// What its clients may do. Records of daemons without policies have none: they get that of jobs.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// Jobs with the same key have the same caches; none is a key of its own.
    #[serde(default)]
    pub cache_key: Option<String>,
    /// Volumes that it finds and leaves.
    #[serde(default)]
    pub cache_volumes: Vec<CacheVolume>,
    /// The job in whose name the host of its networks was made, if not in its own.
    #[serde(default)]
    pub host: Option<TenantId>,
    /// The cache of its builds, if that outlives it.
    #[serde(default)]
    pub build_cache: Option<TenantId>,
    /// By what file systems count what it takes, if one of them can when it is made and it has a limit of the disk.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Since when and why it is being removed.
    pub ending: Option<Ending>,
}

impl JobRecord {
    /// In whose name the host of its networks was made.
    pub fn host(&self) -> &TenantId {
        self.host.as_ref().unwrap_or(&self.id)
    }

    /// Why it ends or has ended, if nobody asked for it.
    pub fn ended_by_itself(&self) -> Option<EndReason> {
        self.ending.as_ref().map(|ending| ending.reason).filter(|reason| *reason != EndReason::Removed)
    }
}

impl Record for JobRecord {
    const KIND: &'static str = "job";
}

/// What all containers of a job find around them, whatever they were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Surroundings {
    /// Names that they know, with their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// Variables, `NAME=VALUE`. What a container or its image sets goes before.
    pub env: Vec<String>,
    /// Certificates of authorities that programs trust beside the machine's, PEM.
    pub authorities: Option<String>,
    /// How long a network stays after a client has asked for its removal, which is answered when it is gone.
    pub network_linger: Duration,
}

/// A volume that outlives jobs, as one names it: `NAME`, or `NAME:ro` for reading only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CacheVolume {
    /// What the job's clients call it.
    pub name: String,
    /// Whether they only read it.
    pub is_read_only: bool,
}

impl FromStr for CacheVolume {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, is_read_only) = text.strip_suffix(":ro").map_or((text, false), |name| (name, true));
        super::volume::check_name(name)?;
        Ok(Self { name: name.to_owned(), is_read_only })
    }
}

impl fmt::Display for CacheVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.is_read_only { f.write_str(":ro") } else { Ok(()) }
    }
}

impl TryFrom<String> for CacheVolume {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: Error| error.message().to_owned())
    }
}

impl From<CacheVolume> for String {
    fn from(volume: CacheVolume) -> Self {
        volume.to_string()
    }
}

/// A process that is told from a later one with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessName {
    /// Its number in our pid namespace.
    pub pid: i32,
    /// When it started, in the kernel's ticks since it booted.
    pub start: u64,
    /// Which boot of the machine that was.
    pub boot: String,
}

/// Limits of all that a job has together; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLimits {
    /// Bytes of memory; swap is not given beyond it.
    pub memory: Option<u64>,
    /// Processors, in billionths.
    pub nano_cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of the disk; what is more is not written where a file system can refuse it, and the job ends when it is seen to take more.
    pub disk: Option<u64>,
}

impl JobLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The number by which file systems count what a job takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProjectId(u32);

impl ProjectId {
    /// The least, and how many there are. People and other programs count from 0, kubelet from a million.
    const FIRST: u32 = 1 << 30;

    /// Any of them.
    pub fn random() -> Self {
        let any = getrandom::u32().expect("the kernel's random source is always there");
        Self(Self::FIRST | any & (Self::FIRST - 1))
    }

    /// As the kernel knows it.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Where jobs write to the disk: two folders, which may lie on two file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskPlace {
    /// Writable layers of containers.
    Layers,
    /// Volumes.
    Volumes,
}

/// A job on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// Since when.
    pub since: Timestamp,
}

/// Why a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Somebody said so.
    Removed,
    /// The process that it belonged to has ended.
    OwnerEnded,
    /// Its time is up.
    Expired,
    /// It took more of the disk than it may.
    OverDisk,
    /// It could not be made.
    NotMade,
    /// Things of it were found without a record of it.
    Lost,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "removed",
            Self::OwnerEnded => "its owner has ended",
            Self::Expired => "its time is up",
            Self::OverDisk => "it took more of the disk than it may",
            Self::NotMade => "it could not be made",
            Self::Lost => "its record was lost",
        })
    }
}

/// What was removed with a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Containers, running or not.
    pub containers: u64,
    /// Networks that it had made.
    pub networks: u64,
    /// Volumes.
    pub volumes: u64,
    /// Names of images.
    pub images: u64,
    /// Bytes of writable layers and volumes.
    pub bytes: u64,
    /// Why it has ended, if not by the call that is answered.
    #[serde(default)]
    pub ending: Option<EndReason>,
}

/// What a new job should be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobRequest {
    /// Its name; its id if none.
    pub name: Option<String>,
    /// The user who may use its socket.
    pub uid: u32,
    /// Number of the process with which it ends.
    pub owner_pid: Option<i32>,
    /// Seconds until it ends.
    pub ttl: Option<u64>,
    /// Limits of all its containers together.
    pub limits: JobLimits,
    /// What it reaches beside what is open to all jobs.
    pub openings: BTreeSet<Opening>,
    /// What all its containers find around them.
    pub surroundings: Surroundings,
    /// What its clients may do; the daemon's policy of jobs if none.
    pub policy: Option<PolicyRef>,
    /// Paths of the machine that its clients may bind beside what the policy allows: `PATH`, or `PATH:ro` for reading only.
    pub binds: Vec<String>,
    /// Jobs with the same key have the same caches.
    pub cache_key: Option<String>,
    /// Volumes that it finds as the last job with its key has left them.
    pub cache_volumes: Vec<CacheVolume>,
    /// A job of the same user, in whose host its networks are to be: by id, name or unique prefix of the id.
    pub network_from: Option<String>,
    /// Registries, `host[:port]`, that its operator has named, beside those of `logins`: they are asked from the machine, not from the
    /// job's host.
    pub registries: BTreeSet<String>,
    /// With what is fetched for it where its clients send no credentials. Held in memory alone.
    pub logins: Logins,
}

/// The same rule as dockerd has for names of containers.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || name.len() > NAME_LENGTH || !name.chars().all(fits) {
        return Err(Error::invalid(format!(
            "invalid name of a job ({name}): only [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most {NAME_LENGTH}"
        )));
    }
    Ok(())
}

/// A key is a line of text: the name of a repository, say.
pub fn check_cache_key(key: &str) -> Result<()> {
    if key.is_empty() || key.len() > limits::CACHE_KEY || key.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "invalid key of caches ({key:?}): expected a line of 1 to {} bytes",
            limits::CACHE_KEY
        )));
    }
    Ok(())
}

/// When a time that begins now is up.
pub fn expiry(ttl: u64) -> Result<Timestamp> {
    if ttl == 0 || ttl > LONGEST {
        return Err(Error::invalid(format!("invalid ttl of a job ({ttl} s): from 1 to {LONGEST} seconds")));
    }
    let now = Timestamp::now().unix_nanos();
    let end = now.saturating_add(i64::try_from(ttl).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
    Ok(Timestamp::from_unix(end / 1_000_000_000, u32::try_from(end % 1_000_000_000).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_word() {
        for name in ["a", "act-17", "Build.x_y"] {
            check_name(name).unwrap();
        }
        for name in ["", "-a", "a b", "a/b", "a\nb", &"x".repeat(129)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_time_ends_in_the_future_and_some_day() {
        assert!(expiry(0).is_err() && expiry(u64::MAX).is_err());
        let left = expiry(60).unwrap().time_left().as_secs();
        assert!((50..=60).contains(&left), "{left}");
    }
}
