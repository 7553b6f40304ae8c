//! Slots: what a runner is told to be, so that GitLab counts as many of them as run at once and not one more for each job
//! (`.runner_system_id`, of which it makes a runner manager).

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
    /// Takes the first that is free, for a runner of this name.
    pub fn take(&self, name: &str) -> String {
        let mut taken = self.lock();
        let numbers = 0..=u16::MAX;
        let free = numbers.map(|number| system_id(name, number)).find(|slot| !taken.contains_key(slot));
        let slot = free.expect("there are not so many jobs at once");
        taken.insert(slot.clone(), Instant::now());
        slot
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

/// `r_` and twelve letters or digits is all that gitlab-runner takes (`system_id_state.go`): the instance's id, which the names of its
/// runners have after their first `-`, and the slot's number.
fn system_id(name: &str, number: u16) -> String {
    let instance: String =
        name.split('-').nth(1).unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    format!("r_{instance:0>8.8}{number:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_and_names_its_instance() {
        let slots = Slots::default();
        let take = || slots.take("ringer-0a1b2c3d-gitlab-00000000");
        assert_eq!((take(), take()), ("r_0a1b2c3d0000".to_owned(), "r_0a1b2c3d0001".to_owned()));
        slots.give_back("r_0a1b2c3d0000");
        slots.are_used(["r_0a1b2c3d0002"].into_iter());
        assert_eq!((take(), take()), ("r_0a1b2c3d0000".to_owned(), "r_0a1b2c3d0003".to_owned()));
    }
}
