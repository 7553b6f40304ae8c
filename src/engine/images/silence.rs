//! A containerd that does not answer is waited for once, not by each question of many.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// For how long it is not asked again: a list asks for hundreds of things.
const LENGTH: Duration = Duration::from_secs(5);

/// Since somebody waited for containerd in vain.
#[derive(Default)]
pub(super) struct Silence(Mutex<Option<Instant>>);

impl Silence {
    /// Whether somebody did just now.
    pub(super) fn is_now(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    /// Somebody did.
    pub(super) fn begin(&self) {
        *self.until() = Some(Instant::now() + LENGTH);
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
