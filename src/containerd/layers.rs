//! Layers as snapshots: applying a tar, looking snapshots up.

use containerd_client::{
    services::v1::{
        ApplyRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UsageRequest,
        },
    },
    tonic::Code,
    types,
};

use super::{Client, Containerd, from_status};
use crate::{
    backend::images::Lease,
    model::{
        Error, Result,
        image::{Descriptor, documents::media_type},
        reference::Digest,
    },
};

/// A layer and its place in a stack.
pub(super) struct Layer<'a> {
    pub blob: &'a Descriptor,
    pub parent: &'a str,
    pub chain_id: &'a str,
    pub diff_id: &'a Digest,
}

/// Applies a layer on its parent. What a failure leaves is removed.
pub(super) async fn unpack(containerd: &Containerd, lease: &Lease, layer: &Layer<'_>) -> Result<()> {
    let client = containerd.client().with_lease(&lease.0)?;
    let key = format!("extract-{}-{}", crate::model::id::ContainerId::random().short(), layer.chain_id);
    let snapshotter = containerd.snapshotter_name().to_owned();
    let prepare = PrepareSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: key.clone(),
        parent: layer.parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let mounts = client.snapshots().prepare(prepare).await.map_err(from_status)?.into_inner().mounts;
    let done = match apply(&client, layer, mounts).await {
        Ok(()) => commit(&client, &snapshotter, &key, layer.chain_id).await,
        Err(error) => Err(error),
    };
    if !matches!(done, Ok(Committed::Ours)) {
        let remove = RemoveSnapshotRequest { snapshotter, key };
        if let Err(status) = client.snapshots().remove(remove).await {
            tracing::debug!("snapshot of a failed unpacking is left to the collector: {}", status.message());
        }
    }
    done.map(drop)
}

enum Committed {
    Ours,
    Theirs,
}

async fn apply(client: &Client, layer: &Layer<'_>, mounts: Vec<types::Mount>) -> Result<()> {
    // Whatever the manifest calls it, containerd looks at the first bytes: plain, gzip or zstd. Docker's own
    // types for zstd are not known to containerd 1.6.
    let mut diff = to_descriptor(layer.blob);
    diff.media_type = media_type::OCI_LAYER_GZIP.to_owned();
    let request = ApplyRequest { diff: Some(diff), mounts, ..ApplyRequest::default() };
    let answer = client.diff().apply(request).await.map_err(from_status);
    let answer = answer.map_err(|error| error.context(format!("failed to register layer {}", layer.blob.digest)))?;
    let applied = answer.into_inner().applied.map(|applied| applied.digest).unwrap_or_default();
    if applied != layer.diff_id.as_str() {
        return Err(Error::layer_holds_another_tar(layer.blob.digest.as_str(), layer.diff_id.as_str()));
    }
    Ok(())
}

async fn commit(client: &Client, snapshotter: &str, key: &str, chain_id: &str) -> Result<Committed> {
    let request = CommitSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        name: chain_id.to_owned(),
        key: key.to_owned(),
        ..CommitSnapshotRequest::default()
    };
    match client.snapshots().commit(request).await {
        Ok(_) => Ok(Committed::Ours),
        Err(status) if status.code() == Code::AlreadyExists => Ok(Committed::Theirs),
        Err(status) => Err(from_status(status)),
    }
}

/// Whether a chain is unpacked.
pub(super) async fn exists(containerd: &Containerd, chain_id: &str) -> Result<bool> {
    let request =
        StatSnapshotRequest { snapshotter: containerd.snapshotter_name().to_owned(), key: chain_id.to_owned() };
    match containerd.client().snapshots().stat(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(from_status(status)),
    }
}

/// Bytes of the layer alone.
pub(super) async fn size(containerd: &Containerd, chain_id: &str) -> Result<u64> {
    let request = UsageRequest { snapshotter: containerd.snapshotter_name().to_owned(), key: chain_id.to_owned() };
    let answer = containerd.client().snapshots().usage(request).await.map_err(from_status)?;
    Ok(u64::try_from(answer.into_inner().size).unwrap_or_default())
}

/// Ours as containerd's.
pub(super) fn to_descriptor(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone().into_iter().collect(),
    }
}

/// containerd's as ours.
pub(super) fn from_descriptor(descriptor: types::Descriptor) -> Result<Descriptor> {
    Ok(Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest.parse()?,
        size: u64::try_from(descriptor.size).unwrap_or_default(),
        urls: Vec::new(),
        annotations: descriptor.annotations.into_iter().collect(),
        platform: None,
    })
}
