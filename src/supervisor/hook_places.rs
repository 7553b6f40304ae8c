//! Where webhooks of ours were made, kept on disk: they are removed there also when that place is configured no more.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::settings::ForgeSettings;
use crate::{
    engine::records::RecordFolder,
    model::{Error, Result, error::Context, record::Record, reference::Digest},
};

/// A place that may have one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HookPlace {
    /// The forge, by its name in the configuration.
    pub forge: String,
    /// The server.
    pub url: String,
    /// What of its API comes before `/hooks`.
    pub place: String,
}

impl Record for HookPlace {
    const KIND: &'static str = "place of webhooks";
}

impl HookPlace {
    /// That of a forge.
    pub fn of(settings: &ForgeSettings, place: &str) -> Self {
        Self { forge: settings.name.clone(), url: settings.url.clone(), place: place.to_owned() }
    }

    /// Whether it is at the server of one of these forges, by whose token it can be asked for.
    pub fn is_within_reach(&self, forges: &[ForgeSettings]) -> bool {
        forges.iter().any(|forge| forge.url == self.url)
    }

    /// Whether a forge looks after it: that which has made it, or one of the same server if that is configured no more.
    pub fn is_of(&self, forge: &ForgeSettings, all: &[ForgeSettings]) -> bool {
        let has_its_name = |forge: &ForgeSettings| forge.name == self.forge && forge.url == self.url;
        forge.url == self.url && (has_its_name(forge) || !all.iter().any(has_its_name))
    }

    fn id(&self) -> String {
        let digest = Digest::of(format!("{}\0{}\0{}", self.forge, self.url, self.place).as_bytes());
        digest.hex()[..32].to_owned()
    }
}

/// All of them.
pub struct HookPlaces {
    records: RecordFolder,
    known: Mutex<BTreeSet<HookPlace>>,
}

impl HookPlaces {
    /// Those below `data_root`.
    pub fn open(data_root: &Path) -> Result<Self> {
        let records = RecordFolder::open(data_root, "webhooks")?;
        let known = Mutex::new(records.read::<HookPlace>()?.into_iter().collect());
        Ok(Self { records, known })
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<HookPlace>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those for which something holds.
    pub fn all(&self, is_meant: impl Fn(&HookPlace) -> bool) -> Vec<HookPlace> {
        self.known().iter().filter(|place| is_meant(place)).cloned().collect()
    }

    /// One is about to be made there.
    pub fn note(&self, place: HookPlace) -> Result<()> {
        let mut known = self.known();
        if !known.contains(&place) {
            self.records.write(&place.id(), &place).context("noting where a webhook is made")?;
            known.insert(place);
        }
        Ok(())
    }

    /// None is there any more.
    pub fn forget(&self, place: &HookPlace) -> Result<()> {
        let mut known = self.known();
        self.records.forget(&place.id()).context("forgetting where a webhook was made")?;
        known.remove(place);
        Ok(())
    }

    /// Forgets these. An error names those that there were: what leads to `mark` stays there.
    pub fn forget_all(&self, mark: &str, which: impl Fn(&HookPlace) -> bool) -> Result<()> {
        let left = self.all(which);
        for place in &left {
            self.forget(place)?;
        }
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = left.iter().map(|left| format!("{} at {}", left.place, left.url)).collect();
        Err(Error::unavailable(format!(
            "webhooks that lead to …{mark} cannot be removed: look for them by hand, of {}",
            names.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_known_in_the_next_life_until_nothing_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let of =
            |place: &str| HookPlace { forge: "lab".to_owned(), url: "http://f".to_owned(), place: place.to_owned() };
        let places = HookPlaces::open(folder.path()).unwrap();
        for place in ["orgs/a", "repos/a/b", "orgs/a"] {
            places.note(of(place)).unwrap();
        }
        let next = HookPlaces::open(folder.path()).unwrap();
        assert_eq!(next.all(|_| true), [of("orgs/a"), of("repos/a/b")]);
        next.forget(&of("orgs/a")).unwrap();
        next.forget(&of("orgs/none")).unwrap();
        assert!(next.forget_all("?by=x", |place| place.place == "orgs/none").is_ok());
        assert_eq!(HookPlaces::open(folder.path()).unwrap().all(|place| place.forge == "lab"), [of("repos/a/b")]);
    }

    #[test]
    fn what_nobody_can_remove_is_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let places = HookPlaces::open(folder.path()).unwrap();
        let place = HookPlace { forge: "old".to_owned(), url: "http://f".to_owned(), place: "orgs/a".to_owned() };
        places.note(place).unwrap();
        let forget = || places.forget_all("?by=ringer-1", |place| place.forge == "old");
        let told = forget().unwrap_err().chain();
        assert!(told.contains("?by=ringer-1") && told.contains("orgs/a at http://f"), "{told}");
        assert!(forget().is_ok());
    }
}
