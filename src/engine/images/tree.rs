//! What an image consists of: its manifests with their configurations, as far as they are here.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::io::AsyncReadExt;

use crate::{
    backend::images::ImageBackend,
    engine::images::{ImageStore, keep::PARENT, look_up::Found},
    model::{
        Error, Result,
        image::{
            Descriptor, Platform,
            documents::{ImageDocument, Index, Manifest, media_type},
        },
        limits,
        reference::Digest,
    },
    work::Carried,
};

/// Documents larger than this are refused: they are held in memory.
pub const DOCUMENT_LIMIT: u64 = limits::DOCUMENT as u64;

/// Within which time a document comes.
const DOCUMENT_TIME: Duration = Duration::from_secs(30);

/// Trees that are kept for the next look-up.
const CACHED: usize = 512;

/// An image for one platform.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its manifest.
    pub descriptor: Descriptor,
    /// Where it runs.
    pub platform: Platform,
    /// The index that names it, or itself.
    pub within: Digest,
    /// Its documents; `None` while it is not here (another platform of an index).
    pub content: Option<Content>,
}

/// The documents of a variant that is here.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Configuration and layers.
    pub manifest: Manifest,
    /// The configuration.
    pub document: ImageDocument,
}

impl Content {
    /// Bytes of layers and configuration as they are stored, without the manifest.
    pub fn size(&self) -> u64 {
        size_of(&self.manifest)
    }

    /// Name of the topmost layer's snapshot; empty for an image without layers.
    pub fn top_chain(&self) -> String {
        self.document.chain_ids().pop().unwrap_or_default()
    }
}

/// What was said of an image, such as how it was built: a manifest that is none. BuildKit adds it to what it builds.
#[derive(Clone, Debug, PartialEq)]
pub struct Attestation {
    /// Its manifest, which is here with all that it names.
    pub descriptor: Descriptor,
    /// The index that names it.
    pub within: Digest,
    /// What is in that.
    pub manifest: Manifest,
}

impl Attestation {
    /// Which manifest it is about, as it says.
    pub fn about(&self) -> &str {
        self.descriptor.annotations.get("vnd.docker.reference.digest").map_or("", String::as_str)
    }

    /// Bytes as they are stored, without the manifest.
    pub fn size(&self) -> u64 {
        size_of(&self.manifest)
    }
}

fn size_of(manifest: &Manifest) -> u64 {
    manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>()
}

/// An image with all its platforms.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// Index or manifest; its digest is the image's id.
    pub target: Descriptor,
    /// The image that it was made on, if it was made here.
    pub parent: Option<Digest>,
    /// The platforms.
    pub variants: Vec<Variant>,
    /// The attestations that are here.
    pub attestations: Vec<Attestation>,
    /// Indexes below the target that are here.
    pub indexes: Vec<Descriptor>,
    /// Bytes of memory that all this takes, about.
    weight: usize,
}

impl Tree {
    /// One of which nothing could be read.
    pub(crate) fn unread(target: &Descriptor) -> Self {
        let (variants, attestations, indexes) = Default::default();
        Self { target: target.clone(), parent: None, variants, attestations, indexes, weight: 0 }
    }

    /// The variants that are here.
    pub fn available(&self) -> impl Iterator<Item = (&Variant, &Content)> {
        self.variants.iter().filter_map(|variant| Some((variant, variant.content.as_ref()?)))
    }

    /// All manifests that are here: those of variants and of attestations.
    pub fn manifests(&self) -> impl Iterator<Item = (&Descriptor, &Manifest)> {
        let said = self.attestations.iter().map(|attestation| (&attestation.descriptor, &attestation.manifest));
        self.available().map(|(variant, content)| (&variant.descriptor, &content.manifest)).chain(said)
    }

    /// What `platform` means: without a wish this machine's, and if that is not here any that is.
    pub fn choose(&self, platform: Option<&Platform>) -> Option<(&Variant, &Content)> {
        let descriptors: Vec<Descriptor> = self
            .available()
            .map(|(variant, _)| Descriptor { platform: Some(variant.platform.clone()), ..variant.descriptor.clone() })
            .collect();
        let host = Platform::host();
        let best = Platform::choose(platform.unwrap_or(&host), &descriptors);
        let found =
            best.and_then(|best| self.available().find(|(variant, _)| variant.descriptor.digest == best.digest));
        found.or_else(|| if platform.is_none() { self.available().next() } else { None })
    }
}

impl Tree {
    /// What each of `platforms` means, or without any what this machine's means. The first that is not here is the error.
    pub fn choose_all(&self, platforms: &[Platform]) -> Result<Vec<(&Variant, &Content)>, Platform> {
        if platforms.is_empty() {
            return self.choose(None).map(|chosen| vec![chosen]).ok_or_else(Platform::host);
        }
        platforms.iter().map(|platform| self.choose(Some(platform)).ok_or_else(|| platform.clone())).collect()
    }
}

/// What was met on the way through an image. Of indexes within indexes a few may lead to the same ones in a thousand
/// million ways, so that each is looked at once, and all together are counted; so are the bytes of what is kept of them.
#[derive(Default)]
pub struct Walk {
    seen: HashSet<Digest>,
    met: usize,
    bytes: usize,
    weight: usize,
}

impl Walk {
    /// Whether an entry comes for the first time.
    pub fn enter(&mut self, entry: &Descriptor) -> Result<bool> {
        self.met += 1;
        match self.met > limits::INDEX_TOTAL {
            true => Err(Error::index_too_wide()),
            false => Ok(self.seen.insert(entry.digest.clone())),
        }
    }

    async fn keep(&mut self, document: Vec<u8>) -> Result<Vec<u8>> {
        self.bytes += document.len();
        if self.bytes > limits::DOCUMENTS {
            return Err(Error::documents_too_large());
        }
        self.weight += document.len() + limits::VALUE * document.iter().filter(|byte| **byte == b',').count();
        hold(self.weight).await?;
        Ok(document)
    }
}

/// A request that holds documents of such a weight has a place, unless that is little.
async fn hold(weight: usize) -> Result<()> {
    if weight > limits::SMALL_HOLDING { Carried::here().keep_place().await } else { Ok(()) }
}

/// What an index leads to.
#[derive(Default)]
struct Below {
    variants: Vec<Variant>,
    attestations: Vec<Attestation>,
    indexes: Vec<Descriptor>,
}

/// Trees that were read lately.
#[derive(Default)]
pub struct Trees(Mutex<HashMap<Digest, Arc<Tree>>>);

impl Trees {
    fn get(&self, digest: &Digest) -> Option<Arc<Tree>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn put(&self, tree: Arc<Tree>) {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tree.weight > limits::DOCUMENTS_KEPT / 8 {
            return;
        }
        let weight: usize = trees.values().map(|tree| tree.weight).sum();
        if trees.len() >= CACHED || weight + tree.weight > limits::DOCUMENTS_KEPT {
            trees.clear();
        }
        trees.insert(tree.target.digest.clone(), tree);
    }

    fn forget(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

impl ImageStore {
    /// What a tenant has of an image that it found.
    pub(crate) async fn tree(&self, found: &Found) -> Result<Arc<Tree>> {
        Ok(self.whole_tree(&found.target).await?.seen_with(found.held().as_ref()))
    }

    /// Reads all that is here of an image, whoever brought it: for manifests, which lead nowhere else, and for what no tenant sees.
    pub(crate) async fn whole_tree(&self, target: &Descriptor) -> Result<Arc<Tree>> {
        if let Some(tree) = self.trees.get(&target.digest) {
            hold(tree.weight).await?;
            return Ok(tree);
        }
        let tree = Arc::new(self.tree_of(target, None).await?);
        self.trees.put(tree.clone());
        Ok(tree)
    }

    /// As [`Self::tree`] for what is only shown: of a containerd that does not answer little is expected.
    pub(crate) async fn known_tree(&self, found: &Found) -> Result<Arc<Tree>> {
        Ok(self.known_whole_tree(&found.target).await?.seen_with(found.held().as_ref()))
    }

    /// As [`Self::whole_tree`], likewise.
    pub(crate) async fn known_whole_tree(&self, target: &Descriptor) -> Result<Arc<Tree>> {
        match self.trees.get(&target.digest) {
            Some(_) => self.whole_tree(target).await,
            None => self.patience.ask(self.whole_tree(target)).await,
        }
    }

    /// Whether a blob is here and, where only some count, one of these.
    pub(crate) async fn is_here(&self, digest: &Digest, held: Option<&HashSet<Digest>>) -> Result<bool> {
        let counts = held.is_none_or(|held| held.contains(digest));
        Ok(counts && self.backend.blob_info(digest).await?.is_some())
    }

    /// To be called when more of an image has come, or it was removed.
    pub(crate) fn forget_tree(&self, digest: &Digest) {
        self.trees.forget(digest);
    }

    /// Reads what is here of an image; with `held`, as if there were no other blobs than these.
    pub(crate) async fn tree_of(&self, target: &Descriptor, held: Option<&HashSet<Digest>>) -> Result<Tree> {
        let (mut below, mut walk) = (Below::default(), Walk::default());
        if media_type::is_index(&target.media_type) {
            self.read_index(target, held, 0, &mut below, &mut walk).await?;
        } else {
            let content = self.read_content(target, held, &mut walk).await?;
            let platform = content.as_ref().map(|content| content.document.platform.clone()).unwrap_or_default();
            let within = target.digest.clone();
            below.variants.push(Variant { descriptor: target.clone(), platform, within, content });
        }
        let Below { variants, attestations, indexes } = below;
        let labels = self.backend.blob_info(&target.digest).await?.map(|info| info.labels).unwrap_or_default();
        let parent = labels.get(PARENT).and_then(|parent| parent.parse().ok());
        Ok(Tree { target: target.clone(), parent, variants, attestations, indexes, weight: walk.weight })
    }

    /// Indexes may hold indexes (`docker load` of an OCI layout); nobody nests them deeper than a few.
    async fn read_index(
        &self,
        descriptor: &Descriptor,
        held: Option<&HashSet<Digest>>,
        depth: usize,
        below: &mut Below,
        walk: &mut Walk,
    ) -> Result<()> {
        let index = Index::parse(&walk.keep(self.read_document(descriptor).await?).await?)?;
        let within = || descriptor.digest.clone();
        for entry in &index.manifests {
            let is_new = walk.enter(entry)?;
            if entry.is_attestation() {
                if let Some(manifest) = self.read_manifest(entry, held, walk).await? {
                    below.attestations.push(Attestation { descriptor: entry.clone(), within: within(), manifest });
                }
                continue;
            }
            if media_type::is_index(&entry.media_type) {
                if is_new && depth + 1 < limits::INDEX_DEPTH && self.is_here(&entry.digest, held).await? {
                    below.indexes.push(entry.clone());
                    Box::pin(self.read_index(entry, held, depth + 1, below, walk)).await?;
                }
                continue;
            }
            let content = self.read_content(entry, held, walk).await?;
            let own = || content.as_ref().map(|content| content.document.platform.clone());
            let platform = entry.platform.clone().or_else(own).unwrap_or_default();
            below.variants.push(Variant { descriptor: entry.clone(), platform, within: within(), content });
        }
        Ok(())
    }

    /// Manifest and configuration; `None` if they, or a layer, are not here.
    async fn read_content(
        &self,
        descriptor: &Descriptor,
        held: Option<&HashSet<Digest>>,
        walk: &mut Walk,
    ) -> Result<Option<Content>> {
        let Some(manifest) = self.read_manifest(descriptor, held, walk).await? else { return Ok(None) };
        let document = ImageDocument::parse(&walk.keep(self.read_document(&manifest.config).await?).await?)?;
        Ok(Some(Content { manifest, document }))
    }

    /// `None` if it, or a blob that it names, is not here.
    async fn read_manifest(
        &self,
        descriptor: &Descriptor,
        held: Option<&HashSet<Digest>>,
        walk: &mut Walk,
    ) -> Result<Option<Manifest>> {
        if !self.is_here(&descriptor.digest, held).await? {
            return Ok(None);
        }
        let manifest = Manifest::parse(&walk.keep(self.read_document(descriptor).await?).await?)?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if !self.is_here(&blob.digest, held).await? {
                return Ok(None);
            }
        }
        Ok(Some(manifest))
    }

    /// A whole blob that fits into memory.
    pub(crate) async fn read_document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        read_document(self.backend.as_ref(), descriptor).await
    }
}

/// Of more than a little only for a request that has a place, which it keeps as long as what it makes of it.
async fn read_document(backend: &dyn ImageBackend, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let small = limits::SMALL_HOLDING as u64;
    let mut bytes = Vec::new();
    read_part(backend, &descriptor.digest, &mut bytes, small).await?;
    if bytes.len() as u64 == small {
        Carried::here().keep_place().await?;
        bytes.reserve_exact(usize::try_from(descriptor.size.min(DOCUMENT_LIMIT)).unwrap_or(0));
        read_part(backend, &descriptor.digest, &mut bytes, DOCUMENT_LIMIT + 1 - small).await?;
    }
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(Error::system(format!("reading {}: larger than {DOCUMENT_LIMIT} bytes", descriptor.digest)));
    }
    Ok(bytes)
}

/// At most so many bytes that follow those that are read already.
async fn read_part(backend: &dyn ImageBackend, digest: &Digest, bytes: &mut Vec<u8>, most: u64) -> Result<()> {
    let read_all = async {
        let reader = backend.read_blob(digest, bytes.len() as u64).await?;
        Ok(reader.take(most).read_to_end(bytes).await)
    };
    // Streams of containerd have no limit of their own.
    let read = tokio::time::timeout(DOCUMENT_TIME, read_all).await;
    let read = read.unwrap_or_else(|_| Err(Error::containerd_is_silent()))?;
    read.map_err(|error| Error::system(format!("reading {digest}: {error}")).with_source(error))?;
    Ok(())
}
