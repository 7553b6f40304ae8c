//! Volumes on disk and in memory: one folder each with `volume.json` and the content in `_data`.
//!
//! A volume exists from the moment its `volume.json` is renamed into place until its folder is renamed away; what
//! a killed daemon left of either is removed at the next start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use super::{
    VolumeInfo,
    local::{self, LocalMount},
};
use crate::{
    engine::{
        locks::KeyedLocks,
        quota::Quota,
        room::{Place, Rooms},
        scoped::Scoped,
    },
    model::{
        Result,
        error::Context,
        id::{ContainerId, TenantId},
        job::DiskPlace,
        record,
        volume::{self, Volume},
    },
    rootfs::remove_folder,
};

/// Folders on their way out; no volume's name begins with a dot.
const REMOVED: &str = ".removed";

#[derive(Debug)]
struct Entry {
    volume: Arc<Volume>,
    /// Held for its drop.
    _place: Place,
    /// Containers that are being made with it and are in no table yet.
    pins: usize,
    /// Running containers for which its options are mounted.
    mounted_for: Vec<ContainerId>,
}

/// Held while volumes are made or removed.
pub struct Change<'a>(#[allow(dead_code, reason = "held for its drop")] tokio::sync::MutexGuard<'a, ()>);

/// All volumes. A look-up sees those of its tenant and no others.
#[derive(Debug, Default)]
pub struct VolumeStore {
    data_root: PathBuf,
    rooms: Rooms,
    volumes: Scoped<BTreeMap<String, Entry>>,
    changing: tokio::sync::Mutex<()>,
    mounting: KeyedLocks,
    filling: KeyedLocks,
}

impl VolumeStore {
    /// Reads what is below `data_root`. A record that cannot be read is left alone and named in the log.
    pub fn open(data_root: &Path, rooms: Rooms) -> Result<Self> {
        let store = Self { data_root: data_root.to_owned(), rooms, ..Self::default() };
        let mut tenants = vec![TenantId::default_tenant()];
        for name in folders(&data_root.join("tenants")).context("reading tenants")? {
            tenants.extend(TenantId::from_stored(&name));
        }
        for tenant in tenants {
            store.read_tenant(&tenant).context("reading volumes")?;
        }
        Ok(store)
    }

    fn read_tenant(&self, tenant: &TenantId) -> io::Result<()> {
        let root = self.root(tenant);
        if let Err(error) = remove_folder(&root.join(REMOVED)) {
            warn!("removing old volumes: {error}");
        }
        for name in folders(&root)? {
            match fs::read(root.join(&name).join("volume.json")) {
                Ok(json) => match record::read::<Volume>(&json) {
                    Ok(volume) => {
                        if LocalMount::of(&volume).is_some() {
                            local::unmount(&self.mountpoint(tenant, &name))?;
                        }
                        self.insert(tenant, Arc::new(volume), self.rooms.hold(tenant, record::weigh(&json)));
                    }
                    Err(error) => warn!(volume = name, "reading the record of volume {name}: {error}"),
                },
                // Half made: the record is the last that is written.
                Err(error) if error.kind() == io::ErrorKind::NotFound => remove_folder(&root.join(&name))?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Where a tenant's volumes are. The default tenant's stand where dockerd has them.
    fn root(&self, tenant: &TenantId) -> PathBuf {
        if *tenant == TenantId::default_tenant() {
            self.data_root.join("volumes")
        } else {
            self.data_root.join("tenants").join(tenant.as_str()).join("volumes")
        }
    }

    /// The folder of a volume's content.
    pub fn mountpoint(&self, tenant: &TenantId, name: &str) -> PathBuf {
        self.root(tenant).join(name).join("_data")
    }

    fn insert(&self, tenant: &TenantId, volume: Arc<Volume>, place: Place) {
        let entry = Entry { volume: volume.clone(), _place: place, pins: 0, mounted_for: Vec::new() };
        self.volumes.add(tenant, |volumes| volumes.insert(volume.name.clone(), entry));
    }

    fn with<T>(&self, tenant: &TenantId, name: &str, look: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.volumes.change(tenant, |volumes| volumes.get_mut(name).map(look))
    }

    /// A volume by its name.
    pub fn get(&self, tenant: &TenantId, name: &str) -> Option<VolumeInfo> {
        let volume = self.with(tenant, name, |entry| entry.volume.clone())?;
        Some(VolumeInfo { volume, mountpoint: self.mountpoint(tenant, name) })
    }

    /// All volumes of a tenant, by name.
    pub fn list(&self, tenant: &TenantId) -> Vec<VolumeInfo> {
        let info = |entry: &Entry| VolumeInfo {
            volume: entry.volume.clone(),
            mountpoint: self.mountpoint(tenant, &entry.volume.name),
        };
        self.volumes.look(tenant, |volumes| volumes.values().map(info).collect())
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&self, tenant: &TenantId) {
        self.volumes.forget(tenant);
    }

    /// Tenants that have volumes.
    pub fn tenants_with_some(&self) -> BTreeSet<TenantId> {
        self.volumes.tenants_where(|volumes| !volumes.is_empty())
    }

    /// Waits for other changes.
    pub async fn change(&self) -> Change<'_> {
        Change(self.changing.lock().await)
    }

    /// Waits for other mounts of one volume, and only of that: a server that does not answer may take minutes.
    pub async fn mounting(&self, tenant: &TenantId, name: &str) -> OwnedMutexGuard<()> {
        self.mounting.lock(&format!("{tenant}/{name}")).await
    }

    /// Waits for others that fill one of these volumes: the second to come finds it filled. In the order of names, so that
    /// two who fill several do not wait for each other.
    pub async fn filling(&self, tenant: &TenantId, names: &[&str]) -> Vec<OwnedMutexGuard<()>> {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut guards = Vec::new();
        for name in names {
            guards.push(self.filling.lock(&format!("{tenant}/{name}")).await);
        }
        guards
    }

    /// Makes a volume; its name must be free. Conflict if its tenant has no room for it. What is in it counts for the quota.
    pub async fn create(
        &self,
        _: &Change<'_>,
        tenant: &TenantId,
        volume: Volume,
        quota: Option<Arc<Quota>>,
    ) -> Result<Arc<Volume>> {
        let folder = self.root(tenant).join(&volume.name);
        let json = record::write(&volume);
        let place = self.rooms.take(tenant, record::weigh(&json))?;
        let made = tokio::task::spawn_blocking(move || {
            let made = write(&folder, &json, quota.as_deref());
            // One whose record could not be read is left alone.
            if made.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
                let _ = fs::remove_dir_all(&folder);
            }
            made
        });
        made.await.context("making the volume")?.context("making the volume")?;
        let volume = Arc::new(volume);
        self.insert(tenant, volume.clone(), place);
        Ok(volume)
    }

    /// Takes a volume out. What is returned deletes its content, which may take long.
    pub async fn remove(
        &self,
        _: &Change<'_>,
        tenant: &TenantId,
        name: &str,
    ) -> Result<impl Future<Output = ()> + Send + use<>> {
        let (folder, mountpoint) = (self.root(tenant).join(name), self.mountpoint(tenant, name));
        let away = self.root(tenant).join(REMOVED).join(volume::random_name());
        let target = away.clone();
        let moved = tokio::task::spawn_blocking(move || {
            local::unmount(&mountpoint)?;
            fs::create_dir_all(target.parent().expect("it was just joined"))?;
            match fs::rename(&folder, &target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
        moved.await.context("removing the volume")?.context(format!("remove {name}"))?;
        self.volumes.change(tenant, |volumes| volumes.remove(name));
        Ok(async move {
            let folder = away.clone();
            let removed = tokio::task::spawn_blocking(move || remove_folder(&folder)).await;
            if let Err(error) = removed.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                warn!("removing {}: {error}", away.display());
            }
        })
    }

    /// Keeps a volume from being removed until [`VolumeStore::unpin`].
    pub fn pin(&self, tenant: &TenantId, name: &str) {
        self.with(tenant, name, |entry| entry.pins += 1);
    }

    /// Undoes one [`VolumeStore::pin`].
    pub fn unpin(&self, tenant: &TenantId, name: &str) {
        self.with(tenant, name, |entry| entry.pins = entry.pins.saturating_sub(1));
    }

    /// Whether a container is being made with it.
    pub fn is_pinned(&self, tenant: &TenantId, name: &str) -> bool {
        self.with(tenant, name, |entry| entry.pins > 0).unwrap_or(false)
    }

    /// Counts a container as one for which the volume is mounted; answers whether it is the first.
    pub fn mount_for(&self, tenant: &TenantId, name: &str, container: &ContainerId) -> bool {
        let count = |entry: &mut Entry| {
            let is_first = entry.mounted_for.is_empty();
            if !entry.mounted_for.contains(container) {
                entry.mounted_for.push(container.clone());
            }
            is_first
        };
        self.with(tenant, name, count).unwrap_or(false)
    }

    /// Undoes [`VolumeStore::mount_for`]; answers whether it was the last.
    pub fn unmount_for(&self, tenant: &TenantId, name: &str, container: &ContainerId) -> bool {
        let count = |entry: &mut Entry| {
            let before = entry.mounted_for.len();
            entry.mounted_for.retain(|id| id != container);
            before > 0 && entry.mounted_for.is_empty()
        };
        self.with(tenant, name, count).unwrap_or(false)
    }
}

fn write(folder: &Path, json: &[u8], quota: Option<&Quota>) -> io::Result<()> {
    if folder.join("volume.json").try_exists()? {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it has a record that cannot be read"));
    }
    let content = folder.join("_data");
    fs::create_dir_all(&content)?;
    quota.map_or(Ok(()), |quota| quota.count(DiskPlace::Volumes, &content))?;
    let unfinished = folder.join("volume.json.new");
    fs::write(&unfinished, json)?;
    fs::rename(unfinished, folder.join("volume.json"))
}

/// Names of the folders in `parent` that do not begin with a dot; none if it is not there.
fn folders(parent: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'));
        if entry.file_type()?.is_dir() {
            names.extend(name);
        }
    }
    Ok(names)
}
