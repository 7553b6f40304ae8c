//! One process of containerd, started by us or found: its end, and how to bring it about.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Signal, pidfd_send_signal};
use tokio::process::{Child, Command};
use tracing::warn;

use super::ChildOptions;
use crate::{
    descriptors,
    model::{Error, Result, error::Context},
    processes::ends::{Watched, start_time},
};

/// A log above this size is begun anew at a start.
const LOG_LIMIT: u64 = 16 << 20;

/// A process that is addressed by descriptor, so that no later process with the same number is meant.
pub(super) struct Process {
    pid: i32,
    held: Watched,
    /// Of a process that we started and must reap.
    child: Option<Child>,
}

impl Process {
    /// Starts containerd with the config file that was written before.
    pub(super) fn spawn(options: &ChildOptions) -> Result<Self> {
        let log = open_log(&options.log_file()).context("opening containerd's log")?;
        let program = options.program.as_deref().unwrap_or(Path::new("containerd"));
        let mut command = Command::new(program);
        command.arg("--config").arg(options.config_file());
        command.env("PATH", search_path(options.program.as_deref()));
        // What systemd says to us is not for it: its own READY would come before ours.
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().context("containerd's log")?).stderr(log);
        // A group of its own: Ctrl-C at our terminal must end it after us, not beside us.
        command.process_group(0);
        descriptors::give_back(command.as_std_mut());
        let child = command.spawn().map_err(|error| cannot_start(program, error))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Error::system("containerd ended while it was started"))?;
        let held = Watched::of_pid(pid).context("watching containerd")?;
        Ok(Self { pid, held, child: Some(child) })
    }

    /// The living process that the file names, if it still is the one that was meant.
    pub(super) fn from_pid_file(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let (pid, start) = (pid.parse().ok()?, start.parse::<u64>().ok()?);
        // The descriptor first: after the comparison the number might already mean another process.
        let held = Watched::of_pid(pid).ok()?;
        (start_time(pid)? == start).then_some(Self { pid, held, child: None })
    }

    /// Leaves word for a later daemon.
    pub(super) fn write_pid_file(&self, path: &Path) -> Result<()> {
        let start = start_time(self.pid).unwrap_or_default();
        let fresh = path.with_extension("pid.new");
        fs::write(&fresh, format!("{} {start}\n", self.pid)).context("writing containerd's pid file")?;
        fs::rename(&fresh, path).context("writing containerd's pid file")
    }

    /// Its number.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end and tells how it went.
    pub(super) async fn exited(&mut self) -> String {
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            None => match self.held.ended().await {
                Ok(()) => "not our own child".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }

    /// KILL.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exited().await;
    }

    /// TERM, and KILL after `limit`.
    pub(super) async fn terminate(&mut self, limit: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(limit, self.exited()).await.is_err() {
            warn!(pid = self.pid, "containerd does not heed TERM, killing it");
            self.signal(Signal::KILL);
            self.exited().await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.held.descriptor(), signal)
            && error != rustix::io::Errno::SRCH
        {
            warn!(%error, pid = self.pid, "signalling containerd");
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    let too_large = fs::metadata(path).is_ok_and(|data| data.len() > LOG_LIMIT);
    if too_large {
        fs::remove_file(path)?;
    }
    File::options().create(true).append(true).open(path)
}

/// containerd searches its shim in `PATH`, so a containerd from a folder of its own must find the one beside it.
fn search_path(program: Option<&Path>) -> OsString {
    let inherited = env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".into());
    let Some(folder) = program.and_then(Path::parent).filter(|folder| folder.is_absolute()) else { return inherited };
    let folders = std::iter::once(folder.to_owned()).chain(env::split_paths(&inherited));
    env::join_paths(folders).unwrap_or(inherited)
}

fn cannot_start(program: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; install containerd, or name a running one with --containerd",
        _ => "",
    };
    Error::unavailable(format!("cannot start {}: {error}{hint}", program.display()))
}
