//! Scale sets that we have made at GitHub, kept on disk: the next life finds them, and ends the session of one that was killed.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    forge::http::segments,
    settings::{ForgeSettings, Kind},
};
use crate::{
    engine::records::RecordFolder,
    model::{Error, Result, error::Context, record::Record, reference::Digest},
};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSet {
    /// The forge, by its name in the configuration.
    pub forge: String,
    /// The server.
    pub url: String,
    /// `orgs/NAME` or `repos/OWNER/NAME`.
    pub scope: String,
    /// What it is called there.
    pub name: String,
    /// GitHub's number of it.
    pub id: i64,
    /// The session that we have, if we do.
    pub session: Option<String>,
}

impl Record for KeptSet {
    const KIND: &'static str = "scale set";
}

impl KeptSet {
    /// A forge has one at a place.
    fn key(forge: &str, url: &str, scope: &str) -> String {
        let digest = Digest::of(format!("{forge}\0{url}\0{}", scope.to_lowercase()).as_bytes());
        digest.hex()[..32].to_owned()
    }

    /// Whether a forge looks after it.
    fn is_of(&self, forge: &ForgeSettings) -> bool {
        self.is_within_reach(forge) && scopes(forge).iter().any(|scope| scope.eq_ignore_ascii_case(&self.scope))
    }

    /// Whether a forge may remove it, be it at a place that is its own no more.
    fn is_within_reach(&self, forge: &ForgeSettings) -> bool {
        let has_sets = matches!(&forge.kind, Kind::Github(github) if github.scale_sets.is_some());
        has_sets && forge.name == self.forge && forge.url == self.url
    }
}

impl Display for KeptSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) at {}/{}", self.name, self.id, self.url, self.scope)
    }
}

/// Where a forge has scale sets: at the organisation, or at each repository that is named.
pub fn scopes(forge: &ForgeSettings) -> Vec<String> {
    match &forge.repositories {
        Some(names) => names.iter().map(|name| format!("repos/{}", segments(name))).collect(),
        None => forge.owner.iter().map(|org| format!("orgs/{}", segments(org))).collect(),
    }
}

/// All of them.
pub struct KeptSets {
    records: RecordFolder,
    known: Mutex<BTreeMap<String, KeptSet>>,
}

impl KeptSets {
    /// Those below `data_root`.
    pub fn open(data_root: &Path) -> Result<Self> {
        let records = RecordFolder::open(data_root, "scale-sets")?;
        let known = records
            .read::<KeptSet>()?
            .into_iter()
            .map(|set| (KeptSet::key(&set.forge, &set.url, &set.scope), set))
            .collect();
        Ok(Self { records, known: Mutex::new(known) })
    }

    /// That of a forge at a place.
    pub fn get(&self, forge: &ForgeSettings, scope: &str) -> Option<KeptSet> {
        self.known().get(&KeptSet::key(&forge.name, &forge.url, scope)).cloned()
    }

    /// Stores one. What is known in memory is right also when the disk is full.
    pub fn keep(&self, set: KeptSet) -> Result<()> {
        let (key, mut known) = (KeptSet::key(&set.forge, &set.url, &set.scope), self.known());
        let stored = self.records.write(&key, &set).context("noting a scale set");
        known.insert(key, set);
        stored
    }

    /// That of a forge at a place is not there any more.
    pub fn forget(&self, forge: &ForgeSettings, scope: &str) -> Result<()> {
        self.forget_key(&KeptSet::key(&forge.name, &forge.url, scope))
    }

    fn forget_key(&self, key: &str) -> Result<()> {
        let mut known = self.known();
        self.records.forget(key).context("forgetting a scale set")?;
        known.remove(key);
        Ok(())
    }

    /// Those that none of these forges looks after.
    pub fn others(&self, forges: &[ForgeSettings]) -> Vec<KeptSet> {
        let is_anybodys = |set: &&KeptSet| forges.iter().any(|forge| set.is_of(forge));
        self.known().values().filter(|set| !is_anybodys(set)).cloned().collect()
    }

    /// Where a forge has left sets that it may remove.
    pub fn left_by(&self, forge: &ForgeSettings) -> Vec<String> {
        let left = self.others(std::slice::from_ref(forge)).into_iter().filter(|set| set.is_within_reach(forge));
        left.map(|set| set.scope).collect()
    }

    /// Forgets those that none of these forges looks after. An error names those that there were: they stay at their server.
    pub fn forget_others(&self, forges: &[ForgeSettings]) -> Result<()> {
        let mut names = Vec::new();
        for set in self.others(forges) {
            self.forget_key(&KeptSet::key(&set.forge, &set.url, &set.scope))?;
            names.push(set.to_string());
        }
        if names.is_empty() {
            return Ok(());
        }
        let names = names.join(", ");
        Err(Error::unavailable(format!(
            "no forge that is configured looks after these scale sets: remove them by hand: {names}"
        )))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, KeptSet>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{
        forge::tests::settings,
        settings::{Discovery, Github, GithubSets},
    };

    fn forge(scale_sets: Option<GithubSets>) -> ForgeSettings {
        let github = Github { api: String::new(), group: None, discovery: Discovery::Poll, scale_sets };
        settings(Kind::Github(github), "https://github.com".to_owned())
    }

    #[test]
    fn a_set_is_known_in_the_next_life_until_it_is_gone_or_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let mut forge_with_sets = forge(Some(GithubSets { name: None }));
        forge_with_sets.repositories = Some(["acme/tool".to_owned()].into());
        let set = KeptSet {
            forge: forge_with_sets.name.clone(),
            url: forge_with_sets.url.clone(),
            scope: "repos/Acme/tool".to_owned(),
            name: "linux-ci".to_owned(),
            id: 7,
            session: Some("s".to_owned()),
        };
        KeptSets::open(folder.path()).unwrap().keep(set.clone()).unwrap();
        let next = KeptSets::open(folder.path()).unwrap();
        assert_eq!(
            next.get(&forge_with_sets, "repos/acme/tool"),
            Some(set.clone()),
            "letters' case is none of a place's"
        );
        assert!(next.forget_others(std::slice::from_ref(&forge_with_sets)).is_ok());
        let told = next.forget_others(&[forge(None)]).unwrap_err().chain();
        assert!(told.contains("linux-ci (7) at https://github.com/repos/Acme/tool"), "{told}");
        next.keep(set).unwrap();
        next.forget(&forge_with_sets, "repos/acme/tool").unwrap();
        assert!(next.forget_others(&[]).is_ok() && KeptSets::open(folder.path()).unwrap().known().is_empty());
    }
    #[test]
    fn a_set_at_a_place_that_is_configured_no_more_is_left_and_within_reach() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptSets::open(folder.path()).unwrap();
        let mut forge = forge(Some(GithubSets { name: None }));
        let at = |scope: &str| KeptSet {
            forge: forge.name.clone(),
            url: forge.url.clone(),
            scope: scope.to_owned(),
            name: "linux-ci".to_owned(),
            id: 7,
            session: None,
        };
        for scope in ["repos/acme/tool", "repos/acme/other", "orgs/acme"] {
            kept.keep(at(scope)).unwrap();
        }
        forge.repositories = Some(["acme/Tool".to_owned()].into());
        let mut left = kept.left_by(&forge);
        left.sort();
        assert_eq!(left, ["orgs/acme", "repos/acme/other"]);
        let elsewhere = ForgeSettings { name: "another".to_owned(), ..forge.clone() };
        assert!(kept.left_by(&elsewhere).is_empty());
        assert_eq!(kept.others(&[elsewhere, forge.clone()]).len(), 2);
        let told = kept.forget_others(std::slice::from_ref(&forge)).unwrap_err().chain();
        assert!(told.contains("linux-ci (7) at https://github.com/orgs/acme"), "{told}");
        assert!(kept.others(std::slice::from_ref(&forge)).is_empty() && kept.get(&forge, "repos/acme/tool").is_some());
    }
}
