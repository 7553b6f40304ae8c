//! Caches of BuildKit that outlive jobs: what the builds of a job leave there, the next one with the same key finds. One is lent to one
//! job at a time, since all who reach a builder share what it has: a job whose key's are all lent gets a new one, and of those that
//! are there the last used. What no job has used for long goes, and of the rest the longest unused when all together take too much room.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    engine::{
        Engine,
        jobs::{
            KeptCache,
            caches::{Unused, too_old_or_too_much},
        },
        records::RecordFolder,
    },
    model::{
        Result,
        error::Context,
        id::TenantId,
        job::{CacheVolume, JobRecord},
        record::Record,
        time::Timestamp,
    },
};

/// One as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BuildCacheRecord {
    id: TenantId,
    key: String,
    /// When a job last began or ended to use it.
    used: Timestamp,
    /// What it took of the disk when a job last gave it back.
    bytes: u64,
    /// It is being removed, and nobody gets it any more.
    is_over: bool,
}

impl Record for BuildCacheRecord {
    const KIND: &'static str = "build cache";
}

/// All of them.
pub struct BuildCacheStore {
    records: RecordFolder,
    known: Mutex<BTreeMap<TenantId, BuildCacheRecord>>,
    /// Held while one is chosen for a job, until its record says so, and while one is taken out of use.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl BuildCacheStore {
    /// Reads what is below `data_root`.
    pub fn open(data_root: &Path) -> Result<Self> {
        let records = RecordFolder::open(data_root, "build-caches")?;
        let known = records.read::<BuildCacheRecord>()?.into_iter().map(|record| (record.id.clone(), record));
        Ok(Self { known: Mutex::new(known.collect()), records, changing: tokio::sync::Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TenantId, BuildCacheRecord>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, record: BuildCacheRecord) -> Result<()> {
        self.records.write(record.id.as_str(), &record).context("storing the record of a build cache")?;
        self.known().insert(record.id.clone(), record);
        Ok(())
    }

    /// The warmest of a key that no job has, or a new one.
    fn choose(&self, key: &str, in_use: &BTreeSet<TenantId>) -> Result<TenantId> {
        let is_free = |record: &&BuildCacheRecord| record.key == key && !record.is_over && !in_use.contains(&record.id);
        let free = self.known().values().filter(is_free).max_by_key(|record| record.used).cloned();
        let new = || BuildCacheRecord {
            id: TenantId::of_build_cache(),
            key: key.to_owned(),
            used: Timestamp::now(),
            bytes: 0,
            is_over: false,
        };
        let record = free.unwrap_or_else(new);
        let id = record.id.clone();
        self.store(BuildCacheRecord { used: Timestamp::now(), ..record })?;
        Ok(id)
    }

    /// Notes that a job has given one back.
    fn is_back(&self, id: &TenantId, bytes: u64) -> Result<()> {
        let record = self.known().get(id).cloned();
        record.map_or(Ok(()), |record| self.store(BuildCacheRecord { used: Timestamp::now(), bytes, ..record }))
    }

    fn forget(&self, id: &TenantId) -> Result<()> {
        self.records.forget(id.as_str()).context("removing its record")?;
        self.known().remove(id);
        Ok(())
    }
}

impl Engine {
    /// The build cache for a job that is about to be made; `None` is one that goes with it. A job that may only read the caches that it
    /// names leaves nothing to later ones here either.
    pub(super) fn choose_build_cache(&self, key: Option<&str>, volumes: &[CacheVolume]) -> Result<Option<TenantId>> {
        let leaves_something = volumes.is_empty() || volumes.iter().any(|volume| !volume.is_read_only);
        let key = key.filter(|_| leaves_something && self.backends.builders.is_here());
        key.map(|key| self.build_caches.choose(key, &self.build_caches_of_jobs())).transpose()
    }

    /// What there is, for people.
    pub(super) fn kept_build_caches(&self) -> Vec<KeptCache> {
        let (known, in_use) = (self.build_caches.known().clone(), self.build_caches_of_jobs());
        let shown = |record: BuildCacheRecord| KeptCache {
            is_in_use: in_use.contains(&record.id),
            key: Some(record.key),
            volume: None,
            used: record.used,
            bytes: record.bytes,
        };
        known.into_values().filter(|record| !record.is_over).map(shown).collect()
    }

    fn build_caches_of_jobs(&self) -> BTreeSet<TenantId> {
        self.jobs.list().iter().filter_map(|job| job.record().build_cache.clone()).collect()
    }

    /// Whose cache the builder of a tenant works on: its own, or one that outlives it.
    pub(crate) fn build_cache_of(&self, tenant: &TenantId) -> TenantId {
        self.jobs.record_of(tenant).and_then(|job| job.build_cache.clone()).unwrap_or_else(|| tenant.clone())
    }

    /// Ends the builder of a job. Its cache goes with it, or is there for the next job of its key.
    pub(super) async fn end_builder(&self, job: &JobRecord) -> Result<()> {
        let Some(cache) = &job.build_cache else { return self.backends.builders.remove(&job.id).await };
        let bytes = self.backends.builders.give_back(&job.id, cache).await?;
        self.build_caches.is_back(cache, bytes)
    }

    /// Behind a job's answer: what is too much goes.
    pub(super) fn trim_build_caches_soon(&self, job: &JobRecord) {
        if job.build_cache.is_some() {
            let engine = self.clone();
            self.spawn("trim_build_caches", async move { engine.trim_build_caches().await });
        }
    }

    /// Removes what is too old or too much, and what an earlier life was removing. What a job uses stays, and takes nobody's room.
    pub(super) async fn trim_build_caches(&self) {
        let (known, in_use) = (self.build_caches.known().clone(), self.build_caches_of_jobs());
        let unused = known.into_values().filter(|record| !in_use.contains(&record.id));
        let (over, unused): (Vec<_>, Vec<_>) = unused.partition(|record| record.is_over);
        let outdated = too_old_or_too_much(unused, self.config.cache_limits(), |record| Unused {
            key: Some(&record.key),
            used: record.used,
            bytes: record.bytes,
        });
        for record in over.into_iter().chain(outdated) {
            if let Err(error) = self.remove_build_cache(&record).await {
                warn!("removing a build cache of {}: {}", record.key, error.chain());
            }
        }
    }

    async fn remove_build_cache(&self, record: &BuildCacheRecord) -> Result<()> {
        {
            let _changing = self.build_caches.changing.lock().await;
            if self.build_caches_of_jobs().contains(&record.id) {
                return Ok(());
            }
            self.build_caches.store(BuildCacheRecord { is_over: true, ..record.clone() })?;
        }
        info!("a build cache of {} goes", record.key);
        self.backends.builders.remove(&record.id).await?;
        self.build_caches.forget(&record.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warmest_free_one_of_a_key_is_lent_and_to_one_job_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = BuildCacheStore::open(folder.path()).unwrap();
        let choose =
            |key: &str, in_use: &[&TenantId]| store.choose(key, &in_use.iter().copied().cloned().collect()).unwrap();
        let first = choose("a", &[]);
        let second = choose("a", &[&first]);
        assert_ne!(first, second, "it is lent");
        assert_ne!(choose("b", &[]), first, "another key's");
        store.is_back(&second, 7).unwrap();
        store.is_back(&first, 0).unwrap();
        assert_eq!(choose("a", &[]), first, "the last used");
        assert_eq!(choose("a", &[&first]), second);
        // A later life knows them; one that is being removed nobody gets.
        let store = BuildCacheStore::open(folder.path()).unwrap();
        let record = store.known()[&second].clone();
        assert_eq!(record.bytes, 7);
        store.store(BuildCacheRecord { is_over: true, ..record }).unwrap();
        assert!(![&first, &second].contains(&&store.choose("a", &[first.clone()].into()).unwrap()));
        store.forget(&second).unwrap();
        store.forget(&second).unwrap();
        assert!(!BuildCacheStore::open(folder.path()).unwrap().known().contains_key(&second));
    }
}
