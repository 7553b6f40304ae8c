//! One process of buildkitd. It ends with us, however we end: the kernel kills it when the thread is gone that started it, and
//! that thread waits for its end.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Signal, getppid, pidfd_send_signal, set_parent_process_death_signal},
};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::sight::Sight;
use crate::{
    descriptors,
    model::{Error, Result, error::Context},
    processes::{self, ends::Watched, environment},
};

/// How long a TERM may take before KILL follows: builds under way are broken off.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How it is started.
pub(super) struct Start {
    pub(super) program: PathBuf,
    /// What it finds in the place of files of the machine.
    pub(super) sight: Option<Sight>,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    /// Where it puts what is temporary, mounts among it.
    pub(super) temporary: PathBuf,
    /// `NAME=VALUE`: beside what programs have that work for clients, and before it.
    pub(super) env: Vec<String>,
    /// The network namespace from which it fetches, if that is not the machine's.
    pub(super) network: Option<File>,
    /// The cgroup in which it is: written to by a process, each of these files takes it in.
    pub(super) cgroup: Vec<File>,
}

/// A running one.
pub(super) struct Child {
    held: Watched,
    ended: CancellationToken,
}

impl Child {
    /// Starts it.
    pub(super) async fn spawn(start: Start) -> Result<Self> {
        let (told, held) = oneshot::channel();
        let ended = CancellationToken::new();
        let ends = ended.clone().drop_guard();
        let thread = thread::Builder::new().name("buildkitd".to_owned());
        let runtime = Handle::current();
        thread
            .spawn(move || {
                let _until_it_has_ended = ends;
                // The end of the process is an event of the runtime's.
                let _in_it = runtime.enter();
                run(start, told)
            })
            .context("starting a thread")?;
        let held = held.await.map_err(|_| Error::system("buildkitd ended while it was started"))??;
        Ok(Self { held, ended })
    }

    /// Cancelled when it has ended.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// TERM, and KILL if that is not heeded in time.
    pub(super) async fn stop(&self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(STOP_LIMIT, self.ended.cancelled()).await.is_err() {
            warn!("buildkitd does not heed TERM, killing it");
            self.kill().await;
        }
    }

    /// KILL: its builds are lost.
    pub(super) async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended.cancelled().await;
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.held.descriptor(), signal)
            && error != rustix::io::Errno::SRCH
        {
            warn!(%error, "signalling buildkitd: {error}");
        }
    }
}

/// Starts it, hands on what it is watched by, and waits for its end: all on one thread, whose end would be its end.
fn run(start: Start, told: oneshot::Sender<Result<Watched>>) {
    let program = start.program.clone();
    let mut child = match command(start).and_then(|mut command| command.spawn()) {
        Ok(child) => child,
        Err(error) => {
            let error = Error::unavailable(format!("cannot start {}: {error}", program.display()));
            return drop(told.send(Err(error)));
        }
    };
    // Before anybody waits for it: until then its number is no other process's, also if it has ended.
    let pid = i32::try_from(child.id()).map_err(|_| Error::system("a process without a number"));
    let _nobody_waits_any_more = told.send(pid.and_then(|pid| Watched::of_pid(pid).context("watching buildkitd")));
    match child.wait() {
        Ok(status) => info!("buildkitd ended: {status}"),
        Err(error) => warn!("waiting for buildkitd: {error}"),
    }
}

/// Where the daemon is spared when memory is short, its builders are not: what clients have them do takes their memory.
fn is_spared_no_more() {
    let score = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    // Who was not spared may be forbidden to be more than now.
    let _ = score.map(|score| rustix::io::write(score, b"0"));
}

fn command(start: Start) -> io::Result<Command> {
    let log = log_file(&start.log)?;
    let mut command = Command::new(&start.program);
    command.arg("--config").arg(&start.config);
    // It speaks to clouds and registries for its clients, and would use what it finds there.
    command.env_clear().envs(environment::handed_on(start.network.is_some()));
    command.envs(start.env.iter().filter_map(|variable| variable.split_once('=')));
    command.env("TMPDIR", &start.temporary).env("HOME", &start.temporary);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A group of its own: Ctrl-C at our terminal must end it after us, not beside us.
    command.process_group(0);
    descriptors::give_back(&mut command);
    let parent = rustix::process::getpid();
    let (cgroup, sight) = (start.cgroup, start.sight);
    let with_us = move || {
        is_spared_no_more();
        set_parent_process_death_signal(Some(Signal::KILL))?;
        for file in &cgroup {
            rustix::io::write(file, b"0")?;
        }
        sight.as_ref().map_or(Ok(()), Sight::enter)?;
        // We may have ended before that.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec there are nothing but a few system calls, which take no lock and no memory.
    unsafe { command.pre_exec(with_us) };
    if let Some(network) = start.network {
        processes::start_in_network(&mut command, network);
    }
    Ok(command)
}

/// Begun anew at each start: what stands there is of interest when it does not come up. Whoever cuts it later finds what follows at its new end.
fn log_file(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    file.set_len(0)?;
    Ok(file)
}
