//! A containerd of our own, the embedded default: started, watched, restarted when it dies, stopped at exit.
//!
//! Its process outlives a killed daemon, and so do shims and containers; the next daemon on the same folders finds
//! it by its pid file and ends it with them ([`leftover`]).

mod begun;
mod config;
mod leftover;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tracing::{Instrument, info, info_span, warn};

pub(super) use self::begun::{begun, end_begun};
use self::process::Process;
use super::Client;
use crate::model::{Error, Result, error::Context};

/// How long a start may take: a cold disk and a large metadata file included.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a TERM may take before KILL follows.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Longest pause between attempts to restart it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where containerd keeps bundles, below its state and its data.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// Where the child lives.
#[derive(Clone, Debug)]
pub struct ChildOptions {
    /// `<data_root>/containerd` keeps content and snapshots.
    pub data_root: PathBuf,
    /// `<exec_root>/containerd` keeps socket, state, config, pid file and log.
    pub exec_root: PathBuf,
    /// The program; `None` searches `containerd` in `PATH`. Its shim is searched beside it first.
    pub program: Option<PathBuf>,
    /// Its log level.
    pub log_level: String,
}

impl ChildOptions {
    /// Options for the folders of one daemon.
    pub fn new(data_root: impl Into<PathBuf>, exec_root: impl Into<PathBuf>) -> Self {
        Self { data_root: data_root.into(), exec_root: exec_root.into(), program: None, log_level: "warn".to_owned() }
    }

    fn root(&self) -> PathBuf {
        self.data_root.join("containerd")
    }

    fn run(&self) -> PathBuf {
        self.exec_root.join("containerd")
    }

    /// Where containerd keeps a folder of bundles for each namespace, below its state and its data.
    fn task_folders(&self) -> [PathBuf; 2] {
        [self.run().join("state"), self.root()].map(|folder| folder.join(TASKS))
    }

    fn address(&self) -> PathBuf {
        self.run().join("containerd.sock")
    }

    fn config_file(&self) -> PathBuf {
        self.run().join("config.toml")
    }

    fn pid_file(&self) -> PathBuf {
        self.run().join("containerd.pid")
    }

    fn log_file(&self) -> PathBuf {
        self.run().join("containerd.log")
    }
}

/// A running containerd. Dropping it without [`Child::stop`] leaves the process to the next daemon.
pub struct Child {
    address: PathBuf,
    task_folders: [PathBuf; 2],
    stop: Option<oneshot::Sender<()>>,
    watcher: JoinHandle<()>,
    /// Removes what an earlier daemon left.
    tidying: JoinHandle<()>,
}

impl Child {
    /// Starts it, after the one that a killed daemon left was ended; returns when it answers.
    pub async fn spawn(options: ChildOptions) -> Result<Self> {
        make_folders(&options)?;
        end_earlier(&options).await?;
        let process = start(&options).await?;
        let (address, task_folders) = (options.address(), options.task_folders());
        let of_the_dead = options.clone();
        let tidying = tokio::task::spawn_blocking(move || leftover::remove_gone(&of_the_dead));
        let (stop, stopped) = oneshot::channel();
        let watcher = tokio::spawn(watch(options, process, stopped).instrument(info_span!("containerd")));
        Ok(Self { address, task_folders, stop: Some(stop), watcher, tidying })
    }

    /// Path of its socket.
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// Where it keeps a folder of bundles for each namespace.
    pub fn task_folders(&self) -> &[PathBuf] {
        &self.task_folders
    }

    /// Ends it: TERM, and KILL if that is not heeded in time. Containers that still run are not touched.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the watcher is gone already, which the join tells too.
            let _ = stop.send(());
        }
        if let Err(error) = (&mut self.watcher).await {
            warn!(%error, "the watcher of containerd failed");
        }
        if let Err(error) = (&mut self.tidying).await {
            warn!(%error, "removing what an earlier daemon left failed");
        }
        // What it wrote is gone with it but for what we made. Its folders may hold mounts of containers that go on.
        for name in ["config.toml", "containerd.log"] {
            let _gone_already = fs::remove_file(self.address.with_file_name(name));
        }
    }
}

fn make_folders(options: &ChildOptions) -> Result<()> {
    for folder in [options.root(), options.run()] {
        fs::create_dir_all(&folder).context(format_args!("making {}", folder.display()))?;
    }
    Ok(())
}

/// Ends a containerd that an earlier daemon left, with all that daemon left of containers.
async fn end_earlier(options: &ChildOptions) -> Result<()> {
    if let Some(mut process) = Process::from_pid_file(&options.pid_file()) {
        warn!(pid = process.pid(), "ending the containerd of an earlier daemon");
        process.kill().await;
    }
    let options = options.clone();
    tokio::task::spawn_blocking(move || leftover::end_all(&options)).await.context("ending what a daemon left")
}

async fn start(options: &ChildOptions) -> Result<Process> {
    fs::write(options.config_file(), config::text(options)).context("writing containerd's config")?;
    let started = Instant::now();
    let mut process = Process::spawn(options)?;
    process.write_pid_file(&options.pid_file())?;
    if let Err(error) = wait_until_serving(options, &mut process).await {
        process.terminate(STOP_LIMIT).await;
        return Err(error);
    }
    #[allow(clippy::cast_possible_truncation, reason = "a start takes less than an age")]
    let duration_ms = started.elapsed().as_millis() as u64;
    info!(pid = process.pid(), duration_ms, "containerd serves");
    Ok(process)
}

/// Asks for the version until it is told, the process ends, or the limit is over.
async fn wait_until_serving(options: &ChildOptions, process: &mut Process) -> Result<()> {
    let address = options.address();
    let deadline = Instant::now() + START_LIMIT;
    let mut last = Error::unavailable("containerd was not asked yet");
    while Instant::now() < deadline {
        match tokio::time::timeout(Duration::from_secs(2), Client::impatient(&address).server_version()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(_) => last = Error::unavailable("containerd does not answer"),
        }
        if tokio::time::timeout(Duration::from_millis(10), process.exited()).await.is_ok() {
            return Err(Error::unavailable(format!("containerd ended at start: {}", log_tail(&options.log_file()))));
        }
    }
    Err(last.context("starting containerd"))
}

/// Keeps it alive until told to stop.
async fn watch(options: ChildOptions, mut process: Process, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            // Told first: one that ends while we go down must not be started again.
            biased;
            told = &mut stopped => {
                // A dropped `Child` is a daemon that goes down hard: its containerd stays for the next one.
                if told.is_ok() {
                    process.terminate(STOP_LIMIT).await;
                    remove_traces(&options);
                }
                return;
            }
            how = process.exited() => warn!(pid = process.pid(), "containerd ended ({how}); starting it again"),
        }
        match restart(&options, &mut stopped).await {
            Some(next) => process = next,
            None => return remove_traces(&options),
        }
    }
}

/// Tries until it runs again; `None` if told to stop meanwhile.
async fn restart(options: &ChildOptions, stopped: &mut oneshot::Receiver<()>) -> Option<Process> {
    let mut pause = Duration::from_millis(50);
    loop {
        match start(options).await {
            Ok(process) => return Some(process),
            Err(error) => warn!("containerd cannot be started: {}", error.chain()),
        }
        if tokio::time::timeout(pause, &mut *stopped).await.is_ok() {
            return None;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Files of a containerd that has ended. Content, snapshots and its log stay.
fn remove_traces(options: &ChildOptions) {
    let socket = options.address();
    for path in [socket.with_extension("sock.ttrpc"), socket, options.pid_file()] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, "removing {}", path.display());
        }
    }
}

fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
