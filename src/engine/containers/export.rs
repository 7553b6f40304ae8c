//! `GET /containers/{id}/export` and `/changes`: a container's own files, running or not, without its volumes.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::archive::ArchiveStream;
use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        container::{Change, ContainerState},
    },
    rootfs::RootView,
    work::{Kind, Worker, blocking},
};

/// Pieces of an archive that wait for a slow client.
const PIECES: usize = 4;

impl Engine {
    /// All files as a tar.
    pub async fn container_export(&self, scope: &Scope, reference: &str) -> Result<ArchiveStream> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let id = container.id().clone();
        match container.state() {
            ContainerState::Dead(_) => {
                return Err(Error::conflict(format!("You cannot export container {id} which is Dead")));
            }
            ContainerState::Removing(_) => {
                return Err(Error::conflict(format!("You cannot export container {id} which is being removed")));
            }
            _ => {}
        }
        let worker = Worker::find(Kind::Download, self.stop_of_download(&container)).await?;
        let rootfs = self.backends.runtime.rootfs(&id).await?;
        let view = blocking(move || RootView::layers(&rootfs)).await?;
        let (sender, receiver) = mpsc::channel(PIECES);
        let engine = self.clone();
        self.spawn("export", async move {
            let exported = worker.run("export", move || {
                view.export(&sender);
                Ok(())
            });
            if exported.await.is_ok() {
                engine.events.container(&container.record(), "export", &[]);
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// What the container changed on its image.
    pub async fn container_changes(&self, scope: &Scope, reference: &str) -> Result<Vec<Change>> {
        let container = self.containers.get(scope.tenant(), reference)?;
        self.images.backend.list_changes(container.id()).await
    }
}
