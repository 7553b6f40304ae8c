//! `compat bench`: the calls that CI makes all day, timed over the socket without a docker client in the loop.
//!
//! Daemons take turns inside one run, so a busy moment of the machine meets all of them; what counts are medians and
//! their ratios to the first daemon's.

mod jobs;
mod table;
mod workloads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::docker_cli::load_images;
use crate::document;
use crate::leftovers;
use crate::socket::Socket;
use workloads::{Bench, WORKLOADS};

/// What to time on what.
#[derive(clap::Args)]
pub struct BenchArguments {
    /// A daemon: NAME=unix://PATH[,netns=PID][,admin=PATH]; the others are compared with the first
    #[arg(required = true)]
    sockets: Vec<Socket>,
    /// How often the daemons take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only workloads whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Image archives to load on every daemon first
    #[arg(long = "image", value_name = "TAR")]
    images: Vec<PathBuf>,
    /// Put the table into this markdown file, between its two marks
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// The times of every metric, for each daemon in order; sorted by the workload's and the metric's place.
type Times = BTreeMap<(usize, usize, String), Vec<Vec<Duration>>>;

/// Times everything and prints the table; gives whether every daemon did every workload.
pub fn bench(arguments: &BenchArguments) -> anyhow::Result<bool> {
    let sockets = &arguments.sockets;
    let mut before = Vec::new();
    let mut benches = Vec::new();
    for socket in sockets {
        load_images(socket, &arguments.images)?;
        before.push(leftovers::holdings(&socket.path)?);
        benches.push(Bench::begin(socket).with_context(|| format!("preparing {}", socket.name))?);
    }
    let mut times = Times::new();
    let mut failed = Vec::new();
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        take_turns(arguments, &mut benches, &mut times, &mut failed);
    }
    let mut table = table::markdown(sockets, &times, arguments.rounds);
    if arguments.only.as_deref().is_none_or(|only| "jobs".contains(only)) {
        table += &jobs::report(sockets)?;
    }
    for (socket, before) in sockets.iter().zip(&before) {
        leftovers::sweep(&socket.path, before)?;
    }
    println!("{table}");
    for failure in &failed {
        println!("failed: {failure}");
    }
    if let Some(path) = &arguments.write {
        document::block(path, "bench", &table)?;
    }
    Ok(failed.is_empty())
}

fn take_turns(arguments: &BenchArguments, benches: &mut [Bench], times: &mut Times, failed: &mut Vec<String>) {
    let sockets = &arguments.sockets;
    for (order, workload) in WORKLOADS.iter().enumerate() {
        if arguments.only.as_deref().is_some_and(|only| !workload.name.contains(only)) {
            continue;
        }
        for _ in 0..workload.repeats {
            for (at, bench) in benches.iter_mut().enumerate() {
                match (workload.run)(bench) {
                    Ok(measured) => {
                        for (place, (metric, duration)) in measured.into_iter().enumerate() {
                            let key = (order, place, label(workload.name, metric));
                            times.entry(key).or_insert_with(|| vec![Vec::new(); sockets.len()])[at].push(duration);
                        }
                    }
                    Err(error) => failed.push(format!("{} on {}: {error:#}", workload.name, sockets[at].name)),
                }
            }
        }
    }
}

fn label(workload: &str, metric: &str) -> String {
    match metric.chars().next() {
        None => workload.to_owned(),
        Some(',') => format!("{workload}{metric}"),
        Some(_) => format!("- {metric}"),
    }
}
