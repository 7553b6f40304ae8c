//! The `ringer` program.

use std::process::ExitCode;

mod app;
mod cli;
mod config;

fn main() -> ExitCode {
    cli::main()
}
