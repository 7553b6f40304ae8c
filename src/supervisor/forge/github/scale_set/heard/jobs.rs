//! The jobs of one scale set, as far as it was told of them, and how many it is said to have.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::super::answers::Statistics;
use crate::{
    model::time::Timestamp,
    supervisor::{forge::QueuedJob, pauses::growing, record::ForgeJob},
};

/// Jobs that have not ended.
pub const OPEN: usize = 10_000;

/// How long a runner waits at least before it is said to have waited in vain.
const IN_VAIN: Duration = Duration::from_secs(60);

/// How long jobs are doubted of which nobody tells, after a runner has waited in vain for one: first, and at most.
const DOUBTS: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));

/// Those of a set.
#[derive(Default)]
pub struct Jobs {
    /// How many there are said to be.
    pub statistics: Option<Statistics>,
    /// Those that have not ended, by their id.
    pub open: BTreeMap<i64, Open>,
    /// Of the last message's jobs, those that wait: what is counted beside them may be of an earlier time.
    pub told: usize,
    /// Messages until now.
    pub messages: u64,
    /// Runners that were made of the set and are there, since when.
    pub runners: BTreeMap<String, Instant>,
    doubt: Doubt,
}

/// A job that has not ended.
pub struct Open {
    pub job: ForgeJob,
    pub since: Option<Timestamp>,
    pub runner: Option<String>,
}

/// Jobs that are counted are not always there (actions-runner-controller#4397), and a runner for one of them would be followed by the
/// next for ever.
#[derive(Default)]
struct Doubt {
    times: u32,
    until: Option<Instant>,
}

impl Jobs {
    /// How many wait, those of which nobody has told among them.
    pub fn waiting(&self) -> usize {
        let counted = |counted: Statistics| counted.total_assigned_jobs.saturating_sub(counted.total_running_jobs);
        let waiting = || self.open.values().filter(|open| open.runner.is_none()).count();
        self.statistics.map_or_else(waiting, counted).max(self.told)
    }

    /// How many there are, those that run among them.
    pub fn assigned(&self) -> usize {
        let running = self.open.values().filter(|open| open.runner.is_some()).count();
        self.statistics.map_or(running + self.waiting(), |counted| counted.total_assigned_jobs.max(self.told))
    }

    /// What was told while nobody listened is not told again.
    pub fn count(&mut self, statistics: Option<Statistics>) {
        self.statistics = statistics.or(self.statistics);
        if statistics.is_some_and(|counted| counted.total_assigned_jobs == 0) {
            self.open.clear();
        }
    }

    /// Those that wait; of which nobody has told have no name.
    pub fn queued(&self, scope: &str, now: Instant) -> Vec<QueuedJob> {
        let of = |open: &Open| QueuedJob { job: open.job.clone(), labels: Vec::new(), handle: None, since: open.since };
        let told = self.open.values().filter(|open| open.runner.is_none());
        let mut queued: Vec<QueuedJob> = told.map(of).take(self.waiting()).collect();
        let wanted = if self.doubt.holds(now) { queued.len() } else { self.waiting().min(OPEN) };
        queued.extend((queued.len()..wanted).map(|number| nameless(scope, number)));
        queued
    }

    /// Whether there are said to be some of which nobody has told.
    fn has_nameless(&self) -> bool {
        self.waiting() > self.open.values().filter(|open| open.runner.is_none()).count()
    }

    /// A runner is not there any more. For how long nothing is launched for jobs of which nobody tells, if it has waited for one in vain.
    pub fn runner_is_gone(&mut self, runner: &str, had_a_job: bool, now: Instant) -> Option<Duration> {
        let since = self.runners.remove(runner)?;
        if !self.has_nameless() {
            self.doubt = Doubt::default();
        }
        let was_in_vain = !had_a_job && now.duration_since(since) >= IN_VAIN && self.has_nameless();
        (was_in_vain && !self.doubt.holds(now)).then(|| self.doubt.grow(now))
    }

    /// A job has begun of which nobody had told: what is counted is there.
    pub fn nameless_has_begun(&mut self) {
        self.doubt = Doubt::default();
    }
}

impl Doubt {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    fn grow(&mut self, now: Instant) -> Duration {
        self.times += 1;
        let pause = growing(DOUBTS, self.times);
        self.until = Some(now + pause);
        pause
    }
}

/// A job that is counted and of which no message tells.
fn nameless(scope: &str, number: usize) -> QueuedJob {
    let repository = scope.split_once('/').map_or(scope, |(_, name)| name).to_owned();
    let job = ForgeJob {
        id: -1 - i64::try_from(number).unwrap_or(0),
        run: None,
        task: None,
        is_heard: false,
        url: String::new(),
        name: "(assigned before ringer listened)".to_owned(),
        repository,
    };
    QueuedJob { job, labels: Vec::new(), handle: None, since: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(assigned: usize) -> Jobs {
        let mut jobs = Jobs::default();
        jobs.count(Some(Statistics { total_assigned_jobs: assigned, ..Statistics::default() }));
        jobs
    }

    #[test]
    fn a_count_that_stays_too_high_launches_ever_more_rarely() {
        let (mut jobs, mut now) = (counting(1), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(jobs.queued("orgs/acme", now).len(), 1);
            jobs.runners.insert("r".to_owned(), now);
            now += IN_VAIN;
            let pause = jobs.runner_is_gone("r", false, now).expect("it waited in vain");
            assert!(jobs.queued("orgs/acme", now + pause / 2).is_empty());
            now += pause;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [300, 600, 1200, 2400, 3600, 3600]);
    }

    #[test]
    fn what_is_counted_is_believed_of_runners_that_had_jobs_or_no_time() {
        let (mut jobs, begun) = (counting(1), Instant::now());
        let ends = |jobs: &mut Jobs, had_a_job: bool, after: Duration| {
            jobs.runners.insert("r".to_owned(), begun);
            jobs.runner_is_gone("r", had_a_job, begun + after)
        };
        assert_eq!(ends(&mut jobs, true, IN_VAIN), None);
        assert_eq!(ends(&mut jobs, false, IN_VAIN / 2), None, "it was drained");
        assert_eq!(jobs.runner_is_gone("r", false, begun + IN_VAIN), None, "it was gone");
        assert!(ends(&mut jobs, false, IN_VAIN).is_some());
        assert!(jobs.queued("orgs/acme", begun + IN_VAIN).is_empty());
        jobs.nameless_has_begun();
        assert_eq!(jobs.queued("orgs/acme", begun + IN_VAIN).len(), 1);
        let mut none = counting(0);
        assert_eq!(ends(&mut none, false, IN_VAIN), None, "nothing was counted");
    }
}
