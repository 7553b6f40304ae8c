//! Writable layers of containers.

use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, UsageRequest,
};

use super::{Client, Containerd, from_status};
use crate::{
    backend::runtime::RootfsMount,
    model::{ErrorKind, Result},
};

/// Makes a writable layer; `client` must carry a lease, or the collector may take it before a container refers to it.
pub(super) async fn prepare(client: &Client, snapshotter: &str, key: &str, parent: &str) -> Result<()> {
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    client.snapshots().prepare(request).await.map_err(from_status)?;
    Ok(())
}

/// Removes a layer. One that is gone is success: the collector may have been first.
pub(super) async fn remove(containerd: &Containerd, key: &str) -> Result<()> {
    let request = RemoveSnapshotRequest { snapshotter: containerd.snapshotter_name().to_owned(), key: key.to_owned() };
    match containerd.client().snapshots().remove(request).await.map_err(from_status) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How to mount a layer with all below it.
pub(super) async fn mounts(containerd: &Containerd, key: &str) -> Result<Vec<containerd_client::types::Mount>> {
    let request = MountsRequest { snapshotter: containerd.snapshotter_name().to_owned(), key: key.to_owned() };
    let answer = containerd.client().snapshots().mounts(request).await.map_err(from_status)?;
    Ok(answer.into_inner().mounts)
}

/// Bytes in a layer alone.
pub(super) async fn usage(containerd: &Containerd, key: &str) -> Result<u64> {
    let request = UsageRequest { snapshotter: containerd.snapshotter_name().to_owned(), key: key.to_owned() };
    let answer = containerd.client().snapshots().usage(request).await.map_err(from_status)?;
    Ok(u64::try_from(answer.into_inner().size).unwrap_or(0))
}

/// containerd's mount in our words.
pub(super) fn to_rootfs_mount(mount: containerd_client::types::Mount) -> RootfsMount {
    RootfsMount { kind: mount.r#type, source: mount.source, options: mount.options }
}
