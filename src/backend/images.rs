//! What the engine asks of a content store, an image store and a snapshotter: containerd's, or the fake.

pub mod contract;
pub mod fake;
pub mod samples;

use std::{collections::HashMap, pin::Pin};

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::model::{
    Result,
    container::Change,
    id::{ContainerId, TenantId},
    image::Descriptor,
    reference::Digest,
    time::Timestamp,
};

/// A name that points at content.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRecord {
    /// Whose name it is.
    pub tenant: TenantId,
    /// The normalised reference, `docker.io/library/alpine:latest`, or a digest for an image without a name.
    pub name: String,
    /// What it points at: an index or a manifest.
    pub target: Descriptor,
    /// Labels of the record.
    pub labels: HashMap<String, String>,
    /// When the name was made.
    pub created: Timestamp,
    /// When it was last pointed elsewhere.
    pub updated: Timestamp,
}

/// What is known of a stored blob.
#[derive(Clone, Debug, PartialEq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

/// A layer that was made here.
#[derive(Clone, Debug, PartialEq)]
pub struct NewLayer {
    /// Its blob, packed.
    pub blob: Descriptor,
    /// Digest of the tar in it.
    pub diff_id: Digest,
}

/// Keeps what is made under it from the garbage collector until it is released. Dropping it without
/// `release` leaves it to its expiry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease(pub String);

/// Bytes of a blob.
pub type BlobReader = Pin<Box<dyn AsyncRead + Send>>;

/// A blob that is being written. `offset` bytes are there already (a resumed download).
#[async_trait]
pub trait BlobWriter: Send {
    /// Bytes that are already stored.
    fn offset(&self) -> u64;

    /// Appends.
    async fn write(&mut self, bytes: bytes::Bytes) -> Result<()>;

    /// Starts again from nothing, when the source cannot resume.
    async fn truncate(&mut self) -> Result<()>;

    /// Checks digest and size where they were known before, and makes the blob visible; returns its digest.
    /// A blob that is there already is success. After a mismatch nothing is kept.
    async fn commit(self: Box<Self>, labels: HashMap<String, String>) -> Result<Digest>;
}

/// A content store with image names and a snapshotter behind it.
///
/// Labels that keep things from the garbage collector (`containerd.io/gc.ref.…`) are set by the engine
/// through the labels arguments; an image record must pin content and snapshot chain.
#[async_trait]
pub trait ImageBackend: Send + Sync + 'static {
    /// Starts a lease that ends by itself after an hour.
    async fn lease(&self) -> Result<Lease>;

    /// Ends a lease; what nothing else refers to goes.
    async fn release(&self, lease: Lease) -> Result<()>;

    /// All names of a tenant.
    async fn list_images(&self, tenant: &TenantId) -> Result<Vec<ImageRecord>>;

    /// One name of a tenant.
    async fn get_image(&self, tenant: &TenantId, name: &str) -> Result<Option<ImageRecord>>;

    /// Makes a name or points it elsewhere: as it is kept, with the times at which it was made and now pointed elsewhere.
    async fn put_image(&self, image: &ImageRecord) -> Result<ImageRecord>;

    /// Takes a name away; what nothing else refers to goes. With `sync`, waits for the collector.
    async fn delete_image(&self, tenant: &TenantId, name: &str, sync: bool) -> Result<()>;

    /// Looks a blob up; `None` if it is not there.
    async fn blob_info(&self, digest: &Digest) -> Result<Option<BlobInfo>>;

    /// Opens a blob for reading from `offset`.
    async fn read_blob(&self, digest: &Digest, offset: u64) -> Result<BlobReader>;

    /// Opens a blob for writing; goes on where an earlier writer with the same digest stopped. `None` if it is there
    /// already; then the lease keeps it, too.
    async fn write_blob(&self, lease: &Lease, descriptor: &Descriptor) -> Result<Option<Box<dyn BlobWriter>>> {
        self.fetch_blob(lease, descriptor, "").await
    }

    /// The same for bytes that `source` sends: what others have sent of it is not taken up.
    async fn fetch_blob(
        &self,
        lease: &Lease,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<Box<dyn BlobWriter>>>;

    /// Opens a blob whose digest is not known before its last byte.
    async fn write_new_blob(&self, lease: &Lease) -> Result<Box<dyn BlobWriter>>;

    /// Sets labels of a blob, leaving others as they are; an empty value removes one.
    async fn label_blob(&self, digest: &Digest, labels: HashMap<String, String>) -> Result<()>;

    /// Whether a chain of layers is unpacked; then the lease keeps it.
    async fn has_snapshot(&self, lease: &Lease, chain_id: &str) -> Result<bool>;

    /// Unpacks one layer onto `parent` (empty for none) and commits it as `chain_id`; success if it is there already.
    /// A tar whose digest is not `expected_diff_id` is an error and keeps nothing.
    async fn unpack_layer(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        parent: &str,
        chain_id: &str,
        expected_diff_id: &Digest,
    ) -> Result<()>;

    /// Stores what a container's writable layer changes on its image, as a layer with gzip, as it is pushed. A container
    /// that changed nothing gives a tar without entries. The container should not write meanwhile.
    async fn store_changes(&self, lease: &Lease, container: &ContainerId) -> Result<NewLayer>;

    /// What a container's writable layer changes on its image; folders stand before what they hold.
    async fn list_changes(&self, container: &ContainerId) -> Result<Vec<Change>>;

    /// Bytes that the snapshot's own layer takes on disk.
    async fn snapshot_size(&self, chain_id: &str) -> Result<u64>;

    /// Lends blobs to the builder of a cache, which is called as its tenant, for [`LENT`](crate::backend::builds::LENT) at least; those that are not here are left out.
    async fn lend(&self, cache: &TenantId, blobs: &[Descriptor]) -> Result<()>;

    /// Takes a blob from the builder of a cache; then the lease keeps it. Whether the builder has it: that it is here for others
    /// counts for nothing.
    async fn take(&self, lease: &Lease, cache: &TenantId, blob: &Descriptor) -> Result<bool>;

    /// Name of the snapshotter, for gc labels and `/info`.
    fn snapshotter(&self) -> &str;

    /// Which connection to it this is: after another one it may be another store, with other names.
    fn connection(&self) -> u64;

    /// Removes what nothing refers to, now.
    async fn collect_garbage(&self) -> Result<()>;
}
