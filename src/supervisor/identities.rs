//! Who runners are that register with a registration token: it makes registrations and takes none back, so each is kept on disk until its
//! forge has dropped it, and the next runner is the same to the forge.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{record::ForgeJob, secret::Secret};
use crate::{
    engine::records::RecordFolder,
    model::{Error, Result, error::Context, record::Record},
};

/// Their folder below the data root.
pub const FOLDER: &str = "registrations";

/// What a forge knows a runner as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name that it was registered by.
    pub name: String,
    /// The forge that it was registered for, by its name in the configuration.
    #[serde(default)]
    pub forge: String,
    /// The server.
    pub url: String,
    /// Where its jobs come from: a digest of the server and of what it was registered with.
    pub place: String,
    /// The forge's number of it.
    pub id: i64,
    /// By which it says who it is.
    pub uuid: String,
    /// By which it shows that.
    pub token: Secret,
    /// Whether the forge drops it after one job.
    pub is_ephemeral: bool,
    /// The job that it has.
    pub job: Option<ForgeJob>,
    /// How that has ended, where that is known already.
    pub outcome: Option<String>,
    /// Its runner was told that the forge does not know it.
    pub is_dropped: bool,
}

impl Record for Identity {
    const KIND: &'static str = "runner registration";
}

/// All that are kept.
pub struct Identities {
    records: RecordFolder,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By their names, as they are on disk.
    all: BTreeMap<String, Identity>,
    /// The names of those that runners are.
    taken: BTreeSet<String>,
}

impl Identities {
    /// Those below `data_root`, in a folder that only root reads.
    pub fn open(data_root: &Path) -> Result<Self> {
        let records = RecordFolder::open(data_root, FOLDER)?;
        let all = records.read::<Identity>()?.into_iter().map(|identity| (identity.name.clone(), identity)).collect();
        Ok(Self { records, known: Mutex::new(Known { all, taken: BTreeSet::new() }) })
    }

    /// Those of a place.
    pub fn of(&self, place: &str) -> Vec<Identity> {
        self.known().all.values().filter(|identity| identity.place == place).cloned().collect()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Identity> {
        self.known().all.values().cloned().collect()
    }

    /// The one of a name.
    pub fn named(&self, name: &str) -> Option<Identity> {
        self.known().all.get(name).cloned()
    }

    /// The one that has a job of a server.
    pub fn with_job(&self, url: &str, job: &ForgeJob) -> Option<Identity> {
        let has_it =
            |identity: &&Identity| identity.url == url && identity.job.as_ref().is_some_and(|its| its.task == job.task);
        self.known().all.values().find(has_it).cloned()
    }

    /// Stores a new one.
    pub fn keep(&self, identity: Identity) -> Result<()> {
        let mut known = self.known();
        self.records.write(&identity.name, &identity).context(format!("storing the registration {}", identity.name))?;
        known.all.insert(identity.name.clone(), identity);
        Ok(())
    }

    /// Changes one, if it is there. What is known in memory is right also when the disk is full.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Identity)) {
        let mut known = self.known();
        let Some(identity) = known.all.get_mut(name) else { return };
        change(identity);
        if let Err(error) = self.records.write(name, identity) {
            warn!("storing the registration {name}: {error}");
        }
    }

    /// Takes one of a place that no runner is, for one that is to be started.
    pub fn take(&self, place: &str) -> Option<Identity> {
        let Known { all, taken } = &mut *self.known();
        let free = all.values().find(|identity| identity.place == place && !taken.contains(&identity.name))?;
        taken.insert(free.name.clone());
        Some(free.clone())
    }

    /// Runners are these.
    pub fn are_taken<'n>(&self, names: impl Iterator<Item = &'n str>) {
        self.known().taken.extend(names.map(ToOwned::to_owned));
    }

    /// Whether a runner is this one.
    pub fn is_taken(&self, name: &str) -> bool {
        self.known().taken.contains(name)
    }

    /// No runner is this one any more.
    pub fn give_back(&self, name: &str) {
        self.known().taken.remove(name);
    }

    /// Forgets one.
    pub fn forget(&self, name: &str) -> Result<()> {
        let mut known = self.known();
        self.records.forget(name).context(format!("forgetting the registration {name}"))?;
        known.all.remove(name);
        Ok(())
    }

    /// Forgets these. An error names those that there were: they stay at their server.
    pub fn forget_all(&self, which: impl Fn(&Identity) -> bool) -> Result<()> {
        let left: Vec<Identity> = self.all().into_iter().filter(which).collect();
        for identity in &left {
            self.forget(&identity.name)?;
        }
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = left.iter().map(|identity| format!("{} at {}", identity.name, identity.url)).collect();
        Err(Error::unavailable(format!(
            "a registration token takes none back: remove these runners by hand: {}",
            names.join(", ")
        )))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, forge: &str, place: &str) -> Identity {
        Identity {
            name: name.to_owned(),
            forge: forge.to_owned(),
            url: "http://f:3000".to_owned(),
            place: place.to_owned(),
            id: 1,
            uuid: "u".to_owned(),
            token: Secret::new("t"),
            is_ephemeral: false,
            job: None,
            outcome: None,
            is_dropped: false,
        }
    }

    #[test]
    fn what_is_forgotten_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let identities = Identities::open(folder.path()).unwrap();
        for (name, forge) in [("ringer-12345678-old-abcdef01", "old"), ("ringer-12345678-new-abcdef01", "new")] {
            identities.keep(identity(name, forge, "here")).unwrap();
        }
        let forget = || identities.forget_all(|identity| identity.forge == "old");
        let told = forget().unwrap_err().chain();
        assert!(told.contains("ringer-12345678-old-abcdef01 at http://f:3000") && !told.contains("-new-"), "{told}");
        assert!(forget().is_ok());
        assert_eq!(identities.all().len(), 1);
    }

    #[test]
    fn a_registration_is_one_runners_at_a_time_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let identities = Identities::open(folder.path()).unwrap();
        for (name, place) in [("a", "here"), ("b", "here"), ("c", "there")] {
            identities.keep(identity(name, "lab", place)).unwrap();
        }
        let take = |identities: &Identities| identities.take("here").map(|identity| identity.name);
        identities.are_taken(["a"].into_iter());
        assert_eq!((take(&identities), take(&identities)), (Some("b".to_owned()), None));
        identities.give_back("a");
        assert_eq!(take(&identities), Some("a".to_owned()));
        identities.forget("a").unwrap();
        identities.forget("a").unwrap();
        let next_life = Identities::open(folder.path()).unwrap();
        assert_eq!((take(&next_life), take(&next_life)), (Some("b".to_owned()), None));
    }
}
