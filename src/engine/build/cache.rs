//! What was built before. Every step's image is kept under a name that no list shows (`TenantId::of_builds`), and its
//! record says of which image it was made and by which command: the same command on the same image is the same image.
//! A record pins content and snapshots as every image's does.
//!
//! With `cachefrom` the history of the named images is looked into instead, as dockerd does it.

use std::{collections::HashMap, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{
    BuildRequest,
    builder::Builder,
    stage::{BaseImage, StageState},
};
use crate::{
    backend::images::ImageRecord,
    engine::{Engine, tenants::Scope},
    model::{Result, image::documents::ImageDocument, reference::Digest, time::Timestamp},
};

/// What a step was made by.
const KEY: &str = "ringer.build.key";
/// The image before it; empty for none.
pub(super) const PARENT: &str = "ringer.build.parent";
/// The command as the history has it, cut.
pub(super) const COMMAND: &str = "ringer.build.command";

/// Characters, of at most four bytes: containerd refuses labels of more than 4096.
const LONGEST_COMMAND: usize = 900;

/// Where steps are looked for.
pub(super) struct Cache {
    steps: HashMap<String, ImageRecord>,
    /// `cachefrom`, as far as they are here.
    sources: Vec<Arc<BaseImage>>,
    has_sources: bool,
    is_off: bool,
}

impl Cache {
    pub async fn open(engine: &Engine, scope: &Scope, request: &BuildRequest) -> Result<Self> {
        let mut cache = Self {
            steps: HashMap::new(),
            sources: Vec::new(),
            has_sources: !request.cache_from.is_empty(),
            is_off: request.no_cache,
        };
        if cache.is_off {
            return Ok(cache);
        }
        for name in &request.cache_from {
            // dockerd passes over what is not here.
            let Ok(found) = engine.images.find(scope.tenant(), name).await else { continue };
            let tree = engine.images.tree(&found).await?;
            if let Some((variant, content)) = tree.choose(request.platform.as_ref()) {
                cache.sources.push(Arc::new(BaseImage {
                    target: found.target.clone(),
                    variant: variant.descriptor.clone(),
                    manifest: content.manifest.clone(),
                    document: content.document.clone(),
                }));
            }
        }
        if !cache.has_sources {
            for record in engine.images.backend.list_images(&scope.tenant().of_builds()).await? {
                let Some(key) = record.labels.get(KEY) else { continue };
                let newer = cache.steps.get(key).is_none_or(|known| known.created < record.created);
                if newer {
                    cache.steps.insert(key.clone(), record);
                }
            }
        }
        Ok(cache)
    }

    /// Keeps a step that was made.
    pub async fn add(
        &mut self,
        engine: &Engine,
        scope: &Scope,
        state: &StageState,
        command: &[String],
        image: &BaseImage,
    ) -> Result<()> {
        let key = key(state, command);
        let shown: String = command.join(" ").chars().take(LONGEST_COMMAND).collect();
        let labels = [(KEY, key.clone()), (PARENT, state.id().to_owned()), (COMMAND, shown)];
        let record = ImageRecord {
            tenant: scope.tenant().of_builds(),
            name: image.id().to_string(),
            target: image.target.clone(),
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            created: Timestamp::now(),
            updated: Timestamp::now(),
        };
        engine.images.backend.put_image(&record).await?;
        self.steps.insert(key, record);
        Ok(())
    }
}

impl Builder<'_> {
    /// Goes on with the image of a step that was made before. After the first that was not, none is looked for.
    pub(super) async fn find(&mut self, state: &mut StageState, command: &[String]) -> Result<bool> {
        if self.cache.is_off || state.is_past_cache {
            return Ok(false);
        }
        let found = match self.cache.has_sources {
            true => self.of_sources(state, command).await?,
            false => self.of_steps(state, command).await?,
        };
        let Some(image) = found else {
            state.is_past_cache = true;
            return Ok(false);
        };
        state.image = Some(image);
        self.output.say(" ---> Using cache\n").await;
        Ok(true)
    }

    async fn of_steps(&self, state: &StageState, command: &[String]) -> Result<Option<Arc<BaseImage>>> {
        let Some(record) = self.cache.steps.get(&key(state, command)) else { return Ok(None) };
        let images = &self.engine.images;
        // Taken away since the build began; or else the lease keeps it from now on.
        if images.backend.blob_info(&record.target.digest).await?.is_none()
            || images.backend.write_blob(self.lease, &record.target).await?.is_some()
        {
            return Ok(None);
        }
        let tree = images.whole_tree(&record.target).await?;
        let content = tree.choose(None).map(|(_, content)| content.clone());
        Ok(content.map(|content| {
            let target = record.target.clone();
            Arc::new(BaseImage {
                variant: target.clone(),
                target,
                manifest: content.manifest,
                document: content.document,
            })
        }))
    }

    async fn of_sources(&mut self, state: &mut StageState, command: &[String]) -> Result<Option<Arc<BaseImage>>> {
        let before = state.image.as_ref().map(|image| image.document.clone()).unwrap_or_default();
        let wanted = command.join(" ");
        let at = before.history.len();
        let fits = |source: &&Arc<BaseImage>| {
            goes_on(&source.document, &before) && source.document.history[at].created_by == wanted
        };
        let source = match &state.followed {
            Some(followed) => Some(followed).filter(fits),
            None => self.cache.sources.iter().find(fits),
        };
        let Some(source) = source.cloned() else { return Ok(None) };
        let images = &self.engine.images;
        let parent = state.image.as_deref().map(BaseImage::id);
        if source.document.history.len() == at + 1 {
            images.set_parent(source.id(), parent).await?;
            return Ok(Some(source));
        }
        state.followed = Some(source.clone());
        let history = source.document.history[..=at].to_vec();
        let layers = history.iter().filter(|entry| !entry.empty_layer).count();
        let mut document = source.document.clone();
        document.created = history.last().and_then(|entry| entry.created);
        document.config = state.config.clone();
        document.history = history;
        document.rootfs.diff_ids.truncate(layers);
        let layers = source.manifest.layers[..layers.min(source.manifest.layers.len())].to_vec();
        let image = self.store(document, layers).await?;
        images.set_parent(image.id(), parent).await?;
        self.cache.add(self.engine, self.scope, state, command, &image).await?;
        Ok(Some(image))
    }
}

/// Whether an image was built upon another, and has further steps.
fn goes_on(image: &ImageDocument, parent: &ImageDocument) -> bool {
    image.history.len() > parent.history.len()
        && image.history.starts_with(&parent.history)
        && image.rootfs.diff_ids.starts_with(&parent.rootfs.diff_ids)
}

/// The same image, platform and command.
fn key(state: &StageState, command: &[String]) -> String {
    let platform = state.platform.to_string();
    let parts: Vec<&str> = [state.id(), &platform].into_iter().chain(command.iter().map(String::as_str)).collect();
    Digest::from_sha256(&Sha256::digest(parts.join("\0"))).to_string()
}
