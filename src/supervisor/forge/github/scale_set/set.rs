//! One scale set. `making` makes it, or finds it again; `session` is by whom it is listened to, `listening` that somebody does, and
//! `messages` what it is told.

mod kept;
mod listening;
mod making;
mod messages;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{common::Common, queue::Queue, service::Service};
use crate::{
    model::{Error, Result},
    supervisor::pauses::growing,
};

/// After a call that failed: first, and at most.
const RESTS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// One at a place.
pub struct ScaleSet {
    /// `orgs/NAME` or `repos/OWNER/NAME`.
    pub scope: String,
    common: Arc<Common>,
    service: Arc<Service>,
    state: Mutex<State>,
    wants: watch::Sender<Wants>,
    /// It is configured no more: what is in our place has none here.
    goes: AtomicBool,
    /// Held by who makes, opens, leaves or removes it.
    turn: tokio::sync::Mutex<()>,
}

/// What it is listened to for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wants {
    /// It is not.
    #[default]
    Nothing,
    /// How the jobs end that have runners.
    Ends,
    /// So many jobs at once.
    Jobs(usize),
}

#[derive(Default)]
struct State {
    /// GitHub's number of it.
    id: Option<i64>,
    queue: Option<Queue>,
    /// Our last session, which may be there still.
    session: Option<String>,
    failing: Option<Failing>,
    /// Nothing is tried before, since the server cannot do it.
    no_sooner: Option<Instant>,
    /// When the queue's token was renewed last.
    renewed: Option<Instant>,
    /// When its jobs were counted last.
    counted: Option<Instant>,
    /// Jobs that are offered, by their number.
    offers: BTreeSet<i64>,
    /// Those that we have acquired and that were not assigned to us yet, and when.
    acquired: BTreeMap<i64, Instant>,
}

/// What went wrong last, and until when nothing is tried.
struct Failing {
    error: Error,
    times: u32,
    until: Instant,
}

impl ScaleSet {
    /// The one at a place, of which nothing is known yet.
    pub fn new(common: &Arc<Common>, scope: String) -> Self {
        Self {
            service: common.service(&scope),
            common: common.clone(),
            scope,
            state: Mutex::default(),
            wants: watch::Sender::default(),
            goes: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it is configured no more, and to be removed when it is left.
    pub fn goes(&self) -> bool {
        self.goes.load(Ordering::Relaxed)
    }

    /// The same, said.
    pub fn set_going(&self, goes: bool) {
        self.goes.store(goes, Ordering::Relaxed);
    }

    /// What it is to be listened to for from now on.
    pub fn want(&self, wants: Wants) {
        self.wants.send_if_modified(|before| std::mem::replace(before, wants) != wants);
    }

    /// GitHub's number of it, once it is known.
    pub fn id(&self) -> Option<i64> {
        self.state().id
    }

    /// Why it is not listened to, if so.
    pub fn trouble(&self) -> Option<Error> {
        let is_wanted = *self.wants.borrow() != Wants::Nothing;
        let state = self.state();
        let failing = state.failing.as_ref().filter(|_| is_wanted)?;
        let is_felt = state.queue.is_none() || failing.until > Instant::now();
        is_felt.then(|| Error::new(failing.error.kind(), failing.error.message()))
    }

    /// Forgets it, since GitHub does not know it any more: it is made anew.
    pub fn forget(&self) {
        let mut state = self.state();
        (state.id, state.queue) = (None, None);
    }

    /// Gives the session up: whoever else listens next is told of its jobs.
    pub async fn leave(&self) -> Result<()> {
        self.want(Wants::Nothing);
        let _nobody_opens_one = self.turn.lock().await;
        self.close().await
    }

    /// Gives it up, and removes it if that is `for_good`.
    pub async fn end(&self, for_good: bool) -> Result<()> {
        if for_good || self.goes() { self.remove().await } else { self.leave().await }
    }

    /// Something went wrong: for how long nothing is tried.
    fn fails(&self, error: &Error) -> Duration {
        let now = Instant::now();
        let pause = {
            let mut state = self.state();
            let lately = state.failing.as_ref().filter(|failing| failing.until + RESTS.1 > now);
            let times = lately.map_or(0, |failing| failing.times) + 1;
            let growing = growing(RESTS, times);
            let pause = state.no_sooner.take().map_or(growing, |at| growing.max(at - now));
            let error = Error::new(error.kind(), error.chain());
            state.failing = Some(Failing { error, times, until: now + pause });
            pause
        };
        self.common.heard.has_changed();
        pause
    }

    fn failures(&self) -> u32 {
        self.state().failing.as_ref().map_or(0, |failing| failing.times)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
