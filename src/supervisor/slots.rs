//! Slots: names of which each is one runner's at a time, and the next one's after it, where a forge counts whoever it has ever seen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a slot is kept for a launch that no look has named: it is stored within moments, or never.
const KEPT: Duration = Duration::from_secs(300);

/// Those of a forge that are taken, and when they were last heard of.
#[derive(Default)]
pub struct Slots(Mutex<BTreeMap<String, Instant>>);

impl Slots {
    /// Takes the first of these that is free.
    pub fn take(&self, mut slots: impl Iterator<Item = String>) -> Option<String> {
        let mut taken = self.lock();
        let free = slots.find(|slot| !taken.contains_key(slot))?;
        taken.insert(free.clone(), Instant::now());
        Some(free)
    }

    /// These are in use; what nobody has named for long is free.
    pub fn are_used<'s>(&self, used: impl Iterator<Item = &'s str>) {
        let (mut taken, now) = (self.lock(), Instant::now());
        taken.extend(used.map(|slot| (slot.to_owned(), now)));
        taken.retain(|_, heard| now.duration_since(*heard) < KEPT);
    }

    /// It is free.
    pub fn give_back(&self, slot: &str) {
        self.lock().remove(slot);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_one_runners_at_a_time() {
        let slots = Slots::default();
        let take = || slots.take(["a", "b", "c"].map(ToOwned::to_owned).into_iter());
        assert_eq!((take().as_deref(), take().as_deref()), (Some("a"), Some("b")));
        slots.give_back("a");
        slots.are_used(["c"].into_iter());
        assert_eq!((take().as_deref(), take()), (Some("a"), None));
    }
}
