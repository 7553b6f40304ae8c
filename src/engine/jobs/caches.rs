//! Volumes that outlive jobs. In a job that names one it is a volume of the driver `local` that binds the folder here: what the job
//! writes there is there for the next one with the same key. What no job has used for long goes, and of the rest the longest
//! unused when all together take too much room.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::{
    engine::{Engine, records::RecordFolder, volumes::LocalMount},
    model::{
        Error, Result,
        error::Context,
        job::{self, CacheVolume, JobRecord, JobRequest},
        record::Record,
        time::Timestamp,
        volume::{self, Volume},
    },
    rootfs,
    work::blocking,
};

/// Key of jobs that are given none.
const NO_KEY: &str = "default";

/// Volumes that one job names at most.
const MOST: usize = 64;

/// Folders on their way out; no other's name begins with a dot.
const REMOVED: &str = ".removed-";

/// A volume as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CacheRecord {
    key: String,
    name: String,
    /// When a job last began or ended to use it.
    used: Timestamp,
}

impl Record for CacheRecord {
    const KIND: &'static str = "cache";
}

/// The volumes of a job, by their ids.
fn volumes_of(record: &JobRecord) -> impl Iterator<Item = (String, &CacheVolume)> {
    let key = record.cache_key.as_deref().unwrap_or(NO_KEY);
    record.cache_volumes.iter().map(move |volume| (id_of(key, &volume.name), volume))
}

/// Keys are any text: a folder's name is made of it.
fn id_of(key: &str, name: &str) -> String {
    let hash = Sha256::new().chain_update(key).chain_update([0]).chain_update(name).finalize();
    hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All of them.
pub struct CacheStore {
    records: RecordFolder,
    contents: PathBuf,
    known: Mutex<BTreeMap<String, CacheRecord>>,
    /// Held while folders are made or taken out of use.
    changing: tokio::sync::Mutex<()>,
    /// Held by who looks what has to go.
    trimming: tokio::sync::Mutex<()>,
}

impl CacheStore {
    /// Reads what is below `data_root`. What a killed daemon was about to remove is removed.
    pub fn open(data_root: &Path) -> Result<Self> {
        let (records, contents) = (RecordFolder::open(data_root, "caches")?, data_root.join("cache-volumes"));
        fs::create_dir_all(&contents).context(format!("making {}", contents.display()))?;
        let known = records.read::<CacheRecord>()?.into_iter();
        let known = known.map(|record| (id_of(&record.key, &record.name), record)).collect::<BTreeMap<_, _>>();
        let store = Self {
            records,
            contents,
            known: Mutex::new(known),
            changing: tokio::sync::Mutex::default(),
            trimming: tokio::sync::Mutex::default(),
        };
        store.remove_leftovers().context(format!("reading {}", store.contents.display()))?;
        Ok(store)
    }

    /// Folders without a record were never used, or are on their way out.
    fn remove_leftovers(&self) -> io::Result<()> {
        for folder in fs::read_dir(&self.contents)? {
            let folder = folder?;
            if !self.known().contains_key(&*folder.file_name().to_string_lossy())
                && let Err(error) = rootfs::remove_folder(&folder.path())
            {
                warn!("removing {}: {error}", folder.path().display());
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, CacheRecord>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.contents.join(id)
    }

    /// Notes that a job begins or ends to use one.
    fn is_used(&self, id: &str, key: &str, name: &str) -> Result<()> {
        let record = CacheRecord { key: key.to_owned(), name: name.to_owned(), used: Timestamp::now() };
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
        match self.records.remove(id) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(away),
        }
    }
}

/// Checks what a job asks for.
pub(super) fn check(request: &JobRequest) -> Result<()> {
    request.cache_key.as_deref().map_or(Ok(()), job::check_cache_key)?;
    let names: BTreeSet<&str> = request.cache_volumes.iter().map(|volume| volume.name.as_str()).collect();
    if names.len() < request.cache_volumes.len() {
        return Err(Error::invalid("a cache volume is named twice"));
    }
    if names.len() > MOST {
        return Err(Error::invalid(format!("a job has at most {MOST} cache volumes")));
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
                self.note_cache_use(job, &id, name)?;
                fs::create_dir_all(&folder).context("making the folder of a cache volume")?;
            }
            let options = Some(LocalMount::options_of_bind(&folder, *is_read_only));
            let volume = Volume { name: name.clone(), labels: None, options, created: Timestamp::now() };
            let changing = self.volumes.change().await;
            self.volumes.create(&changing, &job.id, volume).await?;
        }
        Ok(())
    }

    fn note_cache_use(&self, job: &JobRecord, id: &str, name: &str) -> Result<()> {
        self.caches.is_used(id, job.cache_key.as_deref().unwrap_or(NO_KEY), name)
    }

    /// After a job's end: what it had was used until now, and has perhaps grown.
    pub(super) fn cache_volumes_are_free(&self, job: &JobRecord) {
        for (id, volume) in volumes_of(job) {
            if let Err(error) = self.note_cache_use(job, &id, &volume.name) {
                warn!(job.id = %job.id, "{}", error.chain());
            }
        }
        if !job.cache_volumes.is_empty() {
            self.trim_cache_volumes_soon();
        }
    }

    /// Whether a volume of a job is one that outlives it.
    pub(super) fn outlives_its_job(&self, volume: &Volume) -> bool {
        let device = volume.options.as_ref().and_then(|options| options.get("device"));
        device.is_some_and(|device| Path::new(device).starts_with(&self.caches.contents))
    }

    /// Looks what has to go, behind the answer.
    pub(super) fn trim_cache_volumes_soon(&self) {
        let engine = self.clone();
        self.spawn("trim_cache_volumes", async move {
            if let Err(error) = engine.trim_cache_volumes().await {
                warn!("trimming cache volumes: {}", error.chain());
            }
        });
    }

    /// Removes what is too old or too much and in no job's use.
    pub(super) async fn trim_cache_volumes(&self) -> Result<()> {
        let _alone = self.caches.trimming.lock().await;
        let (most, longest) = self.config.cache_limits();
        let mut records: Vec<_> = self.caches.known().clone().into_iter().collect();
        records.sort_by_key(|(_, record)| Reverse(record.used));
        let mut room = most;
        for (id, record) in records {
            let folder = self.caches.folder(&id);
            // What cannot be measured is kept.
            let size = blocking(move || rootfs::folder_size(&folder).context("measuring")).await.unwrap_or(0);
            if record.used.elapsed() <= longest && size <= room {
                room -= size;
            } else if let Some(away) = self.take_out_unused(&id).await? {
                info!("cache volume {} of {} goes", record.name, record.key);
                blocking(move || rootfs::remove_folder(&away).context("removing a cache volume")).await?;
            } else {
                room = room.saturating_sub(size);
            }
        }
        Ok(())
    }

    /// `None` if a job uses it.
    async fn take_out_unused(&self, id: &str) -> Result<Option<PathBuf>> {
        let _changing = self.caches.changing.lock().await;
        if self.jobs.list().iter().any(|job| volumes_of(&job.record()).any(|(used, _)| used == id)) {
            return Ok(None);
        }
        self.caches.take_out(id).map(Some).context("taking a cache volume out")
    }
}
