//! A step's image: the one before it with one more line of history, and perhaps one more layer.

use std::sync::Arc;

use super::{
    builder::Builder,
    stage::{BaseImage, StageState},
};
use crate::{
    backend::images::NewLayer,
    engine::images::Held,
    model::{
        Result,
        image::{
            Descriptor,
            documents::{EMPTY_LAYER, HistoryEntry, ImageDocument},
        },
        reference::{Digest, Reference},
        time::Timestamp,
    },
};

/// The first twelve digits.
pub(super) fn short(digest: &Digest) -> &str {
    let hex = digest.hex();
    &hex[..hex.len().min(12)]
}

impl Builder<'_> {
    /// Makes the image of a step. `layer` is what it changed; one in which nothing is changed counts as none.
    pub(super) async fn commit(
        &mut self,
        state: &mut StageState,
        command: &[String],
        layer: Option<NewLayer>,
    ) -> Result<()> {
        let layer = layer.filter(|layer| layer.diff_id.as_str() != EMPTY_LAYER);
        let created = Some(Timestamp::now());
        let parent = state.image.as_deref();
        let mut document = ImageDocument {
            created,
            author: state.author.clone(),
            platform: state.platform.clone(),
            config: state.config.clone(),
            rootfs: parent.map(|parent| parent.document.rootfs.clone()).unwrap_or_default(),
            history: parent.map(|parent| parent.document.history.clone()).unwrap_or_default(),
            ..ImageDocument::default()
        };
        document.history.push(HistoryEntry {
            created,
            created_by: command.join(" "),
            author: state.author.clone(),
            empty_layer: layer.is_none(),
            ..HistoryEntry::default()
        });
        let mut layers = parent.map(|parent| parent.manifest.layers.clone()).unwrap_or_default();
        if let Some(layer) = layer {
            document.rootfs.diff_ids.push(layer.diff_id);
            layers.push(layer.blob);
        }
        let image = self.store(document, layers).await?;
        self.engine.images.set_parent(image.id(), parent.map(BaseImage::id)).await?;
        self.cache.add(self.engine, self.scope, state, command, &image).await?;
        state.image = Some(image);
        Ok(())
    }

    /// Stores an image whose layers are here, unpacked and pinned; it has no name yet.
    pub(super) async fn store(&self, document: ImageDocument, layers: Vec<Descriptor>) -> Result<Arc<BaseImage>> {
        let images = &self.engine.images;
        let (target, manifest) = images.store_manifest(self.lease, &document, layers).await?;
        images.unpack(self.lease, &manifest, &document).await?;
        images.pin_manifest(&target, &manifest, &document).await?;
        Ok(Arc::new(BaseImage { variant: target.clone(), target, manifest, document }))
    }

    /// Gives the whole build's image its names. Without any it is kept as it is.
    pub(super) async fn name(&self, image: &BaseImage, names: &[Reference]) -> Result<()> {
        let images = &self.engine.images;
        images.forget_tree(image.id());
        if names.is_empty() {
            images.keep_nameless(self.scope.tenant(), &image.target, Held::default()).await?;
        }
        self.output.say(format!("Successfully built {}\n", short(image.id()))).await;
        for name in names {
            images.point(self.scope.tenant(), name, &image.target, Held::default()).await?;
            let (id, name) = (image.id().as_str(), name.familiar());
            self.engine.image_event(self.scope, "tag", id, &name, indexmap::IndexMap::new());
            self.output.say(format!("Successfully tagged {name}\n")).await;
        }
        Ok(())
    }
}
