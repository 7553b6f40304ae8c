//! `ringer job`: jobs from the command line, by the admin API.

mod run;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ringer::{
    admin::{ExtendBody, JobAnswer, JobBody},
    model::{
        Error, Result,
        job::{CacheVolume, JobReport},
    },
};

use self::run::Run;
use super::{
    admin::AdminHost,
    in_runtime,
    policy::{self, PolicySource},
    values::{self, Bind, Bytes, Cpus, Seconds},
};

/// Jobs: each has a Docker socket of its own, and everything that was made through it is removed with it.
#[derive(Args, Debug)]
pub struct JobCommand {
    #[command(flatten)]
    admin: AdminHost,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a job, run a command with DOCKER_HOST set to its socket, and remove the job when the command has ended
    Run(Run),
    /// Make a job and print it as JSON
    Create(Create),
    /// List jobs
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a job as JSON
    Inspect {
        /// Id or name
        job: String,
    },
    /// Remove jobs with everything that was made through their sockets
    Rm {
        /// Ids or names
        #[arg(required = true)]
        jobs: Vec<String>,
    },
    /// Give a job more, or less, time from now on
    Extend {
        /// Id or name
        job: String,
        /// Time, such as 90s, 30m or 2h
        #[arg(long, value_name = "DURATION")]
        ttl: Seconds,
    },
}

/// What `run` and `create` have in common.
#[derive(Args, Clone, Debug)]
struct Options {
    /// Name of the job [default: its id]
    #[arg(long)]
    name: Option<String>,
    /// Remove the job after this time at the latest, such as 90s, 30m or 2h
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Seconds>,
    #[command(flatten)]
    limits: Limits,
    /// A folder or file of the machine that its clients may bind, whatever the policy says of others; with :ro after it, only
    /// to be read
    #[arg(long, value_name = "PATH[:ro]")]
    bind: Vec<Bind>,
    /// Jobs with the same key, such as the name of a repository, have the same caches, that of BuildKit too, one after the other
    #[arg(long, value_name = "KEY")]
    cache_key: Option<String>,
    /// A volume that outlives the job: it is found as the last job with the same key has left it; with :ro after it, only to
    /// be read
    #[arg(long, value_name = "NAME[:ro]")]
    volume_cache: Vec<CacheVolume>,
    /// Have the network namespace of a job of the same user, too: its published ports are at 127.0.0.1 of what runs with --network host
    /// in either, and a port is published by one of them
    #[arg(long, value_name = "JOB")]
    network_from: Option<String>,
}

/// What a job may use and do.
#[derive(Args, Clone, Debug)]
pub struct Limits {
    /// Memory for all its containers together, such as 512m or 4g
    #[arg(long, short, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Processors for all its containers together, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Processes and threads of all its containers together
    #[arg(long, value_name = "NUMBER")]
    pids: Option<u64>,
    /// Room on the disk for all that its containers write, such as 20g: more is refused where the file system has project quotas, and the
    /// job ends when it takes more
    #[arg(long, value_name = "BYTES")]
    disk: Option<Bytes>,
    /// What its clients may do: trusted, ci, strict, a name of the daemon's --policy-dir, or the path of a file (with a slash
    /// or .toml) [default: the daemon's --job-policy]
    #[arg(long, value_name = "NAME|FILE")]
    policy: Option<PolicySource>,
}

impl Limits {
    /// A job that has these and nothing else.
    pub fn body(self) -> Result<JobBody> {
        let (policy, policy_toml) = match self.policy {
            None => (None, None),
            Some(PolicySource::Named(name)) => (Some(name), None),
            Some(PolicySource::File(path)) => (Some(policy::file_name(&path)), Some(policy::read(&path)?)),
        };
        Ok(JobBody {
            memory: self.memory.map(|Bytes(memory)| memory),
            nano_cpus: self.cpus.map(|Cpus(nano)| nano),
            pids: self.pids,
            disk: self.disk.map(|Bytes(disk)| disk),
            policy,
            policy_toml,
            ..JobBody::default()
        })
    }
}

impl Options {
    fn body(self) -> Result<JobBody> {
        Ok(JobBody {
            name: self.name,
            ttl: self.ttl.map(|Seconds(ttl)| ttl),
            binds: self.bind.into_iter().map(|Bind(bind)| bind).collect(),
            cache_key: self.cache_key,
            cache_volumes: self.volume_cache,
            network_from: self.network_from,
            ..self.limits.body()?
        })
    }
}

#[derive(Args, Clone, Debug)]
struct Create {
    #[command(flatten)]
    options: Options,
    /// Remove the job when this process has ended
    #[arg(long, value_name = "PID")]
    owner_pid: Option<i32>,
    /// User number that may use the socket [default: root]
    #[arg(long, value_name = "UID")]
    owner: Option<u32>,
}

impl JobCommand {
    /// Carries the verb out; the answer is the exit code.
    pub fn run(self) -> ExitCode {
        in_runtime(self.carry_out())
    }

    async fn carry_out(self) -> Result<ExitCode> {
        let client = self.admin.client()?;
        match self.verb {
            Verb::Run(run) => return run.carry_out(&client).await,
            Verb::Create(Create { options, owner_pid, owner }) => {
                let body = JobBody { owner_pid, uid: owner, ..options.body()? };
                println!("{}", json(&client.create(&body).await?)?);
            }
            Verb::Ls { json: true } => println!("{}", json(&client.list().await?)?),
            Verb::Ls { json: false } => print!("{}", list(&client.list().await?)),
            Verb::Inspect { job } => println!("{}", json(&client.inspect(&job).await?)?),
            Verb::Extend { job, ttl: Seconds(ttl) } => {
                println!("{}", json(&client.extend(&job, ExtendBody { ttl, disown: false }).await?)?)
            }
            Verb::Rm { jobs } => {
                for job in jobs {
                    let removed = client.delete(&job).await?;
                    println!("{job}: {}", told(&removed));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// For people and programs.
pub fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::system(error.to_string()))
}

/// What was removed, in one line.
pub fn told(removed: &JobReport) -> String {
    let counted = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let why = removed.ending.map(|reason| format!("; {reason}")).unwrap_or_default();
    format!(
        "removed {}, {}, {}, {}, {}{why}",
        counted(removed.containers, "container"),
        counted(removed.networks, "network"),
        counted(removed.volumes, "volume"),
        counted(removed.images, "image"),
        values::in_units(removed.bytes),
    )
}

fn list(jobs: &[JobAnswer]) -> String {
    let row = |job: &JobAnswer| {
        let state = match (&job.ending, &job.trouble) {
            (None, _) => "open".to_owned(),
            (Some(reason), None) => format!("ending ({reason})"),
            (Some(reason), Some(trouble)) => format!("ending ({reason}): {trouble}"),
        };
        let expires = job.expires.map_or_else(|| "never".to_owned(), |expires| expires.to_string());
        [job.id.clone(), job.name.clone(), job.created.to_string(), expires, state]
    };
    super::table(["ID", "NAME", "CREATED", "EXPIRES", "STATE"], jobs.iter().map(row))
}
