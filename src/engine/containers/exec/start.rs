//! `POST /exec/{id}/start`.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{Duration, timeout},
};
use tracing::warn;

use crate::{
    backend::runtime::{OutputPipe, Stdio, TaskIo},
    engine::{
        Engine,
        container::{
            Container, KILLED_EXIT,
            console::{Output, StdinPort},
            exec::{Exec, ExecStart, ExecState},
        },
        containers::session::{Session, SessionStdin, detach_keys},
        runs::failure::StartFailure,
        tenants::Scope,
    },
    model::{Error, ErrorKind, Result, container::ContainerState, output::OutputStream},
};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Chunks that a client may lie behind before it holds the process up.
const BACKLOG: usize = 16;

/// How long output may go on after the exec's process has ended: children that it left behind hold it open.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// How long the end of a container may take to be published after its shim has gone.
const END_PATIENCE: Duration = Duration::from_secs(2);

impl Engine {
    /// Whether the exec can be started: what dockerd answers before it takes the connection over.
    pub async fn exec_startable(&self, scope: &Scope, id: &str) -> Result<Arc<Exec>> {
        let exec = self.execs.get(scope.tenant(), id)?;
        let container = self.containers.get(scope.tenant(), exec.container.as_str())?;
        super::can_exec(&container.turn().await?, exec.container.as_str())?;
        Ok(exec)
    }

    /// Runs an exec. Its session's output ends when its exit code can be read. An exec that cannot be started
    /// has the exit code 126 or 127, and the reason is the error.
    pub async fn exec_start(&self, exec: &Arc<Exec>, start: ExecStart) -> Result<Session> {
        let container = self.containers.get(&exec.tenant, exec.container.as_str())?;
        begin(exec)?;
        let engine = self.clone();
        let exec = exec.clone();
        self.run("exec_start", async move {
            match engine.launch_exec(&container, &exec, start).await {
                Ok(session) => Ok(session),
                Err(failure) => {
                    engine.execs.end(&exec, failure.exit_code);
                    let ids = (container.id().clone(), exec.id.clone());
                    let _not_there = engine.backends.runtime.delete_exec(&ids.0, &ids.1).await;
                    Err(engine.told_by_end(&container, failure.error).await)
                }
            }
        })
        .await
    }

    async fn launch_exec(
        &self,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        start: ExecStart,
    ) -> Result<Session, StartFailure> {
        let request = &exec.request;
        let attached = !start.detach;
        let runtime = &self.backends.runtime;
        let starting = container.exec_starts.read().await;
        if matches!(container.state(), ContainerState::Paused(_)) {
            return Err(StartFailure::before_task(Error::is_paused(exec.container.as_str())));
        }
        let console_size = start.console_size.or(request.console_size);
        // A container that ends right now has no files to look a user up in, which says nothing of the command.
        let prepared = self.exec_process(container, request, console_size).await;
        let process = prepared.map_err(StartFailure::before_task)?;
        let detach_keys = detach_keys(&request.detach_keys, "escape").map_err(StartFailure::before_task)?;
        let stdio = Stdio { terminal: request.tty, stdin: attached && request.attach_stdin };
        let io = runtime.create_exec(&exec.container, &exec.id, &process, stdio).await;
        let io = io.map_err(StartFailure::of_task)?;
        let action = format!("exec_start: {}", super::command_line(&request.command));
        self.events.container(&container.record(), action, &[("execID", exec.id.to_string())]);
        let pid = runtime.start_exec(&exec.container, &exec.id).await.map_err(StartFailure::of_task)?;
        drop(starting);
        exec.state.send_replace(ExecState::Running(pid));
        let TaskIo { stdin, stdout, stderr } = io;
        let stdin = stdin.map(|pipe| Arc::new(StdinPort::new(pipe)));
        let (sender, output) = mpsc::channel(BACKLOG);
        let to_client = ClientOutput {
            sender: attached.then_some(sender),
            stdout: request.attach_stdout,
            stderr: request.attach_stderr,
        };
        self.follow_exec(container, exec, stdout, stderr, to_client);
        Ok(Session {
            tty: request.tty,
            framed: !start.tty,
            past: None,
            output,
            stdin: stdin.map(|port| SessionStdin::of_exec(self, exec, port)),
            detach_keys,
        })
    }

    /// What a client is told of an exec or a look that the runtime refused: that the container does not run, if that is why. A
    /// runtime that finds the files of a process gone blames the command, and a shim may be gone before it answers.
    pub(crate) async fn told_by_end(&self, container: &Arc<Container>, error: Error) -> Error {
        let has_ended = match container.state().live() {
            None => true,
            Some(live) => match self.backends.runtime.pids(container.id()).await {
                Ok(pids) => !pids.contains(&live.pid),
                Err(gone) if gone.kind() == ErrorKind::NotFound => true,
                // Without its shim nobody knows yet; the end is published soon if it is one.
                Err(_) => {
                    timeout(END_PATIENCE, container.wait_for(|seen| seen.removed || seen.record.state.live().is_none()))
                        .await
                        .is_ok()
                }
            },
        };
        if has_ended { Error::not_running(container.id().as_str()).with_source(error) } else { error }
    }

    /// Passes output on until it ends, then records the exit, and only then lets the client's stream end.
    fn follow_exec(
        &self,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        stdout: OutputPipe,
        stderr: Option<OutputPipe>,
        mut to_client: ClientOutput,
    ) {
        let engine = self.clone();
        let container = container.clone();
        let exec = exec.clone();
        self.spawn("exec", async move {
            let runtime = &engine.backends.runtime;
            let exit = {
                let copying = copy_output(stdout, stderr, &mut to_client);
                tokio::pin!(copying);
                let mut exited = Box::pin(runtime.wait(&exec.container, Some(&exec.id)));
                tokio::select! {
                    () = &mut copying => exited.await,
                    exit = &mut exited => {
                        let _held_open = timeout(OUTPUT_PATIENCE, copying).await;
                        exit
                    }
                }
            };
            let code = match exit {
                Ok(exit) => exit.code,
                Err(error) => {
                    if error.kind() != ErrorKind::NotFound {
                        warn!(exec.id = %exec.id, "waiting for exec {}: {error}", exec.id);
                    }
                    KILLED_EXIT
                }
            };
            engine.execs.end(&exec, code);
            drop(to_client);
            let facts = [("execID", exec.id.to_string()), ("exitCode", code.to_string())];
            engine.events.container(&container.record(), "exec_die", &facts);
            if let Err(error) = runtime.delete_exec(&exec.container, &exec.id).await
                && error.kind() != ErrorKind::NotFound
            {
                warn!(exec.id = %exec.id, "deleting exec {}: {error}", exec.id);
            }
        });
    }
}

fn begin(exec: &Exec) -> Result<()> {
    let mut refusal = None;
    exec.state.send_if_modified(|state| match state {
        ExecState::Created => {
            *state = ExecState::Starting;
            true
        }
        ExecState::Starting | ExecState::Running(_) => {
            refusal = Some(Error::conflict(format!("exec command {} is already running", exec.id)));
            false
        }
        ExecState::Exited(_) => {
            refusal = Some(Error::conflict(format!("exec command {} has already run", exec.id)));
            false
        }
    });
    refusal.map_or(Ok(()), Err)
}

/// A client's output, as long as there is a client.
struct ClientOutput {
    sender: Option<mpsc::Sender<Output>>,
    stdout: bool,
    stderr: bool,
}

impl ClientOutput {
    async fn send(&mut self, stream: OutputStream, buffer: &mut BytesMut) {
        let wanted = match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        };
        match &self.sender {
            Some(sender) if wanted && !buffer.is_empty() => {
                // A client that is gone: the process goes on, its output goes nowhere.
                if sender.send((stream, buffer.split().freeze())).await.is_err() {
                    self.sender = None;
                }
            }
            _ => buffer.clear(),
        }
    }
}

async fn copy_output(stdout: OutputPipe, stderr: Option<OutputPipe>, client: &mut ClientOutput) {
    let mut stdout = Some(stdout);
    let mut stderr = stderr;
    let mut out_buffer = BytesMut::new();
    let mut err_buffer = BytesMut::new();
    while stdout.is_some() || stderr.is_some() {
        tokio::select! {
            () = fill(&mut stdout, &mut out_buffer) => client.send(OutputStream::Stdout, &mut out_buffer).await,
            () = fill(&mut stderr, &mut err_buffer) => client.send(OutputStream::Stderr, &mut err_buffer).await,
        }
    }
}

/// Reads a piece; forgets the pipe at its end. Never answers for a pipe that ended before.
async fn fill(pipe: &mut Option<OutputPipe>, buffer: &mut BytesMut) {
    let Some(open) = pipe else { return std::future::pending().await };
    buffer.reserve(CHUNK);
    if !matches!(open.read_buf(buffer).await, Ok(length) if length > 0) {
        *pipe = None;
    }
}
