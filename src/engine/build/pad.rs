//! A writable layer over an image, without a container that runs: `COPY`, `ADD` and `WORKDIR` write onto it, and
//! `COPY --from` reads from one.

use super::{builder::Builder, stage::BaseImage, stop_of};
use crate::{
    backend::{images::NewLayer, runtime::RootfsMount},
    model::{Result, id::ContainerId, layer::LayerRecord},
    rootfs::RootView,
    work::{Kind, Worker},
};

/// A layer that is made.
pub(super) struct Pad {
    id: ContainerId,
    /// What it consists of.
    pub mounts: Vec<RootfsMount>,
}

impl Builder<'_> {
    /// Makes one; it must be taken away.
    pub(super) async fn pad(&self, image: Option<&BaseImage>) -> Result<Pad> {
        let parent = image.map(BaseImage::chain_id).unwrap_or_default();
        let id = self.engine.create_layer(self.scope.tenant(), &LayerRecord::Build, parent).await?;
        match self.engine.backends.runtime.rootfs(&id).await {
            Ok(mounts) => Ok(Pad { id, mounts }),
            Err(error) => {
                self.engine.delete_layer(&id).await;
                Err(error)
            }
        }
    }

    pub(super) async fn take_away(&self, pad: Pad) {
        self.engine.delete_layer(&pad.id).await;
    }

    /// Does something with the files of an image, and stores what that changed.
    pub(super) async fn on_pad<F>(&self, image: Option<&BaseImage>, work: F) -> Result<NewLayer>
    where
        F: FnOnce(&RootView) -> Result<()> + Send + 'static,
    {
        let pad = self.pad(image).await?;
        let worked = self.work_on(&pad, work).await;
        self.stored(pad, worked).await
    }

    /// Does something with the files of a pad.
    pub(super) async fn work_on<F>(&self, pad: &Pad, work: F) -> Result<()>
    where
        F: FnOnce(&RootView) -> Result<()> + Send + 'static,
    {
        let mounts = pad.mounts.clone();
        self.long(move || work(&RootView::stopped(&mounts, false, &[])?)).await
    }

    /// Stores what was done with a pad, if that succeeded, and takes the pad away.
    pub(super) async fn stored(&self, pad: Pad, worked: Result<()>) -> Result<NewLayer> {
        let stored = match worked {
            Ok(()) => self.engine.images.backend.store_changes(self.lease, &pad.id).await,
            Err(error) => Err(error),
        };
        self.take_away(pad).await;
        stored
    }

    /// Does what may take long and ends with the build.
    pub(super) async fn long<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        Worker::find(Kind::Layer, stop_of(self.cancelled)).await?.run("build", work).await
    }
}
