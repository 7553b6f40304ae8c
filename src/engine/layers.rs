//! Layers that stand for themselves: builds write onto them, mounted images are seen through them.

use std::collections::HashMap;

use tracing::warn;

use crate::{
    backend::runtime::NewContainer,
    engine::Engine,
    model::{
        Result,
        id::{ContainerId, TenantId},
        layer::LayerRecord,
        record,
    },
};

impl Engine {
    /// Makes a layer over the image with this chain id, empty for none; it must be taken away by who made it.
    pub(crate) async fn create_layer(
        &self,
        tenant: &TenantId,
        layer: &LayerRecord,
        parent: String,
    ) -> Result<ContainerId> {
        let runtime = &self.backends.runtime;
        let mut labels = HashMap::from([("ringer.tenant".to_owned(), tenant.to_string())]);
        match layer {
            LayerRecord::Build => drop(labels.insert("ringer.build".to_owned(), tenant.to_string())),
            LayerRecord::ImageMount { container } => {
                labels.extend(container.iter().map(|container| ("ringer.mount".to_owned(), container.to_string())));
            }
        }
        let new = NewContainer {
            id: ContainerId::random(),
            parent,
            image: String::new(),
            labels,
            runtime: runtime.resolve_runtime("")?,
            record: record::write(layer),
        };
        runtime.create_container(&new).await?;
        Ok(new.id)
    }

    /// Takes a layer away; a failure is logged.
    pub(crate) async fn delete_layer(&self, id: &ContainerId) {
        if let Err(error) = self.backends.runtime.delete_container(id).await {
            warn!("removing the layer {id}: {}", error.chain());
        }
    }
}
