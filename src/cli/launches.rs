//! `ringer jobs`, `ringer logs` and `ringer drain`: what the supervisor does, from the command line.

use std::{io::Write, process::ExitCode};

use clap::Args;
use ringer::{
    admin::{ForgeAnswer, LaunchAnswer},
    model::{error::Context, time::Timestamp},
};

use super::{admin::AdminHost, in_runtime, job::json, table};

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
                print!("{}{}", list(&launches), troubles(&forges));
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

fn list(launches: &[LaunchAnswer]) -> String {
    let head = ["NAME", "FORGE", "REPOSITORY", "JOB", "IMAGE", "AGE", "STATE"];
    table(head, launches.iter().map(row))
}

fn row(launch: &LaunchAnswer) -> [String; 7] {
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
        age(launch.begun),
        state,
    ]
}

fn age(begun: Timestamp) -> String {
    let nanos = Timestamp::now().unix_nanos().saturating_sub(begun.unix_nanos());
    match nanos / 1_000_000_000 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn troubles(forges: &[ForgeAnswer]) -> String {
    let told = forges.iter().filter_map(|forge| Some((forge, forge.trouble.as_ref()?)));
    told.map(|(forge, trouble)| format!("{}: {trouble}\n", forge.name)).collect()
}
