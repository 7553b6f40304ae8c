//! Volumes that outlive jobs. In a job that names one it is a volume of the driver `local` that binds the folder here: what the job
//! writes there is there for the next one with the same key. What no job has used for long goes, and of the rest the longest
//! unused when all together take too much room.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    engine::{Engine, jobs::KeptCache, records::RecordFolder, volumes::LocalMount},
    model::{
        Error, Result,
        error::Context,
        job::{self, CacheVolume, JobRecord, JobRequest},
        limits,
        record::Record,
        reference::Digest,
        time::Timestamp,
        volume::{self, Volume},
    },
    rootfs,
    work::blocking,
};

/// The label of such a volume, with its key.
const LABEL: &str = "ringer.cache";

/// Between two looks for what is too old.
const BETWEEN_LOOKS: Duration = Duration::from_secs(3600);

/// Folders on their way out; no other's name begins with a dot.
const REMOVED: &str = ".removed-";

/// A cache volume as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CacheVolumeRecord {
    /// None is that of jobs without a key.
    key: Option<String>,
    name: String,
    /// When a job last began or ended to use it.
    used: Timestamp,
    /// What it took of the disk when a job had last ended to write to it.
    bytes: u64,
}

impl Record for CacheVolumeRecord {
    const KIND: &'static str = "cache volume";
}

/// The volumes of a job, by their ids.
fn volumes_of(job: &JobRecord) -> impl Iterator<Item = (String, &CacheVolume)> {
    job.cache_volumes.iter().map(|volume| (id_of(job.cache_key.as_deref(), &volume.name), volume))
}

/// Keys are any text but an empty one: a folder's name is made of it.
fn id_of(key: Option<&str>, name: &str) -> String {
    let digest = Digest::of(format!("{}\0{name}", key.unwrap_or_default()).as_bytes());
    digest.hex()[..32].to_owned()
}

/// All of them.
pub struct CacheStore {
    records: RecordFolder,
    contents: PathBuf,
    known: Mutex<BTreeMap<String, CacheVolumeRecord>>,
    /// Held while folders are made or taken out of use.
    changing: tokio::sync::Mutex<()>,
    unmeasured: Mutex<Unmeasured>,
}

/// Whose room is not known any more; one task measures them all.
#[derive(Default)]
struct Unmeasured {
    ids: BTreeSet<String>,
    is_at_work: bool,
}

impl CacheStore {
    /// Reads what is below `data_root`.
    pub fn open(data_root: &Path) -> Result<Self> {
        let (records, contents) = (RecordFolder::open(data_root, "caches")?, data_root.join("cache-volumes"));
        fs::create_dir_all(&contents).context(format!("making {}", contents.display()))?;
        let known = records.read::<CacheVolumeRecord>()?.into_iter();
        let known = known.map(|record| (id_of(record.key.as_deref(), &record.name), record)).collect();
        let (known, changing, unmeasured) = (Mutex::new(known), tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { records, contents, known, changing, unmeasured })
    }

    /// Removes what a killed daemon was about to remove. A folder whose record cannot be read stays, as the record does.
    pub(super) fn remove_leftovers(&self) -> io::Result<()> {
        for folder in fs::read_dir(&self.contents)? {
            let folder = folder?;
            if !self.records.has(&folder.file_name().to_string_lossy())
                && let Err(error) = rootfs::remove_folder(&folder.path())
            {
                warn!("removing {}: {error}", folder.path().display());
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, CacheVolumeRecord>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unmeasured(&self) -> MutexGuard<'_, Unmeasured> {
        self.unmeasured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next to be measured; with none, nobody is at work any more.
    fn next_unmeasured(&self) -> Option<String> {
        let mut unmeasured = self.unmeasured();
        let next = unmeasured.ids.pop_first();
        unmeasured.is_at_work = next.is_some();
        next
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.contents.join(id)
    }

    /// Notes that a job begins or ends to use one.
    fn is_used(&self, id: &str, key: Option<&str>, name: &str) -> Result<()> {
        let bytes = self.known().get(id).map_or(0, |record| record.bytes);
        let record =
            CacheVolumeRecord { key: key.map(ToOwned::to_owned), name: name.to_owned(), used: Timestamp::now(), bytes };
        self.store(id, record)
    }

    /// Notes what one takes, if it is there still.
    fn takes(&self, id: &str, bytes: u64) -> Result<()> {
        let record = self.known().get(id).cloned();
        record.map_or(Ok(()), |record| self.store(id, CacheVolumeRecord { bytes, ..record }))
    }

    fn store(&self, id: &str, record: CacheVolumeRecord) -> Result<()> {
        self.records.write(id, &record).context("storing the record of a cache volume")?;
        self.known().insert(id.to_owned(), record);
        Ok(())
    }

    /// Takes one out of use; what is returned has still to be deleted.
    fn take_out(&self, id: &str) -> io::Result<PathBuf> {
        let away = self.contents.join(format!("{REMOVED}{}", volume::random_name()));
        match fs::rename(self.folder(id), &away) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.known().remove(id);
        self.records.forget(id)?;
        Ok(away)
    }
}

/// Of a cache that no job uses, what decides whether it stays.
pub(super) struct Unused<'c> {
    /// Whose it is.
    pub key: Option<&'c str>,
    /// When a job last began or ended to use it.
    pub used: Timestamp,
    /// What it takes of the disk.
    pub bytes: u64,
}

/// Of caches that no job uses, those that go: what has not been used for `longest`, and of the rest the longest unused that have no `room`
/// together. Of keys `KEY#PART` of one KEY (branches of a repository, say) the last used stay, so that they do not push those of all
/// others out.
pub(super) fn too_old_or_too_much<T>(
    mut unused: Vec<T>,
    (mut room, longest): (u64, Duration),
    of: impl Fn(&T) -> Unused<'_>,
) -> Vec<T> {
    unused.sort_by_key(|cache| Reverse(of(cache).used));
    let mut parts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    unused.retain(|cache| {
        let Unused { key, used, bytes } = of(cache);
        let of_key = key.and_then(|key| key.split_once('#'));
        let of_key = of_key.map(|(whole, part)| (parts.entry(whole.to_owned()).or_default(), part));
        let is_among_the_last =
            of_key.as_ref().is_none_or(|(parts, part)| parts.contains(*part) || parts.len() < limits::CACHE_PARTS);
        let stays = used.elapsed() <= longest && bytes <= room && is_among_the_last;
        if stays {
            room -= bytes;
            if let Some((parts, part)) = of_key {
                parts.insert(part.to_owned());
            }
        }
        !stays
    });
    unused
}

/// Checks what a job asks for, whose builds may have a cache or not.
pub(super) fn check(request: &JobRequest, has_builder: bool) -> Result<()> {
    request.cache_key.as_deref().map_or(Ok(()), job::check_cache_key)?;
    let names: BTreeSet<&str> = request.cache_volumes.iter().map(|volume| volume.name.as_str()).collect();
    if request.cache_key.is_some() && names.is_empty() && !has_builder {
        return Err(Error::invalid(
            "a key of caches needs caches: --volume-cache names one, and where buildkitd is installed builds have one",
        ));
    }
    if names.len() < request.cache_volumes.len() {
        return Err(Error::invalid("a cache volume is named twice"));
    }
    if names.len() > limits::CACHE_VOLUMES {
        return Err(Error::invalid(format!("a job has at most {} cache volumes", limits::CACHE_VOLUMES)));
    }
    Ok(())
}

impl Engine {
    /// Makes a job's cache volumes volumes of it.
    pub(super) async fn give_cache_volumes(&self, job: &JobRecord) -> Result<()> {
        for (id, CacheVolume { name, is_read_only }) in volumes_of(job) {
            let folder = self.caches.folder(&id);
            {
                // The job's record is stored: who comes later to trim sees that it is used.
                let _changing = self.caches.changing.lock().await;
                self.caches.is_used(&id, job.cache_key.as_deref(), name)?;
                fs::create_dir_all(&folder).context("making the folder of a cache volume")?;
            }
            let key = job.cache_key.clone().unwrap_or_default();
            let labels = Some([(LABEL.to_owned(), key)].into());
            let options = Some(LocalMount::options_of_bind(&folder, *is_read_only));
            let volume = Volume { name: name.clone(), labels, options, created: Timestamp::now() };
            let changing = self.volumes.change().await;
            self.volumes.create(&changing, &job.id, volume, None).await?;
        }
        Ok(())
    }

    /// Notes, while a job is there still, that what it has is used until now, and is to be measured where it could write.
    pub(super) async fn note_cache_volumes(&self, job: &JobRecord) -> Result<()> {
        let written = volumes_of(job).filter(|(_, volume)| !volume.is_read_only).map(|(id, _)| id);
        self.caches.unmeasured().ids.extend(written);
        let _changing = self.caches.changing.lock().await;
        volumes_of(job).try_for_each(|(id, volume)| self.caches.is_used(&id, job.cache_key.as_deref(), &volume.name))
    }

    /// Whether a volume of a job is one that outlives it.
    pub(super) fn outlives_its_job(&self, volume: &Volume) -> bool {
        let device = volume.options.as_ref().and_then(|options| options.get("device"));
        device.is_some_and(|device| Path::new(device).starts_with(&self.caches.contents))
    }

    /// After a job's end, behind the answer: what is not measured yet is, and what is too much goes.
    pub(super) fn measure_cache_volumes(&self) {
        {
            let mut unmeasured = self.caches.unmeasured();
            if unmeasured.ids.is_empty() || std::mem::replace(&mut unmeasured.is_at_work, true) {
                return;
            }
        }
        let engine = self.clone();
        self.spawn("measure_cache_volumes", async move {
            let stopping = engine.stopping();
            while let Some(id) = engine.caches.next_unmeasured() {
                if stopping.is_cancelled() {
                    return;
                }
                if let Err(error) = engine.measure_cache_volume(&id).await {
                    warn!("measuring a cache volume: {}", error.chain());
                }
                engine.trim_cache_volumes().await;
            }
        });
    }

    /// Whether what jobs have written is still to be measured.
    #[cfg(test)]
    pub(super) fn is_measuring_caches(&self) -> bool {
        let unmeasured = self.caches.unmeasured();
        unmeasured.is_at_work || !unmeasured.ids.is_empty()
    }

    async fn measure_cache_volume(&self, id: &str) -> Result<()> {
        let folder = self.caches.folder(id);
        let bytes = blocking(move || rootfs::room_of(&folder).context("looking into its folder")).await?;
        let _changing = self.caches.changing.lock().await;
        self.caches.takes(id, bytes)
    }

    /// Looks now and then what has become too old, and first for what an earlier life has left.
    pub(super) fn look_after_caches(&self) {
        let engine = self.clone();
        self.spawn("look_after_caches", async move {
            let (tidied, stopping) = (engine.clone(), engine.stopping());
            let left = blocking(move || tidied.caches.remove_leftovers().context("reading cache volumes")).await;
            if let Err(error) = left {
                warn!("{}", error.chain());
            }
            loop {
                engine.trim_cache_volumes().await;
                engine.trim_build_caches().await;
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(BETWEEN_LOOKS) => {}
                }
            }
        });
    }

    /// Removes what is too old or too much. What a job uses stays, and takes nobody's room.
    pub(super) async fn trim_cache_volumes(&self) {
        let (known, in_use) = (self.caches.known().clone(), self.caches_of_jobs());
        let unused: Vec<_> = known.into_iter().filter(|(id, _)| !in_use.contains(id)).collect();
        let outdated = too_old_or_too_much(unused, self.config.cache_limits(), |(_, record)| Unused {
            key: record.key.as_deref(),
            used: record.used,
            bytes: record.bytes,
        });
        for (id, record) in outdated {
            if let Err(error) = self.remove_cache_volume(&id, &record).await {
                warn!("removing cache volume {}: {}", record.name, error.chain());
            }
        }
    }

    /// What there is, for people.
    pub(super) fn kept_volumes(&self) -> Vec<KeptCache> {
        let (known, in_use) = (self.caches.known().clone(), self.caches_of_jobs());
        let shown = |(id, record): (String, CacheVolumeRecord)| KeptCache {
            key: record.key,
            volume: Some(record.name),
            used: record.used,
            bytes: record.bytes,
            is_in_use: in_use.contains(&id),
        };
        known.into_iter().map(shown).collect()
    }

    /// The ids of those that jobs use.
    fn caches_of_jobs(&self) -> BTreeSet<String> {
        let jobs = self.jobs.list();
        jobs.iter().flat_map(|job| volumes_of(&job.record()).map(|(id, _)| id).collect::<Vec<_>>()).collect()
    }

    async fn remove_cache_volume(&self, id: &str, record: &CacheVolumeRecord) -> Result<()> {
        let away = {
            let _changing = self.caches.changing.lock().await;
            if self.caches_of_jobs().contains(id) {
                return Ok(());
            }
            self.caches.take_out(id).context("taking it out of use")?
        };
        info!("cache volume {} of {} goes", record.name, record.key.as_deref().unwrap_or("jobs without a key"));
        blocking(move || rootfs::remove_folder(&away).context("removing its folder")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_goes_and_of_the_rest_the_longest_unused_that_find_no_room() {
        let used = |day: u32| Timestamp::parse_rfc3339(&format!("2026-01-{day:02}T00:00:00Z")).unwrap();
        let caches = vec![("a", used(1), 5), ("b", used(3), 6), ("c", used(2), 4), ("d", used(4), 3)];
        let going = |room: u64, longest: Duration| {
            let gone = too_old_or_too_much(caches.clone(), (room, longest), |(_, used, bytes)| Unused {
                key: None,
                used: *used,
                bytes: *bytes,
            });
            gone.into_iter().map(|(name, ..)| name).collect::<Vec<_>>()
        };
        assert_eq!(going(18, Duration::MAX), [""; 0]);
        assert_eq!(going(12, Duration::MAX), ["c", "a"]);
        assert_eq!(going(8, Duration::MAX), ["b", "a"], "a smaller one finds room that a larger one does not");
        assert_eq!(going(18, Duration::ZERO), ["d", "b", "c", "a"]);
    }

    #[test]
    fn of_the_parts_of_one_key_the_last_used_stay_and_leave_others_theirs() {
        let used = |minute: usize| Timestamp::from_unix(i64::try_from(minute * 60).unwrap(), 0);
        let others = ["tool", "tool#main", "long#ago#main"].map(|key| (key.to_owned(), used(0)));
        let branches = (1..=limits::CACHE_PARTS + 2).flat_map(|number| {
            // As a job with two volumes has them.
            [(format!("busy#{number}"), used(number)), (format!("busy#{number}"), used(number))]
        });
        let caches: Vec<_> = others.into_iter().chain(branches).collect();
        let gone = too_old_or_too_much(caches, (u64::MAX, Duration::MAX), |(key, used)| Unused {
            key: Some(key),
            used: *used,
            bytes: 1,
        });
        let gone: Vec<_> = gone.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(gone, ["busy#2", "busy#2", "busy#1", "busy#1"]);
    }
}
