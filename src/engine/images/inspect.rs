//! `GET /images/{name}/json`.

use crate::{
    engine::{
        Engine,
        images::{
            look_up::Found,
            tree::{Content, Tree},
        },
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::ContainerRecord,
        image::{Descriptor, Platform, documents::ImageDocument},
        reference::Digest,
        time::Timestamp,
    },
};

/// Everything about an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageDetails {
    /// Digest of what its names point at, with the containerd image store: the index or the manifest.
    pub id: Digest,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with the digest.
    pub repo_digests: Vec<String>,
    /// The image that it was made on, if it was made here.
    pub parent: Option<Digest>,
    /// What the names point at.
    pub descriptor: Descriptor,
    /// The chosen platform's configuration.
    pub document: ImageDocument,
    /// Bytes of its layers as stored.
    pub size: u64,
    /// Name of the snapshotter.
    pub snapshotter: String,
    /// When a name was last pointed at it.
    pub last_tagged: Timestamp,
    /// All platforms, with `manifests=1`.
    pub manifests: Vec<ManifestSummary>,
}

/// One manifest of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ManifestSummary {
    /// It.
    pub descriptor: Descriptor,
    /// Where it runs.
    pub platform: Platform,
    /// Whether all of it is here.
    pub available: bool,
    /// Bytes as stored.
    pub content_size: u64,
    /// Bytes of its snapshots.
    pub unpacked_size: u64,
    /// Which of the tenant's containers were made from it.
    pub containers: Vec<String>,
    /// If it is no image, but an attestation: of which manifest.
    pub about: Option<String>,
}

impl Engine {
    /// Looks an image up by name or id. With `platform`, another platform's image is 404.
    pub async fn image_inspect(
        &self,
        scope: &Scope,
        image: &str,
        platform: Option<&Platform>,
        manifests: bool,
    ) -> Result<ImageDetails> {
        let found = self.images.find(scope.tenant(), image).await?;
        let tree = self.images.tree(&found).await?;
        let wanted = || platform.cloned().unwrap_or_else(Platform::host).to_string();
        let chosen = tree.choose(platform).ok_or_else(|| Error::platform_not_provided(image, &wanted()));
        let (variant, content) = chosen?;
        Ok(ImageDetails {
            id: found.id().clone(),
            repo_tags: found.repo_tags(),
            repo_digests: found.repo_digests(),
            parent: tree.parent.clone(),
            descriptor: found.target.clone(),
            document: content.document.clone(),
            size: content.size() + variant.descriptor.size,
            snapshotter: self.images.backend.snapshotter().to_owned(),
            last_tagged: last_tagged(&found),
            manifests: if manifests { self.manifest_summaries(scope, &found, &tree).await? } else { Vec::new() },
        })
    }

    /// Bytes that a container's image takes unpacked; 0 if the image is gone.
    pub(crate) async fn image_size(&self, record: &ContainerRecord) -> Result<u64> {
        let target = Descriptor { platform: None, ..record.image_manifest.clone() };
        let Ok(tree) = self.images.known_whole_tree(&target).await else { return Ok(0) };
        match tree.available().next() {
            Some((_, content)) => Ok(self.images.unpacked_size(content).await),
            None => Ok(0),
        }
    }

    /// All manifests of an image.
    pub(super) async fn manifest_summaries(
        &self,
        scope: &Scope,
        found: &Found,
        tree: &Tree,
    ) -> Result<Vec<ManifestSummary>> {
        let users = self.containers_of(scope, found.id());
        let mut manifests = Vec::new();
        for variant in &tree.variants {
            let unpacked_size = match &variant.content {
                Some(content) => self.images.unpacked_size(content).await,
                None => 0,
            };
            manifests.push(ManifestSummary {
                descriptor: variant.descriptor.clone(),
                platform: variant.platform.clone(),
                available: variant.content.is_some(),
                content_size: variant.content.as_ref().map_or(0, |content| content.size() + variant.descriptor.size),
                unpacked_size,
                containers: users.iter().map(|user| user.id.to_string()).collect(),
                about: None,
            });
        }
        manifests.extend(tree.attestations.iter().map(|attestation| ManifestSummary {
            descriptor: attestation.descriptor.clone(),
            platform: attestation.descriptor.platform.clone().unwrap_or_default(),
            available: true,
            content_size: attestation.size() + attestation.descriptor.size,
            unpacked_size: 0,
            containers: Vec::new(),
            about: Some(attestation.about().to_owned()),
        }));
        Ok(manifests)
    }
}

impl crate::engine::images::ImageStore {
    /// Bytes of all snapshots of a variant; those that are not unpacked count nothing.
    pub(crate) async fn unpacked_size(&self, content: &Content) -> u64 {
        let mut size = 0;
        for chain in content.document.chain_ids() {
            size += self.snapshot_size(&chain).await;
        }
        size
    }
}

fn last_tagged(found: &Found) -> Timestamp {
    found.records.iter().map(|record| record.updated).max().unwrap_or_default()
}
