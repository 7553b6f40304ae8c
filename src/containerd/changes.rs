//! What a container changed on its image. The comparison is ours (`rootfs::Changes`): of overlayfs it reads the
//! container's own folder, where containerd's diff service would walk through all of the image twice.

use std::collections::HashMap;

use containerd_client::services::v1::snapshots::{RemoveSnapshotRequest, StatSnapshotRequest, ViewSnapshotRequest};
use tokio::sync::mpsc;

use super::{Client, Containerd, content, from_status, snapshots};
use crate::{
    backend::{
        images::{BlobWriter, NewLayer},
        runtime::RootfsMount,
    },
    model::{
        Error, Result,
        container::Change,
        id::ContainerId,
        image::{Descriptor, documents::media_type},
    },
    rootfs::{Changes, gzip},
    work::{Kind, Stop, Worker},
};

/// Pieces of a layer that wait to be stored.
const PIECES: usize = 4;

/// Lists the changes.
pub(super) async fn list(containerd: &Containerd, lease: &str, container: &ContainerId) -> Result<Vec<Change>> {
    compare(containerd, lease, container, async |changes, worker| worker.run("diff", move || changes.list()).await)
        .await
}

/// The label by which containerd's tools know the tar in a packed blob.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Stores the changes as a packed layer.
pub(super) async fn store(containerd: &Containerd, lease: &str, container: &ContainerId) -> Result<NewLayer> {
    let client = containerd.client().with_lease(lease)?;
    let store = async |changes: Changes, worker: &Worker| {
        let writer = content::Writer::open(client, content::Wanted::Anything).await?;
        let mut writer =
            Box::new(writer.ok_or_else(|| Error::system("containerd has a blob that nobody has written yet"))?);
        let (sender, pieces) = mpsc::channel(PIECES);
        let (packed_sender, packed) = mpsc::channel(PIECES);
        let reading = worker.run("changes", move || {
            changes.layer(&sender);
            Ok(())
        });
        let packing = worker.run("gzip", move || gzip(pieces, &packed_sender));
        let writing = async move {
            // Gone with the first failure, so that the others end, too.
            let mut packed = packed;
            let mut size = 0;
            while let Some(piece) = packed.recv().await {
                size += piece.len() as u64;
                writer.write(piece).await?;
            }
            Ok::<_, Error>((writer, size))
        };
        let (read, diff_id, written) = tokio::join!(reading, packing, writing);
        read?;
        let (writer, size) = written?;
        let diff_id = diff_id?;
        let label = HashMap::from([(UNCOMPRESSED.to_owned(), diff_id.to_string())]);
        let digest = writer.commit(label).await?;
        let blob = Descriptor { digest, size, ..Descriptor::of(media_type::OCI_LAYER_GZIP, b"") };
        Ok(NewLayer { blob, diff_id })
    };
    compare(containerd, lease, container, store).await
}

/// Opens a container's files beside those of its image, of which a view is made for as long.
async fn compare<T>(
    containerd: &Containerd,
    lease: &str,
    container: &ContainerId,
    work: impl AsyncFnOnce(Changes, &Worker) -> Result<T>,
) -> Result<T> {
    // One place for all threads of a comparison: they wait for each other.
    let worker = Worker::find(Kind::Layer, Stop::never()).await?;
    let client = containerd.client().with_lease(lease)?;
    let snapshotter = containerd.snapshotter_name();
    let own = rootfs(snapshots::mounts(containerd, container.as_str()).await?);
    let view = format!("parent-{}", ContainerId::random());
    let request = ViewSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: view.clone(),
        parent: parent(&client, snapshotter, container.as_str()).await?,
        ..ViewSnapshotRequest::default()
    };
    let base = rootfs(client.snapshots().view(request).await.map_err(from_status)?.into_inner().mounts);
    let done = match worker.run("changes", move || Changes::open(&base, &own)).await {
        Ok(changes) => work(changes, &worker).await,
        Err(error) => Err(error),
    };
    let remove = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: view };
    if let Err(status) = client.snapshots().remove(remove).await {
        tracing::debug!("the view of a container's image is left to the collector: {}", status.message());
    }
    done
}

async fn parent(client: &Client, snapshotter: &str, key: &str) -> Result<String> {
    let request = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
    let answer = client.snapshots().stat(request).await.map_err(from_status)?;
    Ok(answer.into_inner().info.unwrap_or_default().parent)
}

fn rootfs(mounts: Vec<containerd_client::types::Mount>) -> Vec<RootfsMount> {
    mounts.into_iter().map(snapshots::to_rootfs_mount).collect()
}
