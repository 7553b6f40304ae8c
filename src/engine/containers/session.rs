//! What an attached client holds: output that comes, and a way for its input.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    engine::{
        Engine,
        container::{
            Container,
            console::{Output, StdinPort},
            exec::Exec,
        },
    },
    logs::LogStream,
    model::{Error, ErrorKind, Result},
};

/// A client's hold on a process's streams.
pub struct Session {
    /// With a terminal there are detach keys.
    pub tty: bool,
    /// Whether output is sent in frames, which tell its kinds apart.
    pub framed: bool,
    /// What the log has of the past, if it was asked for; sent first, framed already.
    pub past: Option<LogStream>,
    /// Output from now on. Ends when the process has ended and its exit code can be read.
    pub output: mpsc::Receiver<Output>,
    /// Where input goes, if it was asked for.
    pub stdin: Option<SessionStdin>,
    /// Keys that end the session and leave the process running; bytes.
    pub detach_keys: Vec<u8>,
}

enum Target {
    /// The container's first process, of this run or the next.
    Container(Arc<Container>),
    /// An exec.
    Exec(Arc<Exec>, Arc<StdinPort>),
}

/// Where a client's input goes.
pub struct SessionStdin {
    engine: Engine,
    target: Target,
}

impl SessionStdin {
    pub(crate) fn of_container(engine: &Engine, container: &Arc<Container>) -> Self {
        Self { engine: engine.clone(), target: Target::Container(container.clone()) }
    }

    pub(crate) fn of_exec(engine: &Engine, exec: &Arc<Exec>, port: Arc<StdinPort>) -> Self {
        Self { engine: engine.clone(), target: Target::Exec(exec.clone(), port) }
    }

    /// Passes input on; waits for the start of a container that does not run yet.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        match &self.target {
            Target::Container(container) => container.console.stdin().await.write(bytes).await,
            Target::Exec(_, port) => port.write(bytes).await,
        }
    }

    /// The client will send no more. Says whether its output goes on: with a terminal, or where input stays open
    /// for others, dockerd ends the session.
    pub async fn finish(&self) -> Result<bool> {
        let (id, exec, port) = match &self.target {
            Target::Container(container) => {
                let config = &container.record().config;
                if !config.stdin_once || config.tty {
                    return Ok(false);
                }
                (container.id(), None, container.console.stdin().await)
            }
            Target::Exec(exec, _) if exec.request.tty => return Ok(false),
            Target::Exec(exec, port) => (&exec.container, Some(&exec.id), port.clone()),
        };
        port.close().await;
        match self.engine.backends.runtime.close_stdin(id, exec).await {
            // It ended before its input did.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            closed => closed.map(|()| true),
        }
    }
}

/// `ctrl-p,ctrl-q` unless the client wants others: single characters and `ctrl-x`, with commas. What they are `called`
/// in the refusal differs between attach and exec.
pub(crate) fn detach_keys(text: &str, called: &str) -> Result<Vec<u8>> {
    let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
    let key = |word: &str| match word.as_bytes() {
        [key] => Some(*key),
        [b'c', b't', b'r', b'l', b'-', key] => match key.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
            b'@' => Some(0),
            other @ b'['..=b'_' => Some(other - b'[' + 27),
            _ => None,
        },
        _ => None,
    };
    let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
    keys.ok_or_else(|| Error::invalid(format!("Invalid {called} keys ({text}) provided")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read_as_docker_does() {
        assert_eq!(detach_keys("", "detach").unwrap(), [16, 17]);
        assert_eq!(detach_keys("a,ctrl-[", "detach").unwrap(), [b'a', 27]);
        assert!(detach_keys("ctrl-1", "detach").is_err());
    }
}
