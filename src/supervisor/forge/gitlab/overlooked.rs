//! Jobs that a runner was waiting for and was not given: GitLab shows them as pending, and keeps them for other runners (a protected branch,
//! a project that the runner may not serve any more), without saying so in a list. A runner is launched for such a one seldom.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::supervisor::pauses::growing;

/// How long a runner has to have waited beside a job: less than it waits, more than the moment in which another runner is quicker.
const WAITED: Duration = Duration::from_secs(240);

/// Until a runner is launched for a job that one was not given: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(3600));

/// What runners wait beside.
#[derive(Default)]
pub struct Overlooked {
    /// By the slot.
    waiting: BTreeMap<String, Waiting>,
    held: BTreeMap<i64, Held>,
}

/// A runner without a job.
struct Waiting {
    since: Instant,
    /// Jobs that were pending at each look since; `None` before the first.
    beside: Option<BTreeSet<i64>>,
}

#[derive(Clone, Copy)]
struct Held {
    times: u32,
    until: Instant,
}

impl Overlooked {
    /// A runner begins to wait in a slot.
    pub fn begins(&mut self, slot: &str, now: Instant) {
        self.waiting.insert(slot.to_owned(), Waiting { since: now, beside: None });
    }

    /// A look has seen these jobs pending, and that the runners in these slots have jobs.
    pub fn saw<'s>(&mut self, pending: &BTreeSet<i64>, busy: impl Iterator<Item = &'s str>) {
        for slot in busy {
            self.waiting.remove(slot);
        }
        for waiting in self.waiting.values_mut() {
            match &mut waiting.beside {
                Some(beside) => beside.retain(|job| pending.contains(job)),
                None => waiting.beside = Some(pending.clone()),
            }
        }
        self.held.retain(|job, _| pending.contains(job));
    }

    /// The runner of a slot has ended. The jobs that it was not given, if it has had none, each with the time for which it is left alone.
    pub fn ends(&mut self, slot: &str, now: Instant) -> Vec<(i64, Duration)> {
        let Some(waiting) = self.waiting.remove(slot) else { return Vec::new() };
        if now.duration_since(waiting.since) < WAITED {
            return Vec::new();
        }
        let beside: Vec<i64> = waiting.beside.into_iter().flatten().filter(|job| !self.is_held(*job, now)).collect();
        beside.into_iter().map(|job| (job, self.hold(job, now))).collect()
    }

    fn hold(&mut self, job: i64, now: Instant) -> Duration {
        let times = self.held.get(&job).map_or(0, |held| held.times) + 1;
        let pause = growing(PAUSES, times);
        self.held.insert(job, Held { times, until: now + pause });
        pause
    }

    /// Whether no runner is to be launched for a job.
    pub fn is_held(&self, job: i64, now: Instant) -> bool {
        self.held.get(&job).is_some_and(|held| held.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn see(overlooked: &mut Overlooked, pending: &[i64], busy: &[&str]) {
        overlooked.saw(&pending.iter().copied().collect(), busy.iter().copied());
    }

    #[test]
    fn a_job_that_a_runner_was_not_given_is_left_alone_longer_each_time() {
        let (mut overlooked, mut now) = (Overlooked::default(), Instant::now());
        for minutes in [10, 20, 40, 60, 60] {
            overlooked.begins("a", now);
            see(&mut overlooked, &[1, 2], &[]);
            see(&mut overlooked, &[1, 3], &[]);
            now += 5 * MINUTE;
            assert_eq!(overlooked.ends("a", now), [(1, minutes * MINUTE)], "2 is taken, 3 came later");
            assert!(overlooked.is_held(1, now) && !overlooked.is_held(3, now));
            now += minutes * MINUTE;
            assert!(!overlooked.is_held(1, now));
        }
    }

    #[test]
    fn a_runner_that_has_a_job_or_dies_early_says_nothing_of_others() {
        let (mut overlooked, now) = (Overlooked::default(), Instant::now());
        for slot in ["busy", "dead"] {
            overlooked.begins(slot, now);
        }
        see(&mut overlooked, &[1], &["busy"]);
        assert!(overlooked.ends("dead", now + MINUTE).is_empty());
        assert!(overlooked.ends("busy", now + 5 * MINUTE).is_empty());
        assert!(overlooked.ends("never seen", now).is_empty());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut overlooked, now) = (Overlooked::default(), Instant::now());
        overlooked.begins("a", now);
        see(&mut overlooked, &[1], &[]);
        assert_eq!(overlooked.ends("a", now + 5 * MINUTE).len(), 1);
        see(&mut overlooked, &[], &[]);
        assert!(!overlooked.is_held(1, now + 5 * MINUTE));
    }
}
