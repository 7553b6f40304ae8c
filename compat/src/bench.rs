//! `compat bench`: the calls that CI makes all day, timed over the socket without a docker client in the loop.
//!
//! Daemons take turns inside one run, so a busy moment of the machine meets all of them; what counts are medians and
//! their ratios to the first daemon's.

mod buildkit;
mod jobs;
mod table;
mod workloads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::docker_cli::load_images;
use crate::document;
use crate::leftovers::{self, Holdings};
use crate::socket::Socket;
use buildkit::BuildKit;
use workloads::{Bench, WORKLOADS, Work, Workload};

/// What to time on what.
#[derive(clap::Args)]
pub struct BenchArguments {
    /// A daemon: NAME=unix://PATH[,netns=PID][,admin=PATH], or a BuildKit alone: NAME=unix://PATH,buildctl=PROGRAM; the
    /// others are compared with the first
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

/// The times of every metric, for each daemon in order, `None` for one that has no such thing; sorted by the workload's and the
/// metric's place.
type Times = BTreeMap<(usize, usize, String), Vec<Option<Vec<Duration>>>>;

/// Under the clock.
enum Subject {
    /// With what it held before.
    Daemon(Box<Bench>, Holdings),
    /// It builds, and does nothing else.
    BuildKit(BuildKit),
}

impl Subject {
    fn begin(socket: &Socket, images: &[PathBuf]) -> anyhow::Result<Self> {
        if let Some(program) = &socket.buildctl {
            return Ok(Self::BuildKit(BuildKit::at(&socket.path, program)));
        }
        load_images(socket, images)?;
        let before = leftovers::holdings(&socket.path)?;
        let bench = Bench::begin(socket).with_context(|| format!("preparing {}", socket.name))?;
        Ok(Self::Daemon(Box::new(bench), before))
    }

    fn does(&self, work: &Work) -> bool {
        match (self, work) {
            (Self::Daemon(..), _) | (Self::BuildKit(_), Work::Build(_)) => true,
            (Self::BuildKit(_), Work::Calls(_)) => false,
        }
    }

    /// Does it once; `None` if there is no such thing.
    fn run(&mut self, work: &Work) -> Option<workloads::Measured> {
        Some(match (self, work) {
            (Self::Daemon(bench, _), Work::Calls(run)) => run(bench),
            (Self::Daemon(bench, _), Work::Build(build)) => bench.build(build),
            (Self::BuildKit(buildkit), Work::Build(build)) => buildkit.build(build),
            (Self::BuildKit(_), Work::Calls(_)) => return None,
        })
    }
}

/// Times everything and prints the table; gives whether every daemon did every workload.
pub fn bench(arguments: &BenchArguments) -> anyhow::Result<bool> {
    let sockets = &arguments.sockets;
    let begun = sockets.iter().map(|socket| Subject::begin(socket, &arguments.images));
    let mut subjects = begun.collect::<anyhow::Result<Vec<_>>>()?;
    let mut times = Times::new();
    let mut failed = Vec::new();
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        take_turns(arguments, &mut subjects, &mut times, &mut failed);
    }
    let mut table = table::markdown(sockets, &times, arguments.rounds);
    if arguments.only.as_deref().is_none_or(|only| "jobs".contains(only)) {
        table += &jobs::report(sockets)?;
    }
    for (socket, subject) in sockets.iter().zip(&subjects) {
        if let Subject::Daemon(_, before) = subject {
            leftovers::sweep(&socket.path, before)?;
        }
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

fn take_turns(arguments: &BenchArguments, subjects: &mut [Subject], times: &mut Times, failed: &mut Vec<String>) {
    let is_wanted = |workload: &Workload| arguments.only.as_deref().is_none_or(|only| workload.name.contains(only));
    for (order, workload) in WORKLOADS.iter().enumerate().filter(|(_, workload)| is_wanted(workload)) {
        let nothing: Vec<_> = subjects.iter().map(|subject| subject.does(&workload.work).then(Vec::new)).collect();
        for _ in 0..workload.repeats {
            for (at, subject) in subjects.iter_mut().enumerate() {
                match subject.run(&workload.work) {
                    Some(Ok(measured)) => {
                        for (place, (metric, duration)) in measured.into_iter().enumerate() {
                            let key = (order, place, label(workload.name, metric));
                            let taken = &mut times.entry(key).or_insert_with(|| nothing.clone())[at];
                            taken.get_or_insert_default().push(duration);
                        }
                    }
                    Some(Err(error)) => {
                        failed.push(format!("{} on {}: {error:#}", workload.name, arguments.sockets[at].name));
                    }
                    None => {}
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
