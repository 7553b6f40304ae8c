//! `ringer ps` and `ringer events`: what all jobs have and do, from the command line.

use std::{io::Write, process::ExitCode};

use clap::Args;
use ringer::{
    admin::{ContainerAnswer, EventAnswer},
    model::{Error, Result, error::Context, time::rough},
};

use super::{
    admin::{AdminClient, AdminHost},
    in_runtime,
    job::json,
    printable, table,
};

/// `ringer ps`.
#[derive(Args, Debug)]
pub struct Ps {
    #[command(flatten)]
    admin: AdminHost,
    #[command(flatten)]
    whose: Whose,
    /// Those that do not run too
    #[arg(long, short)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// `ringer events`.
#[derive(Args, Debug)]
pub struct Events {
    #[command(flatten)]
    admin: AdminHost,
    #[command(flatten)]
    whose: Whose,
    /// As JSON, a line each
    #[arg(long)]
    json: bool,
}

/// Whose things are shown: those of the default socket, unless something else is said.
#[derive(Args, Clone, Debug)]
struct Whose {
    /// Of all jobs and of the default socket
    #[arg(long)]
    all_jobs: bool,
    /// Of this job, by its name or id
    #[arg(long, value_name = "JOB", conflicts_with = "all_jobs")]
    job: Option<String>,
}

impl Whose {
    /// The same with the job's name. Fails if there is no such job.
    async fn found(&self, client: &AdminClient) -> Result<Self> {
        let job = match &self.job {
            Some(job) => Some(client.inspect(job).await?.name),
            None => None,
        };
        Ok(Self { job, ..self.clone() })
    }

    fn wants(&self, job: Option<&str>) -> bool {
        self.all_jobs || job == self.job.as_deref()
    }
}

impl Ps {
    /// Prints them.
    pub fn run(self) -> ExitCode {
        in_runtime(async {
            let client = self.admin.client()?;
            let whose = self.whose.found(&client).await?;
            let mut containers = client.containers().await?;
            containers.retain(|one| whose.wants(one.job.as_deref()) && (self.all || is_running(one)));
            if self.json {
                println!("{}", json(&containers)?);
            } else {
                let head = ["JOB", "CONTAINER ID", "NAME", "IMAGE", "AGE", "STATE"];
                print!("{}", table(head, containers.iter().map(row)));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// As `docker ps` has it.
fn is_running(container: &ContainerAnswer) -> bool {
    ["running", "paused", "restarting"].contains(&container.state.as_str())
}

fn row(container: &ContainerAnswer) -> [String; 6] {
    let state = match container.exit_code {
        Some(code) => format!("{} ({code})", container.state),
        None => container.state.clone(),
    };
    let age = rough(container.created.elapsed());
    [
        job(container.job.as_deref(), container.is_runner),
        container.id.chars().take(12).collect(),
        container.name.clone(),
        container.image.clone(),
        age,
        state,
    ]
}

fn job(name: Option<&str>, is_runner: bool) -> String {
    let of_runner = if is_runner { " (runner)" } else { "" };
    format!("{}{of_runner}", name.unwrap_or("-"))
}

impl Events {
    /// Prints what happens until the daemon stops.
    pub fn run(self) -> ExitCode {
        in_runtime(async {
            let client = self.admin.client()?;
            let whose = self.whose.found(&client).await?;
            let mut begun = Vec::new();
            let print = |piece: &[u8]| {
                for part in piece.split_inclusive(|&byte| byte == b'\n') {
                    begun.extend_from_slice(part);
                    if part.ends_with(b"\n") {
                        self.print(&whose, &std::mem::take(&mut begun))?;
                    }
                }
                Ok(())
            };
            client.events(print).await?;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn print(&self, whose: &Whose, line: &[u8]) -> Result<()> {
        let event: EventAnswer =
            serde_json::from_slice(line).map_err(|error| Error::system(format!("reading an event: {error}")))?;
        if !whose.wants(event.job.as_deref()) {
            return Ok(());
        }
        let mut output = std::io::stdout().lock();
        let printed = if self.json { output.write_all(line) } else { output.write_all(told(&event).as_bytes()) };
        printed.and_then(|()| output.flush()).context("writing an event")
    }
}

/// As `docker events` has it, with the job.
fn told(event: &EventAnswer) -> String {
    let EventAnswer { time, kind, action, actor, .. } = event;
    let attributes = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    let job = job(event.job.as_deref(), event.is_runner);
    let line = format!("{time} {job} {kind} {action} {actor} ({})", attributes.join(", "));
    format!("{}\n", printable(&line))
}
