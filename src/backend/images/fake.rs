//! An image store in memory, with a garbage collector that follows the same labels as containerd's.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{Cursor, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{BlobInfo, BlobReader, BlobWriter, ImageBackend, ImageRecord, Lease, NewLayer, samples};
use crate::model::{
    Error, Result,
    container::{Change, ChangeKind},
    id::{ContainerId, TenantId},
    image::{Descriptor, documents::media_type},
    reference::Digest,
    time::Timestamp,
};

const SNAPSHOTTER: &str = "fake";

#[derive(Default)]
struct State {
    images: BTreeMap<(TenantId, String), ImageRecord>,
    blobs: HashMap<Digest, (Bytes, HashMap<String, String>)>,
    ingests: HashMap<(String, Digest), BytesMut>,
    /// Chain id to parent and size.
    snapshots: HashMap<String, (String, u64)>,
    leases: HashMap<String, Held>,
    fail_unpack: Option<String>,
    lose_answer: bool,
    connection: u64,
    /// What the builders of tenants have.
    builders: HashMap<TenantId, HashMap<Digest, Bytes>>,
    /// What containers changed, as tars.
    changes: HashMap<ContainerId, Bytes>,
}

#[derive(Default)]
struct Held {
    blobs: HashSet<Digest>,
    snapshots: HashSet<String>,
}

/// The fake; clones share everything.
#[derive(Clone, Default)]
pub struct FakeImages(Arc<Mutex<State>>);

impl FakeImages {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next unpacking fail with this text.
    pub fn fail_next_unpack(&self, text: &str) {
        self.state().fail_unpack = Some(text.to_owned());
    }

    /// Makes a name older, as if it had been pointed there so long before.
    pub fn backdate(&self, tenant: &TenantId, name: &str, by: std::time::Duration) {
        let mut state = self.state();
        let image = state.images.get_mut(&(tenant.clone(), name.to_owned())).expect("the name is there");
        image.updated = Timestamp::from(std::time::SystemTime::now() - by);
    }

    /// Makes the next name in spite of an error.
    pub fn lose_next_answer(&self) {
        self.state().lose_answer = true;
    }

    /// Breaks the connection: the next call makes another one.
    pub fn reconnect(&self) {
        self.state().connection += 1;
    }

    /// What a container's writable layer holds, as a layer's tar; one without entries if nobody says.
    pub fn set_changes(&self, container: &ContainerId, tar: Bytes) {
        self.state().changes.insert(container.clone(), tar);
    }

    /// Gives the builder of a tenant a blob.
    pub fn give_builder(&self, tenant: &TenantId, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.state().builders.entry(tenant.clone()).or_default().insert(Digest::of(&bytes), bytes);
    }

    /// How many blobs and snapshots are there.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.blobs.len(), state.snapshots.len())
    }
}

impl State {
    fn hold(&mut self, lease: &Lease, digest: &Digest) -> Result<()> {
        let held = self.leases.get_mut(&lease.0).ok_or_else(|| Error::not_found(format!("lease {}", lease.0)))?;
        held.blobs.insert(digest.clone());
        Ok(())
    }

    /// Roots are image records and leases; from there along the labels.
    fn collect(&mut self) {
        let mut blobs: Vec<Digest> = self.images.values().map(|image| image.target.digest.clone()).collect();
        let mut chains: Vec<String> = Vec::new();
        for held in self.leases.values() {
            blobs.extend(held.blobs.iter().cloned());
            chains.extend(held.snapshots.iter().cloned());
        }
        let (mut seen_blobs, mut seen_chains) = (HashSet::new(), HashSet::new());
        while let Some(digest) = blobs.pop() {
            let Some((_, labels)) = self.blobs.get(&digest) else { continue };
            if !seen_blobs.insert(digest) {
                continue;
            }
            for (label, value) in labels {
                if label.starts_with("containerd.io/gc.ref.content") {
                    blobs.extend(value.parse());
                } else if label.starts_with(&format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}")) {
                    chains.push(value.clone());
                }
            }
        }
        while let Some(chain) = chains.pop() {
            if let Some((parent, _)) = self.snapshots.get(&chain)
                && seen_chains.insert(chain)
            {
                chains.push(parent.clone());
            }
        }
        self.blobs.retain(|digest, _| seen_blobs.contains(digest));
        self.snapshots.retain(|chain, _| seen_chains.contains(chain));
    }
}

#[async_trait]
impl ImageBackend for FakeImages {
    async fn lease(&self) -> Result<Lease> {
        let lease = Lease(ContainerId::random().to_string());
        self.state().leases.insert(lease.0.clone(), Held::default());
        Ok(lease)
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        self.state().leases.remove(&lease.0);
        Ok(())
    }

    async fn list_images(&self, tenant: &TenantId) -> Result<Vec<ImageRecord>> {
        Ok(self.state().images.values().filter(|image| image.tenant == *tenant).cloned().collect())
    }

    async fn get_image(&self, tenant: &TenantId, name: &str) -> Result<Option<ImageRecord>> {
        Ok(self.state().images.get(&(tenant.clone(), name.to_owned())).cloned())
    }

    async fn put_image(&self, image: &ImageRecord) -> Result<ImageRecord> {
        let mut state = self.state();
        let key = (image.tenant.clone(), image.name.clone());
        let now = Timestamp::now();
        let created = state.images.get(&key).map_or(now, |before| before.created);
        let kept = ImageRecord { created, updated: now, ..image.clone() };
        state.images.insert(key, kept.clone());
        if std::mem::take(&mut state.lose_answer) {
            return Err(Error::containerd_is_silent());
        }
        Ok(kept)
    }

    async fn delete_image(&self, tenant: &TenantId, name: &str, sync: bool) -> Result<()> {
        let mut state = self.state();
        state.images.remove(&(tenant.clone(), name.to_owned()));
        if sync {
            state.collect();
        }
        Ok(())
    }

    async fn blob_info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        Ok(self.state().blobs.get(digest).map(|(bytes, labels)| BlobInfo {
            digest: digest.clone(),
            size: bytes.len() as u64,
            labels: labels.clone(),
        }))
    }

    async fn read_blob(&self, digest: &Digest, offset: u64) -> Result<BlobReader> {
        let missing = || Error::not_found(format!("content digest {digest}: not found"));
        let bytes = self.state().blobs.get(digest).map(|(bytes, _)| bytes.clone()).ok_or_else(missing)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(Box::pin(Cursor::new(bytes.slice(offset..))))
    }

    async fn fetch_blob(
        &self,
        lease: &Lease,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<Box<dyn BlobWriter>>> {
        let mut state = self.state();
        state.hold(lease, &descriptor.digest)?;
        if state.blobs.contains_key(&descriptor.digest) {
            return Ok(None);
        }
        let bytes = state.ingests.remove(&(source.to_owned(), descriptor.digest.clone())).unwrap_or_default();
        let wanted = Some((source.to_owned(), descriptor.clone()));
        Ok(Some(Box::new(FakeWriter { store: self.clone(), lease: lease.clone(), wanted, bytes })))
    }

    async fn write_new_blob(&self, lease: &Lease) -> Result<Box<dyn BlobWriter>> {
        let bytes = BytesMut::new();
        Ok(Box::new(FakeWriter { store: self.clone(), lease: lease.clone(), wanted: None, bytes }))
    }

    async fn label_blob(&self, digest: &Digest, labels: HashMap<String, String>) -> Result<()> {
        let mut state = self.state();
        let missing = || Error::not_found(format!("content digest {digest}: not found"));
        let (_, own) = state.blobs.get_mut(digest).ok_or_else(missing)?;
        own.extend(labels);
        own.retain(|_, value| !value.is_empty());
        Ok(())
    }

    async fn lend(&self, tenant: &TenantId, blobs: &[Descriptor]) -> Result<()> {
        let mut state = self.state();
        let here = |blob: &Descriptor| Some((blob.digest.clone(), state.blobs.get(&blob.digest)?.0.clone()));
        let lent: Vec<_> = blobs.iter().filter_map(here).collect();
        state.builders.entry(tenant.clone()).or_default().extend(lent);
        Ok(())
    }

    async fn take(&self, lease: &Lease, tenant: &TenantId, blob: &Descriptor) -> Result<bool> {
        let mut state = self.state();
        let has = state.builders.get(tenant).and_then(|blobs| blobs.get(&blob.digest)).cloned();
        let Some(bytes) = has else { return Ok(false) };
        state.hold(lease, &blob.digest)?;
        state.blobs.entry(blob.digest.clone()).or_insert_with(|| (bytes, HashMap::new()));
        Ok(true)
    }

    async fn has_snapshot(&self, lease: &Lease, chain_id: &str) -> Result<bool> {
        let mut state = self.state();
        if let Some(held) = state.leases.get_mut(&lease.0) {
            held.snapshots.insert(chain_id.to_owned());
        }
        Ok(state.snapshots.contains_key(chain_id))
    }

    async fn unpack_layer(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        parent: &str,
        chain_id: &str,
        expected_diff_id: &Digest,
    ) -> Result<()> {
        let mut state = self.state();
        if let Some(text) = state.fail_unpack.take() {
            return Err(Error::system(text));
        }
        if !parent.is_empty() && !state.snapshots.contains_key(parent) {
            return Err(Error::not_found(format!("parent snapshot {parent} does not exist: not found")));
        }
        let missing = || Error::not_found(format!("content digest {}: not found", layer.digest));
        let (bytes, _) = state.blobs.get(&layer.digest).ok_or_else(missing)?;
        let tar = unpacked(bytes)?;
        check_tar(&tar).map_err(|error| error.context(format!("failed to register layer {}", layer.digest)))?;
        if Digest::of(&tar) != *expected_diff_id {
            return Err(Error::layer_holds_another_tar(layer.digest.as_str(), expected_diff_id.as_str()));
        }
        let size = tar.len() as u64;
        state.snapshots.insert(chain_id.to_owned(), (parent.to_owned(), size));
        if let Some(held) = state.leases.get_mut(&lease.0) {
            held.snapshots.insert(chain_id.to_owned());
        }
        Ok(())
    }

    async fn store_changes(&self, lease: &Lease, container: &ContainerId) -> Result<NewLayer> {
        let mut state = self.state();
        let tar = state.changes.get(container).cloned().unwrap_or_else(|| samples::tar(&[]));
        let packed = samples::pack(&tar, samples::Packing::Gzip);
        let blob = Descriptor::of(media_type::OCI_LAYER_GZIP, &packed);
        state.hold(lease, &blob.digest)?;
        state.blobs.entry(blob.digest.clone()).or_insert((packed, HashMap::new()));
        Ok(NewLayer { blob, diff_id: Digest::of(&tar) })
    }

    async fn list_changes(&self, container: &ContainerId) -> Result<Vec<Change>> {
        let Some(tar) = self.state().changes.get(container).cloned() else { return Ok(Vec::new()) };
        let mut archive = tar::Archive::new(tar.as_ref());
        let entries = archive.entries().map_err(|error| Error::system(error.to_string()))?;
        let change = |name: String| match name.strip_prefix(".wh.") {
            Some(gone) => Change { path: format!("/{gone}"), kind: ChangeKind::Deleted },
            None => Change { path: format!("/{name}"), kind: ChangeKind::Added },
        };
        Ok(entries.flatten().filter_map(|entry| Some(change(entry.path().ok()?.display().to_string()))).collect())
    }

    async fn snapshot_size(&self, chain_id: &str) -> Result<u64> {
        let missing = || Error::not_found(format!("snapshot {chain_id} does not exist: not found"));
        self.state().snapshots.get(chain_id).map(|(_, size)| *size).ok_or_else(missing)
    }

    fn snapshotter(&self) -> &str {
        SNAPSHOTTER
    }

    fn connection(&self) -> u64 {
        self.state().connection
    }

    async fn collect_garbage(&self) -> Result<()> {
        self.state().collect();
        Ok(())
    }
}

struct FakeWriter {
    store: FakeImages,
    lease: Lease,
    /// Who sends it, and what it has to be.
    wanted: Option<(String, Descriptor)>,
    bytes: BytesMut,
}

#[async_trait]
impl BlobWriter for FakeWriter {
    fn offset(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn truncate(&mut self) -> Result<()> {
        self.bytes.clear();
        Ok(())
    }

    async fn commit(mut self: Box<Self>, labels: HashMap<String, String>) -> Result<Digest> {
        let bytes = std::mem::take(&mut self.bytes).freeze();
        let digest = Digest::of(&bytes);
        if let Some((_, wanted)) = self.wanted.take()
            && (wanted.digest != digest || wanted.size != bytes.len() as u64)
        {
            return Err(Error::blob_verification_failed(wanted.digest.as_str()));
        }
        let mut state = self.store.state();
        state.hold(&self.lease, &digest)?;
        state.blobs.entry(digest.clone()).or_insert((bytes, labels));
        Ok(digest)
    }
}

impl Drop for FakeWriter {
    /// An ingest stays for the next writer.
    fn drop(&mut self) {
        if let Some((source, wanted)) = self.wanted.take() {
            let bytes = std::mem::take(&mut self.bytes);
            self.store.state().ingests.insert((source, wanted.digest), bytes);
        }
    }
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    let read = match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut tar),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut tar)),
        _ => return Ok(bytes.to_vec()),
    };
    read.map_err(|error| Error::system(format!("unpacking: {error}")))?;
    Ok(tar)
}

fn check_tar(bytes: &[u8]) -> Result<()> {
    let invalid = |error: std::io::Error| Error::system("archive/tar: invalid tar header").with_source(error);
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().map_err(invalid)? {
        entry.map_err(invalid)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fake_keeps_the_contract() {
        super::super::contract::image_backend(&FakeImages::default()).await;
    }

    #[tokio::test]
    async fn fake_stores_changes_as_the_contract_says() {
        let images = FakeImages::default();
        let changed = async |_: &str| {
            let container = ContainerId::random();
            images.set_changes(&container, samples::tar(&[("new", b"new"), (".wh.gone", b"")]));
            container
        };
        super::super::contract::changes(&images, changed, async |_| ContainerId::random()).await;
    }
}
