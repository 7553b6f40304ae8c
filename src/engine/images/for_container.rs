//! The image of a container that is about to be made.

use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        image::{ImageForContainer, Platform},
    },
};

impl Engine {
    /// Finds an image by name or id, for `platform` or this machine's, and sees to it that it is unpacked.
    ///
    /// Errors: 404 `No such image: x:latest`, which makes clients pull; 404 as well where the image is there but not for
    /// this platform; 400 for one of Windows.
    pub async fn image_for_container(
        &self,
        scope: &Scope,
        reference: &str,
        platform: Option<&Platform>,
    ) -> Result<ImageForContainer> {
        let found = self.images.find(scope.tenant(), reference).await?;
        let tree = self.images.tree(&found).await?;
        let wanted = || platform.cloned().unwrap_or_else(Platform::host).to_string();
        let chosen = tree.choose(platform).ok_or_else(|| Error::platform_not_provided(reference, &wanted()));
        let (variant, content) = chosen?;
        let system = variant.platform.normalized().os;
        if system == "windows" {
            return Err(Error::foreign_system(&system));
        }
        let chain_id = content.top_chain();
        let manifest = &variant.descriptor.digest;
        // That the layers of its configuration are unpacked says nothing of who has them.
        let is_ready = self.images.proven.has(manifest) && self.images.is_unpacked(&chain_id).await?;
        if !chain_id.is_empty() && !is_ready {
            let lease = self.images.backend.lease().await?;
            let unpacked = self.images.unpack(&lease, &content.manifest, &content.document).await;
            let pinned = match unpacked {
                Ok(()) => self.images.pin_manifest(&variant.descriptor, &content.manifest, &content.document).await,
                Err(error) => Err(error),
            };
            self.images.backend.release(lease).await?;
            pinned?;
            self.images.proven.add(manifest);
        }
        Ok(ImageForContainer {
            id: found.target.digest.clone(),
            manifest: variant.descriptor.clone(),
            platform: variant.platform.clone(),
            config: content.document.config.clone(),
            chain_id,
        })
    }
}
