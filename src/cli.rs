//! Level 4: the command line.

mod admin;
mod job;
pub mod values;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

use crate::{
    app,
    config::{Config, LogLevel, ServeOptions},
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
    /// Jobs: a Docker socket each, with which everything goes that was made through it
    Job(job::JobCommand),
}

/// Parses the arguments and runs what they say. 0 is success, 1 a failure, 2 wrong arguments.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(options) => serve(*options),
        Command::Job(command) => command.run(),
    }
}

fn serve(options: ServeOptions) -> ExitCode {
    let config = match Config::resolve(options) {
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
    let served = runtime.block_on(app::serve(config));
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
    fn dockerds_spelling_of_flags_is_read() {
        let line = "ringer serve -H unix:///a --host=fd:// -D --data-root /d --tls=false --storage-driver overlay2";
        let Command::Serve(options) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("serve is meant");
        };
        assert_eq!(options.host, ["unix:///a", "fd://"]);
        assert_eq!(options.debug, Some(true));
    }
}
