//! What ends work before it is done.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use futures_util::future::select_all;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::model::Error;

/// Why work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client has left.
    ClientGone,
    /// The container is removed.
    Removed,
    /// A later run of the container has begun.
    Restarted,
    /// The daemon shuts down.
    Stopping,
    /// The client is there but neither sends nor takes anything.
    Idle,
    /// Whoever waited for it does not any more.
    Abandoned,
}

impl Why {
    /// What the client is told, if it can still be told anything.
    pub fn error(self) -> Error {
        match self {
            Self::ClientGone | Self::Abandoned => Error::system("the client has left"),
            Self::Removed => Error::conflict("the container has been removed meanwhile"),
            Self::Restarted => Error::conflict("the container has been started again meanwhile"),
            Self::Stopping => Error::unavailable("the daemon is shutting down"),
            Self::Idle => Error::invalid("the request has been idle for too long: nothing came, or nothing was read"),
        }
    }
}

/// Ends work; clones end the same work.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    token: CancellationToken,
    why: OnceLock<Why>,
    /// Ends the task that looks at the reasons.
    _watch: Option<DropGuard>,
}

impl Stop {
    /// Ends nothing by itself.
    pub fn never() -> Self {
        Self::default()
    }

    /// Ends the work when the first of these is cancelled. Called within the runtime.
    pub fn when(reasons: impl IntoIterator<Item = (CancellationToken, Why)>) -> Self {
        let watched = |(token, why): (CancellationToken, Why)| {
            Box::pin(async move {
                token.cancelled_owned().await;
                why
            })
        };
        let reasons: Vec<_> = reasons.into_iter().map(watched).collect();
        if reasons.is_empty() {
            return Self::never();
        }
        let over = CancellationToken::new();
        let stop = Self(Arc::new(State { _watch: Some(over.clone().drop_guard()), ..State::default() }));
        let state = Arc::downgrade(&stop.0);
        tokio::spawn(async move {
            tokio::select! {
                (why, ..) = select_all(reasons) => if let Some(state) = state.upgrade() {
                    Self(state).end(why);
                },
                // Nobody has a part in the work any more.
                () = over.cancelled() => {}
            }
        });
        stop
    }

    /// Ends the work.
    pub fn end(&self, why: Why) {
        let _told_before = self.0.why.set(why);
        self.0.token.cancel();
    }

    /// Whether it is to end, and why.
    pub fn why(&self) -> Option<Why> {
        self.0.why.get().copied()
    }

    /// Waits until it is to end.
    pub async fn told(&self) -> Why {
        self.0.token.cancelled().await;
        self.why().unwrap_or(Why::Abandoned)
    }

    /// An error if it is to end.
    pub fn check(&self) -> io::Result<()> {
        match self.why() {
            None => Ok(()),
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.error())),
        }
    }

    /// Ends the work when the guard is dropped.
    pub fn end_when_dropped(&self, why: Why) -> EndGuard {
        EndGuard(Some((self.clone(), why)))
    }
}

/// Ends work when it is dropped.
pub struct EndGuard(Option<(Stop, Why)>);

impl EndGuard {
    /// It is done; there is nothing to end.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if let Some((stop, why)) = &self.0 {
            stop.end(*why);
        }
    }
}
