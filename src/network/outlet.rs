//! Where the daemon itself speaks from in the name of a job: a runtime on a thread that is in the job's network namespace. A socket
//! belongs to the namespace of the thread that makes it, so that what is fetched there meets the job's walls as the job's own packets do.

use std::{io, sync::Arc};

use tokio::{
    runtime::{Builder, Handle},
    sync::{Mutex, oneshot},
};

use super::netns::{Namespace, enter};

/// The runtime of one host, which is made when somebody first asks for it.
#[derive(Default)]
pub struct Outlet(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unused,
    Running(Running),
    Closed,
}

struct Running {
    handle: Handle,
    /// Dropped to end it.
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Outlet {
    /// The runtime; `None` on the machine, where every runtime is as good.
    pub async fn runtime(&self, host: &Namespace) -> io::Result<Option<Handle>> {
        let Namespace::Held(held) = host else { return Ok(None) };
        let mut state = self.0.lock().await;
        match &*state {
            State::Running(running) => Ok(Some(running.handle.clone())),
            State::Closed => Err(io::Error::other("the job is being removed")),
            State::Unused => {
                let running = start(held.clone()).await?;
                let handle = running.handle.clone();
                *state = State::Running(running);
                Ok(Some(handle))
            }
        }
    }

    /// Ends it and waits until its sockets are closed: they keep the namespace alive.
    pub async fn close(&self) {
        let State::Running(running) = std::mem::replace(&mut *self.0.lock().await, State::Closed) else { return };
        drop(running.stop);
        // The thread ends by itself; that it panicked has been said.
        let _ended = tokio::task::spawn_blocking(move || running.thread.join()).await;
    }
}

async fn start(host: Arc<super::netns::Held>) -> io::Result<Running> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (answer, started) = oneshot::channel();
    let thread = std::thread::Builder::new().name("outlet".to_owned()).spawn(move || {
        let made = enter(host.file()).and_then(|()| Builder::new_current_thread().enable_all().build());
        match made {
            Ok(runtime) => {
                let _nobody_waits = answer.send(Ok(runtime.handle().clone()));
                let _stopped = runtime.block_on(stopped);
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    })?;
    let handle = started.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended without an answer")))?;
    Ok(Running { handle, stop, thread })
}
