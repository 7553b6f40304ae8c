//! What a container changed on its image. The comparison is ours (`rootfs::Changes`): of overlayfs it reads the
//! container's own folder, where containerd's diff service would walk through all of the image twice.

use containerd_client::services::v1::snapshots::{RemoveSnapshotRequest, StatSnapshotRequest, ViewSnapshotRequest};
use tokio::sync::mpsc;

use super::{Client, Containerd, content, from_status, snapshots};
use crate::{
    backend::{images::BlobWriter, runtime::RootfsMount},
    model::{
        Error, Result,
        container::Change,
        id::ContainerId,
        image::{Descriptor, documents::media_type},
    },
    rootfs::Changes,
};

/// Pieces of a layer that wait to be stored.
const PIECES: usize = 4;

/// Lists the changes.
pub(super) async fn list(containerd: &Containerd, lease: &str, container: &ContainerId) -> Result<Vec<Change>> {
    compare(containerd, lease, container, async |changes| blocking(move || changes.list()).await?).await
}

/// Stores the changes as an uncompressed layer.
pub(super) async fn store(containerd: &Containerd, lease: &str, container: &ContainerId) -> Result<Descriptor> {
    let client = containerd.client().with_lease(lease)?;
    let store = async |changes: Changes| {
        let writer = content::Writer::open(client, content::Wanted::Anything).await?;
        let mut writer =
            Box::new(writer.ok_or_else(|| Error::system("containerd has a blob that nobody has written yet"))?);
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let reading = blocking(move || changes.layer(&sender));
        let writing = async {
            let mut size = 0;
            while let Some(piece) = pieces.recv().await {
                let piece = piece?;
                size += piece.len() as u64;
                writer.write(piece).await?;
            }
            let digest = writer.commit(std::collections::HashMap::new()).await?;
            Ok(Descriptor { digest, size, ..Descriptor::of(media_type::OCI_LAYER, b"") })
        };
        let (read, written) = tokio::join!(reading, writing);
        read.and(written)
    };
    compare(containerd, lease, container, store).await
}

/// Opens a container's files beside those of its image, of which a view is made for as long.
async fn compare<T>(
    containerd: &Containerd,
    lease: &str,
    container: &ContainerId,
    work: impl AsyncFnOnce(Changes) -> Result<T>,
) -> Result<T> {
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
    let done = match blocking(move || Changes::open(&base, &own)).await.flatten() {
        Ok(changes) => work(changes).await,
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

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::system("reading the container's files failed").with_source(panic))
}
