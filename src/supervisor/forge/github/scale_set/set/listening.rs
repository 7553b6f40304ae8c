//! A scale set is listened to by a task of its own, as it is wanted: one call waits until there is a message.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::sync::watch;
use tracing::debug;

use super::{super::queue::Queue, ScaleSet, Wants};
use crate::{model::Error, supervisor::forge::github::hub::Failure};

/// Between two calls for messages at least, when there was none.
const PAUSE: Duration = Duration::from_secs(1);

/// The same when there was one: a quick job's end follows its start, and each message is of few jobs.
const BREATH: Duration = Duration::from_millis(20);

/// So many failures in a row are the session's.
const FAILURES: u32 = 4;

impl Wants {
    /// For how many jobs there is room.
    fn capacity(self) -> usize {
        match self {
            Self::Jobs(jobs) => jobs,
            Self::Nothing | Self::Ends => 0,
        }
    }
}

impl ScaleSet {
    /// Listens for as long as we are there.
    pub async fn listen(self: Arc<Self>) {
        let mut wants = self.wants.subscribe();
        loop {
            let (now, begun) = (*wants.borrow_and_update(), Instant::now());
            if now == Wants::Nothing {
                // The sender is ours: it is there for as long as we are.
                let _always = wants.changed().await;
                continue;
            }
            let rest = match self.hear(now, &mut wants).await {
                Ok(true) => BREATH,
                Ok(false) => PAUSE.saturating_sub(begun.elapsed()),
                Err(failure) => self.cannot_hear(failure).await,
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Waits for a message, until something else is wanted; whether a new one has come.
    async fn hear(&self, now: Wants, wants: &mut watch::Receiver<Wants>) -> Result<bool, Failure> {
        let Some(queue) = self.prepare(now).await? else { return Ok(false) };
        let message = tokio::select! {
            message = queue.next(now.capacity()) => message,
            // What was on its way is told again.
            _always = wants.changed() => return Ok(false),
        };
        let message = match message {
            Ok(message) => message,
            Err(refusal) => {
                let _turn = self.turn.lock().await;
                return self.recover(&queue, refusal).await.map(|()| false);
            }
        };
        let Some(message) = message else {
            self.is_well();
            return Ok(false);
        };
        Ok(self.read(&queue, &message))
    }

    /// Nothing came, or what came was acknowledged.
    pub(super) fn is_well(&self) {
        let mut state = self.state();
        (state.failing, state.renewed) = (None, None);
    }

    /// Opens the session if there is none, and says what is to be said before the next message; `None` if it is to be tried again.
    async fn prepare(&self, now: Wants) -> Result<Option<Queue>, Failure> {
        let _turn = self.turn.lock().await;
        if *self.wants.borrow() == Wants::Nothing {
            return Ok(None);
        }
        if self.state().queue.is_none() {
            self.open(now).await?;
        }
        self.count().await;
        let Some(queue) = self.state().queue.clone() else { return Ok(None) };
        let is_said = self.acknowledge(&queue).await? && self.acquire(&queue, now.capacity()).await?;
        Ok(is_said.then(|| self.state().queue.clone()).flatten())
    }

    /// It is tried again after a while, in another session if it may be this one's fault: what was not acknowledged comes again.
    async fn cannot_hear(&self, failure: Failure) -> Duration {
        let status = failure.status();
        let pause = self.fails(&Error::from(failure));
        let _turn = self.turn.lock().await;
        if matches!(status, Some(StatusCode::NOT_FOUND | StatusCode::GONE)) {
            self.state().queue = None;
        } else if status == Some(StatusCode::UNAUTHORIZED) || self.failures() >= FAILURES {
            if let Err(error) = self.close().await {
                debug!(forge = self.common.forge(), "ending the session at {}: {}", self.scope, error.chain());
            }
            // Where it could not be ended, its number is kept for the next.
            self.state().queue = None;
        }
        pause
    }
}
