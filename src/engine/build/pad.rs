//! A writable layer over an image, without a container that runs: `COPY`, `ADD` and `WORKDIR` write onto it, and
//! `COPY --from` reads from one.

use std::collections::HashMap;

use tracing::warn;

use super::{builder::Builder, stage::BaseImage, stop_of};
use crate::{
    backend::{
        images::NewLayer,
        runtime::{NewContainer, RootfsMount},
    },
    model::{Result, id::ContainerId},
    rootfs::RootView,
    work::{Kind, Worker},
};

/// The record of one: a daemon that was killed leaves them to the next.
const RECORD: &[u8] = b"{\"BuildPad\":true}";

/// Whether a stored container is none, but was left by a build.
pub fn is_pad(record: &[u8]) -> bool {
    record == RECORD
}

/// A layer that is made.
pub(super) struct Pad {
    id: ContainerId,
    /// What it consists of.
    pub mounts: Vec<RootfsMount>,
}

impl Builder<'_> {
    /// Makes one; it must be taken away.
    pub(super) async fn pad(&self, image: Option<&BaseImage>) -> Result<Pad> {
        let runtime = &self.engine.backends.runtime;
        let new = NewContainer {
            id: ContainerId::random(),
            parent: image.map(BaseImage::chain_id).unwrap_or_default(),
            image: String::new(),
            labels: HashMap::from([("ringer.build".to_owned(), self.tenant.to_string())]),
            runtime: runtime.resolve_runtime("")?,
            record: RECORD.to_vec(),
        };
        runtime.create_container(&new).await?;
        match runtime.rootfs(&new.id).await {
            Ok(mounts) => Ok(Pad { id: new.id, mounts }),
            Err(error) => {
                self.take_away(Pad { id: new.id, mounts: Vec::new() }).await;
                Err(error)
            }
        }
    }

    pub(super) async fn take_away(&self, pad: Pad) {
        if let Err(error) = self.engine.backends.runtime.delete_container(&pad.id).await {
            warn!("removing the layer {} of a build: {}", pad.id, error.chain());
        }
    }

    /// Does something with the files of an image, and stores what that changed.
    pub(super) async fn on_pad<F>(&self, image: Option<&BaseImage>, work: F) -> Result<NewLayer>
    where
        F: FnOnce(&RootView) -> Result<()> + Send + 'static,
    {
        let pad = self.pad(image).await?;
        let mounts = pad.mounts.clone();
        let worked = self.long(move || work(&RootView::stopped(&mounts, false, &[])?)).await;
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
