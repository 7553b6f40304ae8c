//! Images that a build begins with or copies from: stages, images that are here, images that are pulled.

use std::sync::Arc;

use futures_util::StreamExt;

use super::{BuildMessage, builder::Builder, cancelled_error, stage::BaseImage};
use crate::{
    engine::images::PullRequest,
    model::{Error, ErrorKind, Result, image::Platform, reference::Reference},
};

/// The image without anything.
const SCRATCH: &str = "scratch";

impl Builder<'_> {
    /// What `FROM` names; `None` for `scratch`.
    pub(super) async fn base(&self, name: &str, platform: Option<&Platform>) -> Result<Option<Arc<BaseImage>>> {
        let lower = name.to_lowercase();
        if let Some(stage) = self.done.iter().find(|stage| stage.name == lower && !lower.is_empty()) {
            return Ok(stage.image.clone());
        }
        if name == SCRATCH {
            return Ok(None);
        }
        self.image(name, platform).await.map(Some)
    }

    /// What `COPY --from` names: a stage by name or number, or an image.
    pub(super) async fn copied_image(&self, from: &str, platform: &Platform) -> Result<Option<Arc<BaseImage>>> {
        let lower = from.to_lowercase();
        if let Some(stage) = self.done.iter().find(|stage| stage.name == lower) {
            return Ok(stage.image.clone());
        }
        if let Ok(number) = from.parse::<i64>() {
            let at = usize::try_from(number).ok();
            if let Some(stage) = at.and_then(|at| self.done.get(at)) {
                return Ok(stage.image.clone());
            }
            return Err(Error::system(match at == Some(self.done.len()) {
                true => "refers to current build stage",
                false => "index out of bounds",
            }));
        }
        if from == SCRATCH {
            return Ok(None);
        }
        let wish = self.request.platform.is_some().then_some(platform);
        self.image(from, wish).await.map(Some)
    }

    /// An image by name or id, pulled if it is not here or the client wants the newest.
    async fn image(&self, name: &str, platform: Option<&Platform>) -> Result<Arc<BaseImage>> {
        if !self.request.pull {
            match self.local_image(name, platform).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                found => return found,
            }
        }
        self.pull(name, platform).await?;
        self.local_image(name, platform).await
    }

    async fn local_image(&self, name: &str, platform: Option<&Platform>) -> Result<Arc<BaseImage>> {
        let images = &self.engine.images;
        // Sees to it that it is unpacked.
        self.engine.image_for_container(self.scope, name, platform).await?;
        let found = images.find(self.scope.tenant(), name).await?;
        // The lease keeps it, also if its name goes meanwhile.
        images.backend.write_blob(self.lease, &found.target).await?;
        let tree = images.tree(&found).await?;
        let chosen = tree.choose(platform).ok_or_else(|| Error::no_such_image(name));
        let (variant, content) = chosen?;
        Ok(Arc::new(BaseImage {
            target: found.target.clone(),
            variant: variant.descriptor.clone(),
            manifest: content.manifest.clone(),
            document: content.document.clone(),
        }))
    }

    async fn pull(&self, name: &str, platform: Option<&Platform>) -> Result<()> {
        let reference = Reference::parse(name)?.or_latest();
        let request = PullRequest {
            image: reference.to_string(),
            platform: platform.cloned(),
            auth: self.request.credentials_for(&reference),
            ..PullRequest::default()
        };
        let mut messages = self.engine.image_pull(self.scope, &request).await?;
        loop {
            let message = tokio::select! {
                () = self.cancelled.cancelled() => return Err(cancelled_error()),
                message = messages.next() => message,
            };
            match message {
                Some(message) => self.output.send(BuildMessage::Progress(message?)).await,
                None => return Ok(()),
            }
        }
    }
}
