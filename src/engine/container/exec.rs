//! An exec: a further process in a running container.

use tokio::sync::watch;

use crate::model::id::{ContainerId, ExecId, TenantId};

/// The body of `POST /containers/{id}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=value`, over the container's.
    pub env: Vec<String>,
    /// Where it starts; empty is the container's.
    pub working_dir: String,
    /// User; empty is the container's.
    pub user: String,
    /// With a terminal.
    pub tty: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Whether the client will write input.
    pub attach_stdin: bool,
    /// Whether the client reads output.
    pub attach_stdout: bool,
    /// Whether the client reads errors.
    pub attach_stderr: bool,
    /// Keys that detach; empty is ctrl-p,ctrl-q.
    pub detach_keys: String,
    /// Height and width of the terminal.
    pub console_size: Option<(u32, u32)>,
}

impl ExecRequest {
    /// About the memory that it takes.
    pub fn bytes(&self) -> usize {
        let texts = self.command.iter().chain(&self.env).chain([&self.working_dir, &self.user, &self.detach_keys]);
        size_of::<Exec>() + texts.map(|text| size_of::<String>() + text.len()).sum::<usize>()
    }
}

/// Where an exec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// Not started.
    Created,
    /// A start is under way.
    Starting,
    /// Runs as this process of the host.
    Running(u32),
    /// Has ended.
    Exited(i64),
}

/// One exec.
pub struct Exec {
    /// Its id.
    pub id: ExecId,
    /// Whose.
    pub tenant: TenantId,
    /// Where it runs.
    pub container: ContainerId,
    /// What was asked for.
    pub request: ExecRequest,
    /// Where it stands.
    pub state: watch::Sender<ExecState>,
}

/// How to start an exec.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecStart {
    /// Nobody listens.
    pub detach: bool,
    /// The client reads the output as a terminal gives it, without frames; whether the exec has one was said when it was made.
    pub tty: bool,
    /// Height and width of the terminal, in place of those that it was made with.
    pub console_size: Option<(u32, u32)>,
}
