//! Where a stage stands: the image so far, and the configuration of the next.

use std::sync::Arc;

use crate::{
    dockerfile::args::BuildArguments,
    model::{
        image::{
            Descriptor, ImageConfig, ImageForContainer, Platform,
            documents::{ImageDocument, Manifest},
        },
        reference::Digest,
    },
};

/// Where programs are looked for; set where the base image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image that a build goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseImage {
    /// Its id points at this: of a pulled image often an index.
    pub target: Descriptor,
    /// The stage's platform's part of that.
    pub variant: Descriptor,
    /// Its layers.
    pub manifest: Manifest,
    /// Its configuration.
    pub document: ImageDocument,
}

impl BaseImage {
    pub fn id(&self) -> &Digest {
        &self.target.digest
    }

    /// As a container is made of it. The configuration is left out: a step brings its own, whole.
    pub fn for_container(&self) -> ImageForContainer {
        ImageForContainer {
            id: self.target.digest.clone(),
            manifest: self.variant.clone(),
            platform: self.document.platform.clone(),
            config: ImageConfig::default(),
            chain_id: self.chain_id(),
        }
    }

    /// Snapshot of the topmost layer; empty for none.
    pub fn chain_id(&self) -> String {
        self.document.chain_ids().pop().unwrap_or_default()
    }
}

/// A stage under way.
pub struct StageState {
    /// The last step's image; `None` at the beginning of `FROM scratch`.
    pub image: Option<Arc<BaseImage>>,
    /// What the next image will be configured as.
    pub config: ImageConfig,
    /// For which platform.
    pub platform: Platform,
    /// `MAINTAINER`
    pub author: String,
    /// Whether `CMD` has come.
    pub has_command: bool,
    /// `ARG`s that hold here.
    pub arguments: BuildArguments,
    /// A step was not found: what follows is not looked for.
    pub is_past_cache: bool,
    /// Of `cachefrom` the image that has the steps so far, and more: no other one's history is looked into.
    pub followed: Option<Arc<BaseImage>>,
}

impl StageState {
    pub fn new(image: Option<Arc<BaseImage>>, platform: Platform, arguments: BuildArguments) -> Self {
        let document = image.as_ref().map(|image| &image.document);
        let mut config = document.map(|document| document.config.clone()).unwrap_or_default();
        if !config.env.iter().any(|line| line.split('=').next() == Some("PATH")) {
            config.env.push(DEFAULT_PATH.to_owned());
        }
        let platform = document.map_or(platform, |document| document.platform.clone());
        Self {
            image,
            config,
            platform,
            author: String::new(),
            has_command: false,
            arguments,
            is_past_cache: false,
            followed: None,
        }
    }

    /// The image's id, empty for none.
    pub fn id(&self) -> &str {
        self.image.as_ref().map_or("", |image| image.id().as_str())
    }

    /// As ` ---> ` shows it.
    pub fn short_id(&self) -> &str {
        self.image.as_ref().map_or("", |image| super::commit::short(image.id()))
    }
}
