//! How many runners of which kind are missing. Forges hand a job to any runner whose labels cover it, so runners are counted by
//! kind, never launched for one job.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What a runner takes, and what a job needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Class {
    /// The labels that a runner has, or a job asks for.
    pub labels: BTreeSet<String>,
    /// The one repository whose jobs a runner can take; for a job, the one that its runner has to be limited to.
    pub repository: Option<String>,
    /// The one job that a runner can take, where the forge lets us choose.
    #[serde(default)]
    pub handle: Option<String>,
}

impl Class {
    /// The class of whatever is launched in the same way.
    pub fn without_handle(&self) -> Self {
        Self { handle: None, ..self.clone() }
    }

    /// What it takes, for people.
    pub fn words(&self) -> String {
        if self.labels.is_empty() {
            return "whatever comes".to_owned();
        }
        self.labels.iter().cloned().collect::<Vec<_>>().join(", ")
    }

    /// Whether a runner of this class may be handed a job of that one.
    fn takes(&self, job: &Self) -> bool {
        self.labels.is_superset(&job.labels) && self.repository == job.repository && self.handle == job.handle
    }
}

/// The classes of runners that are missing, one entry per runner, in the order of the jobs. Runners that wait for a job take one each.
pub fn missing(jobs: &[Class], waiting: &[Class]) -> Vec<Class> {
    let mut waiting: Vec<&Class> = waiting.iter().collect();
    // The one that can do the least first: the others may be needed by jobs that ask for more.
    waiting.sort_by_key(|class| class.labels.len());
    let mut missing = Vec::new();
    for job in jobs {
        match waiting.iter().position(|class| class.takes(job)) {
            Some(taken) => drop(waiting.remove(taken)),
            None => missing.push(job.clone()),
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(labels: &[&str]) -> Class {
        Class { labels: labels.iter().map(|&label| label.to_owned()).collect(), ..Class::default() }
    }

    fn of(repository: &str, labels: &[&str]) -> Class {
        Class { repository: Some(repository.to_owned()), ..class(labels) }
    }

    #[test]
    fn a_runner_that_waits_stands_for_one_job() {
        let (linux, big) = (class(&["linux"]), class(&["big", "linux"]));
        let jobs = [linux.clone(), linux.clone(), big.clone()];
        assert_eq!(missing(&jobs, &[]), jobs);
        assert_eq!(missing(&jobs, std::slice::from_ref(&linux)), [linux.clone(), big.clone()]);
        assert_eq!(missing(&jobs, &[big.clone(), linux.clone(), linux.clone()]), []);
        assert_eq!(missing(&[linux], std::slice::from_ref(&big)), [], "one that can do more does it");
        assert_eq!(missing(&[], &[big]), []);
    }

    #[test]
    fn a_runner_of_a_repository_takes_no_other_repositorys_jobs() {
        let jobs = [of("a/b", &["linux"]), of("c/d", &["linux"])];
        assert_eq!(missing(&jobs, &jobs[..1]), jobs[1..]);
        assert_eq!(missing(&jobs, &[class(&["linux"])]), jobs, "and what is a repository's is not left to any runner");
    }
}
