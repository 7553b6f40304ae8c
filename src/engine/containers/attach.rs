//! `POST /containers/{id}/attach`.

use tokio::sync::mpsc;

use crate::{
    engine::{
        Engine,
        containers::session::{Session, SessionStdin, detach_keys},
        tenants::Scope,
    },
    logs::ReadOptions,
    model::{Error, Result, container::ContainerState},
};

/// What a client wants of a container's streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors.
    pub stderr: bool,
    /// What is in the log already.
    pub logs: bool,
    /// What comes.
    pub stream: bool,
    /// Output of both kinds as it is, without frames that tell them apart.
    pub raw: bool,
    /// Keys that detach; empty is ctrl-p,ctrl-q.
    pub detach_keys: String,
}

impl Engine {
    /// Attaches to this run of a container, or to the next.
    pub async fn container_attach(&self, scope: &Scope, reference: &str, options: &AttachOptions) -> Result<Session> {
        let detach_keys = detach_keys(&options.detach_keys, "detach")?;
        let container = self.containers.get(scope.tenant(), reference)?;
        let attach = || match options.stream {
            true => container.console.attach(options.stdout, options.stderr),
            false => mpsc::channel(1).1,
        };
        // Before the turn, so that of a start that is under way nothing is missed; behind the log, what it has would
        // come twice.
        let early = (!options.logs).then(attach);
        let id = container.id().as_str();
        let state = container.turn().await?.state();
        match state {
            ContainerState::Paused(_) => {
                return Err(Error::conflict(format!("container {id} is paused, unpause the container before attach")));
            }
            ContainerState::Restarting(_) => {
                return Err(Error::conflict(format!(
                    "container {id} is restarting, wait until the container is running"
                )));
            }
            _ => {}
        }
        let record = container.record();
        let framed = !record.config.tty && !options.raw;
        let past = options
            .logs
            .then(|| {
                container.log.read(ReadOptions {
                    stdout: options.stdout,
                    stderr: options.stderr,
                    framed,
                    ..ReadOptions::default()
                })
            })
            .transpose()?;
        let output = early.unwrap_or_else(attach);
        let stdin = (options.stream && options.stdin && record.config.open_stdin)
            .then(|| SessionStdin::of_container(self, &container));
        self.events.container(&record, "attach", &[]);
        Ok(Session { tty: record.config.tty, framed, past, output, stdin, detach_keys })
    }

    /// A client has left by its detach keys.
    pub fn container_detached(&self, scope: &Scope, reference: &str) {
        if let Ok(container) = self.containers.get(scope.tenant(), reference) {
            self.events.container(&container.record(), "detach", &[]);
        }
    }
}
