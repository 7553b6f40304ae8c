//! How many jobs of all forges there may be at once.

use super::settings::{ForgeSettings, Settings};

/// A job that is there, or is to be.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The name of its forge.
    pub forge: &'a str,
    /// The limit of its memory, in bytes.
    pub memory: Option<u64>,
}

impl Settings {
    /// Whether one more job of a forge fits beside those that are there. A runner that `waits` for whatever comes leaves room for a job of
    /// each other forge that has none: it is replaced as soon as it has ended, so that those would never get any.
    pub fn has_room(&self, there: &[Place<'_>], forge: &ForgeSettings, waits: bool) -> bool {
        let is_first =
            |other: &&ForgeSettings| other.name != forge.name && !there.iter().any(|place| place.forge == other.name);
        // Where not even one of each fits, somebody has to begin.
        let keeps = waits && self.fits(self.forges.iter().map(|forge| forge.limits.memory));
        let kept = self.forges.iter().filter(|_| keeps).filter(is_first).map(|other| other.limits.memory);
        self.fits(there.iter().map(|place| place.memory).chain([forge.limits.memory]).chain(kept))
    }

    /// Of how many jobs of a forge there may be runners, those that are there among them.
    pub fn room_of(&self, there: &[Place<'_>], forge: &ForgeSettings) -> usize {
        let mut jobs = there.iter().filter(|place| place.forge == forge.name).count();
        let mut all = there.to_vec();
        while jobs < forge.concurrency && self.has_room(&all, forge, false) {
            all.push(Place { forge: &forge.name, memory: forge.limits.memory });
            jobs += 1;
        }
        jobs.min(forge.concurrency)
    }

    fn fits(&self, memories: impl Iterator<Item = Option<u64>>) -> bool {
        let sum =
            |(jobs, bytes): (usize, u64), memory: Option<u64>| (jobs + 1, bytes.saturating_add(memory.unwrap_or(0)));
        let (jobs, bytes) = memories.fold((0, 0), sum);
        self.max_jobs.is_none_or(|max| jobs <= max) && self.max_memory.is_none_or(|max| bytes <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::job::JobLimits,
        supervisor::{forge::tests::settings, settings::Kind},
    };

    fn forge(name: &str) -> ForgeSettings {
        let limits = JobLimits { memory: Some(4), ..JobLimits::default() };
        ForgeSettings { name: name.to_owned(), limits, ..settings(Kind::Gitea, "http://192.0.2.2".to_owned()) }
    }

    fn of(max_jobs: Option<usize>, max_memory: Option<u64>) -> Settings {
        Settings { max_jobs, max_memory, forges: vec![forge("a"), forge("b")], ..Settings::default() }
    }

    fn places<'a>(forges: &[&'a str]) -> Vec<Place<'a>> {
        forges.iter().map(|forge| Place { forge, memory: Some(4) }).collect()
    }

    #[test]
    fn a_job_takes_whatever_room_there_is() {
        for settings in [of(Some(3), None), of(None, Some(12))] {
            assert!(settings.has_room(&places(&["a", "a"]), &forge("a"), false));
            assert!(!settings.has_room(&places(&["a", "a", "a"]), &forge("b"), false));
        }
        assert!(of(None, None).has_room(&places(&["a"; 9]), &forge("a"), false));
    }

    #[test]
    fn a_forge_has_the_room_that_others_leave_it() {
        let four = ForgeSettings { concurrency: 4, ..forge("a") };
        for settings in [of(Some(3), None), of(None, Some(12))] {
            assert_eq!(settings.room_of(&[], &four), 3);
            assert_eq!(settings.room_of(&places(&["a", "b"]), &four), 2);
            assert_eq!(settings.room_of(&places(&["b", "b", "b"]), &four), 0);
        }
        assert_eq!(of(None, None).room_of(&places(&["b"; 9]), &four), 4);
    }

    #[test]
    fn a_runner_that_waits_leaves_room_for_a_job_of_each_other_forge() {
        for settings in [of(Some(3), None), of(None, Some(12))] {
            assert!(settings.has_room(&places(&["a"]), &forge("a"), true));
            assert!(!settings.has_room(&places(&["a", "a"]), &forge("a"), true));
            assert!(settings.has_room(&places(&["a", "b"]), &forge("a"), true), "it has one");
        }
        assert!(
            of(Some(1), None).has_room(&[], &forge("a"), true),
            "where there is room for one alone, it is anybody's"
        );
    }
}
