//! `compat` runs real Docker clients and CI agents against any Docker socket, ringer's or dockerd's, side by side,
//! and prints what differs; `compat bench` times the calls that CI makes all day.
//!
//! It knows nothing of ringer's code: what it sees is what a client sees.

mod agent;
mod bench;
mod case_file;
mod command;
mod docker_cli;
mod document;
mod http;
mod leftovers;
mod normal;
mod report;
mod requests;
mod run;
mod socket;

use clap::{Parser, Subcommand};

/// Runs real Docker clients and CI agents against Docker sockets.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the same cases on every socket and prints a table of what differs
    Run(Box<run::RunArguments>),
    /// Times what CI does all day on every socket, interleaved, and prints ratios to the first
    Bench(bench::BenchArguments),
}

fn main() -> anyhow::Result<()> {
    let passed = match Arguments::parse().command {
        Verb::Run(arguments) => run::run(&arguments)?,
        Verb::Bench(arguments) => bench::bench(&arguments)?,
    };
    std::process::exit(i32::from(!passed));
}
