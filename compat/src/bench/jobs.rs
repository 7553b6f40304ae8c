//! What jobs cost on a daemon that has them: they are made through its admin socket.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use super::table::{median, milliseconds, resident};
use super::workloads::Bench;
use crate::http::{Body, Client};
use crate::socket::Socket;

/// Empty jobs that are made and removed one after the other.
const EMPTY: usize = 20;

/// Jobs that are there at once and do nothing.
const IDLE: usize = 200;

/// Runs without and with them, of which the quickest counts: they cannot take turns, and the machine does other things.
const RUNS: usize = 20;

/// Whoever makes jobs.
pub struct Jobs(Client);

/// One of them.
pub struct Job {
    id: String,
    /// Its Docker socket.
    pub socket: PathBuf,
}

impl Jobs {
    /// By the admin socket at a path.
    pub fn at(admin: &Path) -> Self {
        Self(Client::new(admin))
    }

    /// Makes one.
    pub fn make(&mut self) -> anyhow::Result<Job> {
        let made = self.0.request("POST", "/jobs", Body::Json(&json!({})))?.success()?.json()?;
        let word = |key: &str| made[key].as_str().map(str::to_owned).with_context(|| format!("a job has no {key}"));
        Ok(Job { id: word("id")?, socket: word("socket")?.into() })
    }

    /// Removes it with everything in it.
    pub fn remove(&mut self, job: &Job) -> anyhow::Result<()> {
        self.0.request("DELETE", &format!("/jobs/{}", job.id), Body::Empty)?.success().map(drop)
    }
}

/// A sentence for each daemon with jobs.
pub fn report(sockets: &[Socket]) -> anyhow::Result<String> {
    let mut text = String::new();
    for socket in sockets {
        let Some(admin) = &socket.admin else { continue };
        let mut jobs = Jobs::at(admin);
        let (made, removed) = empty(&mut jobs)?;
        let (each, slower) = idle(&mut jobs, socket)?;
        let _ = write!(
            text,
            "\nJobs of {}: one is made in {} ms, and removed empty in {} ms (medians of {EMPTY}). {IDLE} idle ones cost the daemon {each} KiB \
             each; the quickest run of {RUNS} beside them takes {slower:.2} times as long as without.\n",
            socket.name,
            milliseconds(made),
            milliseconds(removed),
        );
    }
    Ok(text)
}

fn empty(jobs: &mut Jobs) -> anyhow::Result<(Duration, Duration)> {
    let (mut made, mut removed) = (Vec::new(), Vec::new());
    for _ in 0..EMPTY {
        let clock = Instant::now();
        let job = jobs.make()?;
        made.push(clock.elapsed());
        let clock = Instant::now();
        jobs.remove(&job)?;
        removed.push(clock.elapsed());
    }
    Ok((median(&made), median(&removed)))
}

/// KiB of the daemon's memory for each, and how much longer a run takes.
fn idle(jobs: &mut Jobs, socket: &Socket) -> anyhow::Result<(u64, f64)> {
    let memory = || socket.netns.and_then(resident).context("the daemon's process is not named");
    let (alone, before) = (runs(socket)?, memory()?);
    let made: Vec<Job> = (0..IDLE).map(|_| jobs.make()).collect::<anyhow::Result<_>>()?;
    let with_them = memory()?.saturating_sub(before) / IDLE as u64;
    let beside = runs(socket)?;
    for job in &made {
        jobs.remove(job)?;
    }
    Ok((with_them, beside.as_secs_f64() / alone.as_secs_f64()))
}

fn runs(socket: &Socket) -> anyhow::Result<Duration> {
    let mut bench = Bench::at(&socket.path, None);
    let times = (0..RUNS).map(|_| Ok(bench.run_once("default")?[0].1)).collect::<anyhow::Result<Vec<_>>>()?;
    times.into_iter().min().context("no runs")
}
