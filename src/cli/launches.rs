//! `ringer jobs`, `ringer logs`, `ringer drain`, `ringer uncordon` and `ringer purge`: what the supervisor does, from the command line.

use std::{io::Write, process::ExitCode, time::Duration};

use clap::Args;
use ringer::{
    admin::{ForgeAnswer, LaunchAnswer, LeftAlone, PurgeAnswer},
    model::{error::Context, time::rough},
};

use super::{admin::AdminHost, in_runtime, job::json, printable, table, values::in_units};

/// `ringer jobs`.
#[derive(Args, Debug)]
pub struct Jobs {
    #[command(flatten)]
    admin: AdminHost,
    /// Those that have ended too
    #[arg(long, short)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// `ringer logs`.
#[derive(Args, Debug)]
pub struct Logs {
    #[command(flatten)]
    admin: AdminHost,
    /// Go on until the runner has ended
    #[arg(long, short)]
    follow: bool,
    /// Name of a job, as `ringer jobs` has it
    job: String,
}

/// `ringer drain`.
#[derive(Args, Debug)]
pub struct Drain {
    #[command(flatten)]
    admin: AdminHost,
}

/// `ringer uncordon`.
#[derive(Args, Debug)]
pub struct Uncordon {
    #[command(flatten)]
    admin: AdminHost,
}

/// `ringer purge`.
#[derive(Args, Debug)]
pub struct Purge {
    #[command(flatten)]
    admin: AdminHost,
    /// Only of this forge, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    forge: Option<String>,
}

impl Jobs {
    /// Prints them.
    pub fn run(self) -> ExitCode {
        in_runtime(async {
            let client = self.admin.client()?;
            let (mut launches, forges) = (client.launches().await?, client.forges().await?);
            launches.retain(|launch| self.all || launch.state != "ended");
            if self.json {
                println!("{}", json(&launches)?);
            } else {
                print!("{}{}{}", list(&launches), left_alone(&forges), troubles(&forges));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Logs {
    /// Prints it.
    pub fn run(self) -> ExitCode {
        in_runtime(async {
            let print = |piece: &[u8]| {
                let mut output = std::io::stdout().lock();
                output.write_all(piece).and_then(|()| output.flush()).context("writing the log")
            };
            self.admin.client()?.log(&self.job, self.follow, print).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Drain {
    /// Says so.
    pub fn run(self) -> ExitCode {
        in_runtime(async {
            self.admin.client()?.drain().await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Uncordon {
    /// Says so.
    pub fn run(self) -> ExitCode {
        in_runtime(async {
            self.admin.client()?.uncordon().await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Purge {
    /// Says so, and what was removed.
    pub fn run(self) -> ExitCode {
        in_runtime(async {
            let PurgeAnswer { launches, registrations, webhooks } =
                self.admin.client()?.purge(self.forge.as_deref()).await?;
            println!(
                "removed: launches with their logs: {launches}, further registrations: {registrations}, webhooks: {webhooks}; nothing is \
                 launched there until `ringer uncordon`"
            );
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn list(launches: &[LaunchAnswer]) -> String {
    let head = ["NAME", "FORGE", "REPOSITORY", "JOB", "IMAGE", "PULLED", "SHARED", "CPU", "MEMORY", "AGE", "STATE"];
    table(head, launches.iter().map(row))
}

fn row(launch: &LaunchAnswer) -> [String; 11] {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let state = match &launch.outcome {
        Some(outcome) => format!("{}: {outcome}", launch.state),
        None => launch.state.clone(),
    };
    [
        launch.name.clone(),
        launch.forge.clone(),
        or_none(&launch.repository),
        or_none(&launch.job),
        or_none(&launch.image),
        in_units(launch.pulled),
        in_units(launch.shared),
        rough(Duration::from_millis(launch.cpu_ms)),
        launch.memory.map_or_else(|| "-".to_owned(), in_units),
        rough(launch.begun.elapsed()),
        state,
    ]
}

/// Jobs that wait for nobody here, if there are some.
fn left_alone(forges: &[ForgeAnswer]) -> String {
    let of_forge = |forge: &ForgeAnswer| -> Vec<[String; 4]> {
        let row = |job: &LeftAlone| [&forge.name, &job.repository, &job.job, &job.why].map(Clone::clone);
        forge.left_alone.iter().map(row).collect()
    };
    let rows: Vec<[String; 4]> = forges.iter().flat_map(of_forge).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}", table(["FORGE", "REPOSITORY", "JOB", "LEFT ALONE"], rows.into_iter()))
}

fn troubles(forges: &[ForgeAnswer]) -> String {
    let told = forges.iter().filter_map(|forge| Some((forge, forge.trouble.as_ref()?)));
    told.map(|(forge, trouble)| format!("{}: {}\n", forge.name, printable(trouble))).collect()
}
