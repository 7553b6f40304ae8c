//! A container's streams: who is attached, and where input goes.
//!
//! A console outlives the container's runs: a client may attach before the start (gitlab-runner, docker CLI)
//! and is then served by the next run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::runtime::InputPipe,
    model::{Error, Result, error::Context, output::OutputStream},
};

/// Chunks that an attached client may lie behind before it holds the container up, as with dockerd.
const CLIENT_BACKLOG: usize = 64;

/// A piece of output.
pub type Output = (OutputStream, Bytes);

struct Client {
    stdout: bool,
    stderr: bool,
    sender: mpsc::Sender<Output>,
    /// Cancelled when the run is over: one that does not read is not waited for any longer.
    detached: CancellationToken,
}

impl Client {
    fn wants(&self, stream: OutputStream) -> bool {
        match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }
}

/// The streams of one container.
#[derive(Default)]
pub struct Console {
    clients: Mutex<Vec<Client>>,
    stdin: watch::Sender<Option<Arc<StdinPort>>>,
}

impl Console {
    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches to the output from now on, of this run or the next. The receiver ends when the run has ended
    /// and its exit is recorded.
    pub fn attach(&self, stdout: bool, stderr: bool) -> mpsc::Receiver<Output> {
        let (sender, receiver) = mpsc::channel(CLIENT_BACKLOG);
        self.clients().push(Client { stdout, stderr, sender, detached: CancellationToken::new() });
        receiver
    }

    /// Whether anybody is attached.
    pub fn has_clients(&self) -> bool {
        !self.clients().is_empty()
    }

    /// Passes output to all who are attached; waits for the slowest.
    pub(crate) async fn broadcast(&self, stream: OutputStream, bytes: &Bytes) {
        let clients: Vec<_> = {
            let clients = self.clients();
            let wanting = clients.iter().filter(|client| client.wants(stream));
            wanting.map(|client| (client.sender.clone(), client.detached.clone())).collect()
        };
        let mut gone = false;
        for (sender, detached) in clients {
            gone |= tokio::select! {
                sent = sender.send((stream, bytes.clone())) => sent.is_err(),
                () = detached.cancelled() => true,
            };
        }
        if gone {
            self.clients().retain(|client| !client.sender.is_closed());
        }
    }

    /// Ends the output of all who are attached.
    pub(crate) fn detach_all(&self) {
        for client in self.clients().drain(..) {
            client.detached.cancel();
        }
    }

    /// A run has begun that can read input.
    pub(crate) fn open_stdin(&self, port: Arc<StdinPort>) {
        self.stdin.send_replace(Some(port));
    }

    /// The run is over.
    pub(crate) fn forget_stdin(&self) {
        self.stdin.send_replace(None);
    }

    /// Where input goes; waits for a run that can read it.
    pub async fn stdin(&self) -> Arc<StdinPort> {
        let mut watch = self.stdin.subscribe();
        let port = watch.wait_for(Option::is_some).await.expect("the console keeps its sender");
        port.clone().expect("the condition says so")
    }

    /// Where input goes, if a run is there that reads it.
    pub fn stdin_now(&self) -> Option<Arc<StdinPort>> {
        self.stdin.borrow().clone()
    }
}

/// The input of one process, shared by the clients that are attached to it.
pub struct StdinPort {
    pipe: tokio::sync::Mutex<Option<InputPipe>>,
    closed: watch::Sender<bool>,
}

impl StdinPort {
    /// Takes our end of the pipe.
    pub fn new(pipe: InputPipe) -> Self {
        Self { pipe: tokio::sync::Mutex::new(Some(pipe)), closed: watch::Sender::new(false) }
    }

    /// Writes all of `bytes`. An error if the process does not read any more.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut closed = self.closed.subscribe();
        let write = async {
            match self.pipe.lock().await.as_mut() {
                Some(pipe) => pipe.write_all(bytes).await.context("writing standard input"),
                None => Err(Error::conflict("standard input is closed")),
            }
        };
        tokio::select! {
            written = write => written,
            _ = closed.wait_for(|closed| *closed) => Err(Error::conflict("standard input is closed")),
        }
    }

    /// Drops our end. The runtime's end is closed by `Runtime::close_stdin` after that.
    pub async fn close(&self) {
        self.closed.send_replace(true);
        self.pipe.lock().await.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn client_gets_only_the_streams_it_asked_for() {
        let console = Console::default();
        let mut receiver = console.attach(false, true);
        console.broadcast(OutputStream::Stdout, &Bytes::from_static(b"out")).await;
        console.broadcast(OutputStream::Stderr, &Bytes::from_static(b"err")).await;
        console.detach_all();
        assert_eq!(receiver.recv().await, Some((OutputStream::Stderr, Bytes::from_static(b"err"))));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn client_that_does_not_read_is_not_waited_for_after_the_end() {
        let console = Console::default();
        let _receiver = console.attach(true, true);
        let write = async {
            for _ in 0..=CLIENT_BACKLOG {
                console.broadcast(OutputStream::Stdout, &Bytes::from_static(b"x")).await;
            }
        };
        let end = async {
            tokio::task::yield_now().await;
            console.detach_all();
        };
        let both = async { tokio::join!(write, end) };
        tokio::time::timeout(std::time::Duration::from_secs(20), both).await.unwrap();
    }

    #[tokio::test]
    async fn client_that_left_is_forgotten() {
        let console = Console::default();
        drop(console.attach(true, true));
        console.broadcast(OutputStream::Stdout, &Bytes::from_static(b"x")).await;
        assert!(!console.has_clients());
    }
}
