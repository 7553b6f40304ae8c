//! `ringer job run`: a command with a Docker socket of its own.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus},
};

use clap::Args;
use ringer::{
    admin::{ExtendBody, JobAnswer, JobBody},
    model::{Error, Result, job},
};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
};

use super::{Options, told};
use crate::cli::{
    admin::AdminClient,
    values::{Bind, Seconds},
};

/// What reaches us and is meant for the command. Ctrl-C at a terminal reaches it anyway: it gets the signal once from there.
const PASSED_ON: [Signal; 5] = [Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// A command and its job.
#[derive(Args, Clone, Debug)]
pub struct Run {
    #[command(flatten)]
    options: Options,
    /// Do not let its clients bind the working directory, as they may otherwise
    #[arg(long)]
    no_bind: bool,
    /// When the command ends with another exit code than 0, keep the job for so long, such as 30m, to look at it
    #[arg(long, value_name = "DURATION")]
    keep_on_failure: Option<Seconds>,
    /// Say nothing of what was removed, unless the job has ended before the command
    #[arg(long, short)]
    quiet: bool,
    /// The command with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    /// Runs it; the answer is the command's exit code, 128 + signal if a signal ended it.
    pub async fn carry_out(self, client: &AdminClient) -> Result<ExitCode> {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let uid = rustix::process::getuid().as_raw();
        let mut body = JobBody { owner_pid: Some(pid), uid: Some(uid), ..self.options.body()? };
        let folder = (!self.no_bind).then(working_directory).transpose()?;
        // Giving all of the machine away is a policy's word, not that of a shell which happens to be in its root.
        let given = folder.iter().map(|Bind(path)| path.clone()).filter(|path| path != "/");
        body.binds.extend(given);
        if let Some(Seconds(ttl)) = self.keep_on_failure {
            job::expiry(ttl).map_err(|error| error.context("--keep-on-failure"))?;
        }
        // Before there is a job: from here on a signal must not end us without it.
        let mut signals = Signals::new()?;
        let job = client.create(&body).await?;
        let ended = match start(&self.command, &job, folder.as_ref()) {
            Ok(child) => signals.pass_on_until_the_end_of(child).await,
            Err(error) => Err(error),
        };
        // One that a signal has ended, or that could not be started, leaves nothing to look at.
        let has_failed = matches!(&ended, Ok(status) if status.code().is_some_and(|code| code != 0));
        if let Some(Seconds(ttl)) = self.keep_on_failure.filter(|_| has_failed) {
            match client.extend(&job.id, ExtendBody { ttl, disown: true }).await {
                Ok(kept) => {
                    eprintln!("{}", told_of_kept(&kept));
                    return Ok(exit_code(ended?));
                }
                Err(error) => eprintln!("ringer: keeping job {}: {}", job.name, error.chain()),
            }
        }
        match client.delete(&job.id).await {
            // That it has ended under the command is worth a line anyway.
            Ok(removed) if !self.quiet || removed.ending.is_some() => {
                eprintln!("ringer: job {}: {}", job.name, told(&removed))
            }
            Ok(_) => {}
            // The daemon goes on removing it; the command's outcome is what counts.
            Err(error) => eprintln!("ringer: removing job {}: {}", job.name, error.chain()),
        }
        Ok(exit_code(ended?))
    }
}

fn told_of_kept(job: &JobAnswer) -> String {
    let until = job.expires.map(|expires| format!(" until {expires}")).unwrap_or_default();
    format!(
        "ringer: job {}: kept{until}: DOCKER_HOST={}; ringer job rm {} removes it now",
        job.name, job.docker_host, job.name
    )
}

fn working_directory() -> Result<Bind> {
    ".".parse().map_err(|error: Error| error.context("looking for the working directory"))
}

fn start(command: &[OsString], job: &JobAnswer, folder: Option<&Bind>) -> Result<Child> {
    let (program, arguments) = command.split_first().ok_or_else(|| Error::invalid("no command"))?;
    let mut child = Command::new(program);
    child.args(arguments).env("DOCKER_HOST", &job.docker_host).env("RINGER_JOB", &job.id);
    // Clients take its word for where they are, links on the way included, and no path with a link can be bound.
    if let Some(Bind(path)) = folder {
        child.env("PWD", path);
    }
    // A context that somebody has chosen would win over the variable, and certificates are for another daemon.
    for name in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
        child.env_remove(name);
    }
    let end_with_us = || set_parent_process_death_signal(Some(Signal::TERM)).map_err(Into::into);
    // SAFETY: one system call, which allocates nothing and takes no lock.
    unsafe { child.pre_exec(end_with_us) };
    let failed = |error| Error::system(format!("starting {}: {error}", program.display())).with_source(error);
    child.spawn().map_err(failed)
}

/// As a shell tells it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

struct Signals {
    passed_on: Vec<(Signal, unix::Signal)>,
    interrupt: unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let catch = |kind| {
            unix::signal(kind).map_err(|error| Error::system(format!("catching signals: {error}")).with_source(error))
        };
        let caught = |signal: Signal| Ok((signal, catch(SignalKind::from_raw(signal.as_raw()))?));
        Ok(Self {
            passed_on: PASSED_ON.into_iter().map(caught).collect::<Result<_>>()?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    async fn pass_on_until_the_end_of(&mut self, mut child: Child) -> Result<ExitStatus> {
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let is_at_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
        loop {
            let caught = self.next();
            let signal = tokio::select! {
                ended = child.wait() => {
                    return ended.map_err(|error| Error::system(format!("waiting for the command: {error}")).with_source(error));
                }
                signal = caught => signal,
            };
            if (signal != Signal::INT || !is_at_terminal)
                && let Some(pid) = pid
            {
                // It has not been waited for: the number is still its.
                let _ended_already = kill_process(pid, signal);
            }
        }
    }

    async fn next(&mut self) -> Signal {
        let others = self.passed_on.iter_mut().map(|(signal, caught)| {
            Box::pin(async move {
                caught.recv().await;
                *signal
            })
        });
        let others = futures_util::future::select_all(others);
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            (signal, ..) = others => signal,
        }
    }
}
