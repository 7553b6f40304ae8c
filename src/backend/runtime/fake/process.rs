//! A process of the fake: a few commands, statement by statement.
//!
//! Understood, alone or in `sh -c "…; …"`: `true`, `false`, `echo WORDS` (also `>&2`), `cat`, `sleep SECONDS`,
//! `head -c N /dev/zero`, `exit N` and `trap 'exit N' TERM`. Everything else is not found.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, mpsc, watch},
};

use crate::{
    backend::runtime::{Exit, Stdio, TaskIo},
    model::{Error, Result, time::Timestamp},
};

/// The signal that nothing withstands.
pub(super) const SIGKILL: u32 = 9;

const SIGTERM: u32 = 15;
const PIPE_SIZE: usize = 64 << 10;
const PROGRAMS: [&str; 7] = ["true", "false", "echo", "cat", "sleep", "head", "sh"];

/// A process and what the runtime needs to steer it.
pub(super) struct FakeProcess {
    pid: u32,
    args: Vec<String>,
    signals: mpsc::UnboundedSender<u32>,
    exit: watch::Receiver<Option<Exit>>,
    close_stdin: Arc<Notify>,
    /// Until the start.
    pending: Option<Running>,
    started: bool,
}

/// What the process itself has.
struct Running {
    script: Vec<String>,
    stdin: Option<DuplexStream>,
    stdin_closed: Arc<Notify>,
    stdout: DuplexStream,
    stderr: Option<DuplexStream>,
    signals: mpsc::UnboundedReceiver<u32>,
    exit: watch::Sender<Option<Exit>>,
    /// The first process of a container ignores what it does not handle, but for KILL.
    first: bool,
}

/// The OCI runtime's words for a program that is not in the image.
pub(super) fn missing_program(args: &[String], verb: &str) -> Option<Error> {
    let program = args.first().map(String::as_str).unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    (!PROGRAMS.contains(&name)).then(|| {
        Error::system(format!(
            "OCI runtime {verb} failed: unable to start container process: exec: {program:?}: \
             executable file not found in $PATH: unknown"
        ))
    })
}

impl FakeProcess {
    /// A process that waits for its start, and our ends of its streams.
    pub(super) fn new(pid: u32, args: Vec<String>, stdio: Stdio, first: bool) -> (Self, TaskIo) {
        let (our_stdout, stdout) = duplex(PIPE_SIZE);
        let (our_stderr, stderr) = if stdio.terminal { (None, None) } else { split(duplex(PIPE_SIZE)) };
        let (our_stdin, stdin) = if stdio.stdin { split(duplex(PIPE_SIZE)) } else { (None, None) };
        let (signals, signal_inbox) = mpsc::unbounded_channel();
        let (exit_sender, exit) = watch::channel(None);
        let close_stdin = Arc::new(Notify::new());
        let running = Running {
            script: script(&args),
            stdin,
            stdin_closed: Arc::clone(&close_stdin),
            stdout,
            stderr,
            signals: signal_inbox,
            exit: exit_sender,
            first,
        };
        let process = Self { pid, args, signals, exit, close_stdin, pending: Some(running), started: false };
        let streams = TaskIo {
            stdin: our_stdin.map(|stream| Box::pin(stream) as _),
            stdout: Box::pin(our_stdout),
            stderr: our_stderr.map(|stream| Box::pin(stream) as _),
        };
        (process, streams)
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its command line.
    pub(super) fn args(&self) -> &[String] {
        &self.args
    }

    /// Lets it run.
    pub(super) fn start(&mut self) -> Result<()> {
        let running = self.pending.take().ok_or_else(|| Error::conflict("process has been started already"))?;
        self.started = true;
        tokio::spawn(running.run());
        Ok(())
    }

    /// A failed start: its streams end.
    pub(super) fn abandon(&mut self) {
        self.pending = None;
    }

    /// Streams cannot be opened twice in memory.
    pub(super) fn take_streams(&mut self) -> Option<TaskIo> {
        None
    }

    /// Sends a signal; lost if it has ended.
    pub(super) fn signal(&self, signal: u32) {
        // An error means that it has ended.
        let _ = self.signals.send(signal);
    }

    /// Its end, when it comes.
    pub(super) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    /// Whether it lives; one that waits for its start does.
    pub(super) fn is_running(&self) -> bool {
        self.exit.borrow().is_none() && (self.started || self.pending.is_some())
    }

    /// The runtime's side of standard input is closed.
    pub(super) fn close_stdin(&self) {
        self.close_stdin.notify_one();
    }
}

fn split(streams: (DuplexStream, DuplexStream)) -> (Option<DuplexStream>, Option<DuplexStream>) {
    (Some(streams.0), Some(streams.1))
}

/// Statements of a command line.
fn script(args: &[String]) -> Vec<String> {
    match args {
        [shell, flag, script, ..] if shell.ends_with("sh") && flag == "-c" => {
            script.split(';').map(|statement| statement.trim().to_owned()).collect()
        }
        // A shell without a script reads commands; here it just reads.
        [shell] if shell.ends_with("sh") => vec!["cat".to_owned()],
        _ => vec![args.join(" ")],
    }
}

impl Running {
    async fn run(mut self) {
        let script = std::mem::take(&mut self.script);
        let (code_sender, mut code) = watch::channel(None);
        let (mut signals, exit, first) = (self.take_signals(), self.exit.clone(), self.first);
        let trap = script.iter().find_map(|statement| trapped_code(statement));
        let work = async move {
            let code = self.statements(&script).await;
            // The receiver lives as long as this future.
            let _ = code_sender.send(Some(code));
        };
        let ended = async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    () = &mut work => return (*code.borrow_and_update()).unwrap_or(0),
                    Some(signal) = signals.recv() => match (signal, trap) {
                        (SIGKILL, _) => return 128 + i64::from(SIGKILL),
                        (SIGTERM, Some(code)) => return code,
                        (0, _) => {}
                        (signal, _) if !first => return 128 + i64::from(signal),
                        _ => {}
                    },
                }
            }
        };
        let code = ended.await;
        exit.send_replace(Some(Exit { code, at: Timestamp::now(), oom_killed: false }));
    }

    fn take_signals(&mut self) -> mpsc::UnboundedReceiver<u32> {
        std::mem::replace(&mut self.signals, mpsc::unbounded_channel().1)
    }

    async fn statements(&mut self, script: &[String]) -> i64 {
        let mut code = 0;
        for statement in script {
            code = match statement.split_once(' ').unwrap_or((statement, "")) {
                ("exit", code) => return code.trim().parse().unwrap_or(2),
                ("echo", words) => self.echo(words).await,
                ("sleep", seconds) => sleep(seconds).await,
                ("head", rest) => self.zeroes(rest).await,
                ("cat", _) => self.cat().await,
                ("false", _) => 1,
                ("true" | "trap" | "", _) => 0,
                _ => 127,
            };
        }
        code
    }

    async fn echo(&mut self, words: &str) -> i64 {
        let end = if self.stderr.is_none() { "\r\n" } else { "\n" };
        match (words.strip_suffix(">&2"), &mut self.stderr) {
            (Some(words), Some(stderr)) => put(stderr, &format!("{}{end}", words.trim_end())).await,
            (Some(words), None) => put(&mut self.stdout, &format!("{}{end}", words.trim_end())).await,
            (None, _) => put(&mut self.stdout, &format!("{words}{end}")).await,
        }
    }

    async fn zeroes(&mut self, rest: &str) -> i64 {
        let count = rest.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
        let bytes = vec![0u8; count];
        i64::from(self.stdout.write_all(&bytes).await.is_err())
    }

    /// Ends when our side and the runtime's side of the input are closed, as with pipes of a shim.
    async fn cat(&mut self) -> i64 {
        let Some(mut stdin) = self.stdin.take() else { return 0 };
        let copied = tokio::io::copy(&mut stdin, &mut self.stdout).await;
        let ended = stdin.read_u8().await.is_err();
        self.stdin_closed.notified().await;
        i64::from(copied.is_err() || !ended)
    }
}

async fn put(stream: &mut (impl AsyncWrite + Unpin), text: &str) -> i64 {
    i64::from(stream.write_all(text.as_bytes()).await.is_err())
}

async fn sleep(seconds: &str) -> i64 {
    tokio::time::sleep(Duration::from_secs_f64(seconds.trim().parse().unwrap_or(0.0))).await;
    0
}

/// `trap 'exit N' TERM`.
fn trapped_code(statement: &str) -> Option<i64> {
    let action = statement.strip_prefix("trap ")?.split(['\'', '"']).nth(1)?;
    action.strip_prefix("exit ")?.trim().parse().ok()
}
