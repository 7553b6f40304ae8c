//! What is known of images while containerd does not answer.
//!
//! Nobody but this daemon changes names in its namespace, so that what it has read and written since is what containerd would say.
//! Everything else goes straight through.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::{
    backend::images::{BlobInfo, BlobReader, BlobWriter, ImageBackend, ImageRecord, Lease, NewLayer},
    model::{
        Error, ErrorKind, Result,
        container::Change,
        id::{ContainerId, TenantId},
        image::Descriptor,
        reference::Digest,
    },
};

/// How long a list that is known waits for containerd.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

/// How long what is only worth showing waits for containerd.
const PATIENCE: Duration = Duration::from_secs(10);

/// For how long, once that was in vain, it is not waited for again: a list asks for hundreds of things.
const SILENCE: Duration = Duration::from_secs(5);

/// Tenants of which it is remembered that they have no image.
const TENANTS: usize = 1024;

/// Sizes of layers that are remembered.
const SIZES: usize = 8192;

/// Names of a tenant.
type Names = BTreeMap<String, ImageRecord>;

/// An image store that remembers the names in it.
pub struct Remembering {
    store: Arc<dyn ImageBackend>,
    names: Mutex<KnownNames>,
}

#[derive(Default)]
struct KnownNames {
    of: HashMap<TenantId, Names>,
    /// Grows with each change: a list that was asked for before it may not know of it.
    changes: u64,
    /// Until then containerd is not waited for again.
    silent_until: Option<Instant>,
}

impl KnownNames {
    /// A job that is gone has no names any more.
    fn drop_empty(&mut self) {
        if self.of.len() > TENANTS {
            self.of.retain(|_, names| !names.is_empty());
        }
    }
}

impl Remembering {
    /// Nothing is known yet.
    pub fn new(store: Arc<dyn ImageBackend>) -> Self {
        Self { store, names: Mutex::default() }
    }

    fn names(&self) -> MutexGuard<'_, KnownNames> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_silent(&self) -> bool {
        self.names().silent_until.is_some_and(|until| Instant::now() < until)
    }

    fn known(&self, tenant: &TenantId) -> Option<Vec<ImageRecord>> {
        self.names().of.get(tenant).map(|names| names.values().cloned().collect())
    }

    fn learn(&self, tenant: &TenantId, records: &[ImageRecord], asked_at: u64) {
        let mut names = self.names();
        if names.changes != asked_at {
            return;
        }
        let known = records.iter().map(|record| (record.name.clone(), record.clone())).collect();
        names.of.insert(tenant.clone(), known);
        names.drop_empty();
    }

    fn change(&self, tenant: &TenantId, change: impl FnOnce(&mut Names)) {
        let mut names = self.names();
        names.changes += 1;
        if let Some(known) = names.of.get_mut(tenant) {
            change(known);
        }
    }
}

#[async_trait]
impl ImageBackend for Remembering {
    async fn list_images(&self, tenant: &TenantId) -> Result<Vec<ImageRecord>> {
        let asked_at = self.names().changes;
        let listing = self.store.list_images(tenant);
        let listed = match self.known(tenant) {
            Some(known) if self.is_silent() => return Ok(known),
            Some(known) => match tokio::time::timeout(LIST_PATIENCE, listing).await {
                Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => return Ok(known),
                Ok(listed) => listed?,
                Err(_) => {
                    self.names().silent_until = Some(Instant::now() + SILENCE);
                    return Ok(known);
                }
            },
            None => listing.await?,
        };
        self.learn(tenant, &listed, asked_at);
        Ok(listed)
    }

    async fn put_image(&self, image: &ImageRecord) -> Result<()> {
        self.change(&image.tenant, |_| ());
        self.store.put_image(image).await?;
        self.change(&image.tenant, |known| {
            let created = known.get(&image.name).map_or(image.created, |before| before.created);
            known.insert(image.name.clone(), ImageRecord { created, ..image.clone() });
        });
        Ok(())
    }

    async fn delete_image(&self, tenant: &TenantId, name: &str, sync: bool) -> Result<()> {
        self.change(tenant, |_| ());
        self.store.delete_image(tenant, name, sync).await?;
        self.change(tenant, |known| drop(known.remove(name)));
        Ok(())
    }

    async fn lease(&self) -> Result<Lease> {
        self.store.lease().await
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        self.store.release(lease).await
    }

    async fn get_image(&self, tenant: &TenantId, name: &str) -> Result<Option<ImageRecord>> {
        self.store.get_image(tenant, name).await
    }

    async fn blob_info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        self.store.blob_info(digest).await
    }

    async fn read_blob(&self, digest: &Digest, offset: u64) -> Result<BlobReader> {
        self.store.read_blob(digest, offset).await
    }

    async fn fetch_blob(
        &self,
        lease: &Lease,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<Box<dyn BlobWriter>>> {
        self.store.fetch_blob(lease, descriptor, source).await
    }

    async fn write_new_blob(&self, lease: &Lease) -> Result<Box<dyn BlobWriter>> {
        self.store.write_new_blob(lease).await
    }

    async fn lend(&self, tenant: &TenantId, blobs: &[Descriptor]) -> Result<()> {
        self.store.lend(tenant, blobs).await
    }

    async fn take(&self, lease: &Lease, tenant: &TenantId, blob: &Descriptor) -> Result<bool> {
        self.store.take(lease, tenant, blob).await
    }

    async fn label_blob(&self, digest: &Digest, labels: HashMap<String, String>) -> Result<()> {
        self.store.label_blob(digest, labels).await
    }

    async fn has_snapshot(&self, lease: &Lease, chain_id: &str) -> Result<bool> {
        self.store.has_snapshot(lease, chain_id).await
    }

    async fn unpack_layer(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        parent: &str,
        chain_id: &str,
        expected_diff_id: &Digest,
    ) -> Result<()> {
        self.store.unpack_layer(lease, layer, parent, chain_id, expected_diff_id).await
    }

    async fn store_changes(&self, lease: &Lease, container: &ContainerId) -> Result<NewLayer> {
        self.store.store_changes(lease, container).await
    }

    async fn list_changes(&self, container: &ContainerId) -> Result<Vec<Change>> {
        self.store.list_changes(container).await
    }

    async fn snapshot_size(&self, chain_id: &str) -> Result<u64> {
        self.store.snapshot_size(chain_id).await
    }

    fn snapshotter(&self) -> &str {
        self.store.snapshotter()
    }

    async fn collect_garbage(&self) -> Result<()> {
        self.store.collect_garbage().await
    }
}

/// Questions whose answers are only shown: a containerd that is silent holds them up once, not each.
#[derive(Default)]
pub struct Patience {
    silent_until: Mutex<Option<Instant>>,
    sizes: Mutex<HashMap<String, u64>>,
}

impl Patience {
    /// Asks, for a while. `Unavailable` if nobody answers, or nobody did just now.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        if self.silence().is_some_and(|until| Instant::now() < until) {
            return Err(Error::containerd_is_silent());
        }
        let answer = tokio::time::timeout(PATIENCE, question).await;
        let answer = answer.unwrap_or_else(|_| Err(Error::containerd_is_silent()));
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            *self.silence() = Some(Instant::now() + SILENCE);
        }
        answer
    }

    /// A size that does not change any more once it is known; 0 if it is not.
    pub(crate) async fn size(&self, name: &str, measuring: impl Future<Output = Result<u64>>) -> u64 {
        if let Some(size) = self.known_size(name) {
            return size;
        }
        let Ok(size) = self.ask(measuring).await else { return 0 };
        self.remember_size(name, size);
        size
    }

    /// A size that changes and may take long to measure: as it is now, or as it was when containerd last answered. `any_question`
    /// tells whether it does.
    pub(crate) async fn latest_size(
        &self,
        name: &str,
        any_question: impl Future<Output = Result<()>>,
        measuring: impl Future<Output = Result<u64>>,
    ) -> Result<u64> {
        let measured = match self.ask(any_question).await {
            Ok(()) => measuring.await,
            Err(error) => Err(error),
        };
        match measured {
            Ok(size) => {
                self.remember_size(name, size);
                Ok(size)
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(self.known_size(name).unwrap_or_default()),
            Err(error) => Err(error),
        }
    }

    fn silence(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_size(&self, name: &str) -> Option<u64> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn remember_size(&self, name: &str, size: u64) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.len() >= SIZES {
            sizes.clear();
        }
        sizes.insert(name.to_owned(), size);
    }
}
