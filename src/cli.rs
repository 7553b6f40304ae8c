//! Level 4: the command line.

mod admin;
mod check;
mod doctor;
mod gitlab;
mod image;
mod job;
mod launches;
mod overview;
mod policy;
mod socket;
pub mod values;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use ringer::{
    buildkit::cni,
    model::{Result, error::Context},
};
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

use crate::{
    app::{self, Forges},
    config::{self, Config, LogLevel, ServeOptions},
};

/// A dead ringer for the Docker Engine: the Docker Engine API, carried out by containerd.
#[derive(Debug, Parser)]
#[command(name = "ringer", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon. Flags are dockerd's; each is also a key of the file that --config-file names.
    Serve(Box<ServeOptions>),
    /// Run the daemon and launch the runners of forges, as a configuration file says
    Run(Box<RunOptions>),
    /// The configuration of `run`: what it means, and whether its forges let us
    Config(check::ConfigCommand),
    /// Jobs: a Docker socket each, with which everything goes that was made through it
    Job(Box<job::JobCommand>),
    /// The containers of the default socket, of a job or of all jobs
    Ps(overview::Ps),
    /// What happens to those of the default socket, of a job or of all jobs
    Events(overview::Events),
    /// The jobs of forges: what runs where, and how it went
    Jobs(launches::Jobs),
    /// The log of a job's runner
    Logs(launches::Logs),
    /// Launch no runner any more; what runs goes on
    Drain(launches::Drain),
    /// Launch runners again after a drain or a purge
    Uncordon(launches::Uncordon),
    /// End the runners, take back every registration of this daemon's at the forges, and forget their logs and records
    Purge(launches::Purge),
    /// Whether this machine and the forges are as they should be: a line each, ok or what to do
    Doctor(doctor::Doctor),
    /// What a GitLab Runner of one's own calls for its custom executor
    Gitlab(Box<gitlab::GitlabCommand>),
    /// Images without a daemon
    Image(Box<image::ImageCommand>),
    /// Policies: what clients of a job may do
    Policy(policy::PolicyCommand),
}

/// `ringer run`.
#[derive(Args, Debug)]
struct RunOptions {
    /// TOML file with the forges; its section [daemon] holds what `serve` takes
    #[arg(long, value_name = "PATH", default_value = "/etc/ringer/config.toml")]
    config: PathBuf,
    #[command(flatten)]
    serve: ServeOptions,
}

/// Parses the arguments and runs what they say. 0 is success, 1 a failure, 2 wrong arguments.
pub fn main() -> ExitCode {
    if cni::is_plugin(std::env::args_os().next().as_deref()) {
        return plugin();
    }
    match Cli::parse().command {
        Command::Serve(options) => daemon(Config::resolve(*options).map(|config| (config, None))),
        Command::Run(options) => {
            let RunOptions { config: path, serve } = *options;
            let resolved = config::run::resolve(&path, serve);
            daemon(resolved.map(|(config, first)| {
                (config, Some(Forges { first, reread: Box::new(move || config::run::reread(&path)) }))
            }))
        }
        Command::Config(command) => command.run(),
        Command::Job(command) => command.run(),
        Command::Ps(command) => command.run(),
        Command::Events(command) => command.run(),
        Command::Jobs(command) => command.run(),
        Command::Logs(command) => command.run(),
        Command::Drain(command) => command.run(),
        Command::Uncordon(command) => command.run(),
        Command::Purge(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Gitlab(command) => command.run(),
        Command::Image(command) => command.run(),
        Command::Policy(command) => command.run(),
    }
}

/// What buildkitd calls in the daemon's name.
fn plugin() -> ExitCode {
    match cni::answer() {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ringer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn daemon(config: Result<(Config, Option<Forges>)>) -> ExitCode {
    let (config, forges) = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("ringer: {}", error.chain());
            return ExitCode::from(2);
        }
    };
    log_to_stderr(config.log_level);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = ringer::descriptors::raise_limit() {
        tracing::warn!("raising the limit of open files: {error}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("ringer").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ringer: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(app::serve(config, forges));
    // What still hangs (a read of a dead disk, say) must not hold the exit up.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// Runs a client of the daemon; its answer is the exit code.
fn in_runtime(work: impl Future<Output = Result<ExitCode>>) -> ExitCode {
    // One thread: a child dies with the thread that started it.
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(error).context("starting the runtime"),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("ringer: {}", error.chain());
        ExitCode::FAILURE
    })
}

/// Rows below a head, in columns as wide as they need.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows = rows.map(|row| row.map(|cell| printable(&cell)));
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N - 1).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        format!("{cells}{}\n", row[N - 1])
    };
    rows.iter().map(line).collect()
}

/// Text of somebody else's for a terminal: what moves a cursor or ends a line is shown, not done.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// One line per message, readable alone. The journal adds times itself.
fn log_to_stderr(level: LogLevel) {
    let level = level.as_str();
    let filter = EnvFilter::new(format!("ringer={level},warn"));
    let lines = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().init();
    } else {
        lines.with_timer(SystemTime).init();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn texts_of_others_stay_on_their_line() {
        assert_eq!(printable("a\u{1b}[2J\nb ä"), "a\\u{1b}[2J\\nb ä");
    }

    #[test]
    fn dockerds_spelling_of_flags_is_read() {
        let line = "ringer serve -H unix:///a --host=fd:// -D --data-root /d --tls=false --storage-driver overlay2";
        let Command::Serve(options) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("serve is meant");
        };
        assert_eq!(options.host, ["unix:///a", "fd://"]);
        assert_eq!(options.debug, Some(true));
    }
}
