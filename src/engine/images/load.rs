//! `POST /images/load`: images from a tar, docker-archive (also the old one without `manifest.json`) or OCI layout.
//!
//! The tar is never unpacked on disk: each of its files becomes a blob under the load's lease, and what the
//! archive's own documents name is put together from these. What nothing names goes with the lease.

mod archive;
mod docker;
mod layout;
mod legacy;

use std::{collections::HashSet, pin::Pin};

use futures_util::Stream;
use tokio::{io::AsyncRead, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

use self::archive::Archive;
use crate::{
    backend::images::Lease,
    engine::{
        Engine,
        images::{progress::Message, reach::Held, tree::Walk},
        tenants::Scope,
    },
    model::{
        Error, Result,
        image::{
            Descriptor, Platform,
            documents::{ImageDocument, Index, Manifest, media_type},
        },
        limits,
        reference::{Digest, Reference},
    },
    policy::Asked,
    work::{Disk, Stop, Why},
};

pub use archive::decompressed;

/// A stream of progress that ends with an error if the work failed.
pub type ProgressStream = Pin<Box<dyn Stream<Item = Result<Message>> + Send>>;

/// The bytes of a request.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Without the layers' progress.
    pub quiet: bool,
    /// Only these of images for several platforms.
    pub platforms: Vec<Platform>,
}

/// An image of the archive whose documents are stored.
struct Loaded {
    target: Descriptor,
    names: Vec<Reference>,
}

/// Which blobs count as loaded; `None` where the documents were put together from the archive's files, so that they name
/// no others.
type InArchive = Option<HashSet<Digest>>;

/// Where messages go.
type Messages = mpsc::Sender<Result<Message>>;

impl Engine {
    /// Takes all images of a tar. Failures come in the stream, as dockerd has it.
    pub fn image_load(&self, scope: &Scope, body: Body, options: LoadOptions) -> Result<ProgressStream> {
        scope.permit(Asked::Load)?;
        let (messages, stream) = mpsc::channel(16);
        let (engine, scope) = (self.clone(), scope.clone());
        self.spawn("image_load", async move {
            let lease = match engine.images.backend.lease().await {
                Ok(lease) => lease,
                Err(error) => return drop(messages.send(Err(error)).await),
            };
            let stop = Stop::when([(engine.stopping(), Why::Stopping)]);
            let loaded = tokio::select! {
                why = stop.told() => Err(why.error()),
                // Nobody can be told any more, and what is loaded is of use to nobody else.
                () = messages.closed() => Err(Why::ClientGone.error()),
                loaded = engine.load_archive(&scope, body, &options, &lease, &messages, stop.clone()) => loaded,
            };
            let released = engine.images.backend.release(lease).await;
            let rest = match &loaded {
                Ok(targets) if !options.platforms.is_empty() => engine.drop_other_platforms(targets).await,
                _ => Ok(()),
            };
            if let Err(error) = loaded.map(drop).and(released).and(rest) {
                engine.collect_garbage_soon();
                let _client_left = messages.send(Err(error)).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }

    /// What a failed pull or load has left goes now, not at the collector's next round.
    pub(crate) fn collect_garbage_soon(&self) {
        let engine = self.clone();
        self.spawn("collect_garbage", async move {
            if let Err(error) = engine.images.backend.collect_garbage().await {
                tracing::warn!("collecting garbage: {}", error.chain());
            }
        });
    }

    async fn load_archive(
        &self,
        scope: &Scope,
        body: Body,
        options: &LoadOptions,
        lease: &Lease,
        messages: &Messages,
        stop: Stop,
    ) -> Result<Vec<Digest>> {
        let archive = archive::read(&self.images, Disk::of(&self.config.data_root), lease.clone(), body, stop).await?;
        let held = archive.is_layout().then(|| archive.digests());
        let images = if archive.is_layout() {
            layout::images(&self.images, lease, &archive).await?
        } else if archive.documents.contains_key("manifest.json") {
            docker::images(&self.images, lease, &archive).await?
        } else if archive.documents.contains_key("repositories") {
            legacy::images(&self.images, lease, &archive).await?
        } else {
            return Err(Error::invalid("unrecognized image format"));
        };
        let mut targets = Vec::new();
        for image in images {
            self.keep_loaded(scope, &image, &held, options, lease, messages).await?;
            targets.push(image.target.digest);
        }
        Ok(targets)
    }

    /// What the archive held for platforms that were not asked for goes with the lease; then the images are looked at anew.
    async fn drop_other_platforms(&self, targets: &[Digest]) -> Result<()> {
        self.images.backend.collect_garbage().await?;
        for target in targets {
            self.images.forget_tree(target);
        }
        Ok(())
    }

    async fn keep_loaded(
        &self,
        scope: &Scope,
        image: &Loaded,
        held: &InArchive,
        options: &LoadOptions,
        lease: &Lease,
        messages: &Messages,
    ) -> Result<()> {
        self.images.forget_tree(&image.target.digest);
        let tree = self.images.tree_of(&image.target, held.as_ref()).await?;
        let wanted: Vec<Digest> = match options.platforms.as_slice() {
            [] => tree.manifests().map(|(descriptor, _)| descriptor.digest.clone()).collect(),
            platforms => {
                let chosen = tree.choose_all(platforms).map_err(|missing| {
                    Error::not_found(format!("requested platform ({missing}) not found: image might be filtered out"))
                })?;
                chosen.into_iter().map(|(variant, _)| variant.descriptor.digest.clone()).collect()
            }
        };
        self.pin_loaded(&image.target, held.as_ref(), &wanted, &mut Walk::default()).await?;
        let Some((_, content)) = tree.choose(options.platforms.first()) else {
            return Err(Error::invalid(format!("image {} has no content in the archive", image.target.digest)));
        };
        super::keep::check_layer_count(&content.manifest, &content.document)?;
        let (chains, diff_ids) = (content.document.chain_ids(), &content.document.rootfs.diff_ids);
        for (n, layer) in content.manifest.layers.iter().enumerate() {
            let parent = if n == 0 { "" } else { chains[n - 1].as_str() };
            let is_new = self.images.unpack_one(lease, layer, parent, &chains[n], &diff_ids[n]).await?;
            if is_new && !options.quiet {
                let id = super::look_up::short(&diff_ids[n]);
                let message = Message::layer_progress(id, "Loading layer", layer.size, layer.size);
                let _client_left = messages.send(Ok(message)).await;
            }
        }
        let indexes = tree.indexes.iter().map(|index| index.digest.clone());
        let own: Held = wanted.into_iter().chain(indexes).collect();
        for name in &image.names {
            self.images.point(scope.tenant(), name, &image.target, own.clone()).await?;
            let line = format!("Loaded image: {}\n", name.familiar());
            let _client_left = messages.send(Ok(Message::stream(line))).await;
        }
        if image.names.is_empty() {
            self.images.keep_nameless(scope.tenant(), &image.target, own).await?;
            let line = format!("Loaded image ID: {}\n", image.target.digest);
            let _client_left = messages.send(Ok(Message::stream(line))).await;
        }
        let (id, labels) = (image.target.digest.as_str(), content.document.config.labels.clone().unwrap_or_default());
        self.image_event(scope, "load", id, id, labels);
        Ok(())
    }

    /// Labels for the collector on the documents of an image that are in the archive and wanted. What an index names beyond
    /// that may be here for somebody else, and is not pinned.
    async fn pin_loaded(
        &self,
        target: &Descriptor,
        held: Option<&HashSet<Digest>>,
        wanted: &[Digest],
        walk: &mut Walk,
    ) -> Result<()> {
        if !walk.enter(target)? {
            return Ok(());
        }
        if !self.images.is_here(&target.digest, held).await? {
            return Ok(());
        }
        let bytes = self.images.read_document(target).await?;
        if !media_type::is_index(&target.media_type) {
            if !wanted.contains(&target.digest) {
                return Ok(());
            }
            let manifest = Manifest::parse(&bytes)?;
            if target.is_attestation() {
                return self.images.pin_blobs(target, &manifest).await;
            }
            let document = ImageDocument::parse(&self.images.read_document(&manifest.config).await?)?;
            return self.images.pin_manifest(target, &manifest, &document).await;
        }
        let index = Index::parse(&bytes)?;
        self.images.pin_entries(target, &index, |entry| held.is_none_or(|held| held.contains(&entry.digest))).await?;
        for entry in &index.manifests {
            Box::pin(self.pin_loaded(entry, held, wanted, walk)).await?;
        }
        Ok(())
    }
}

fn check_image_count(images: usize) -> Result<()> {
    match images > limits::ARCHIVE_IMAGES {
        true => Err(Error::invalid(format!("invalid archive: there are more than {} images", limits::ARCHIVE_IMAGES))),
        false => Ok(()),
    }
}

/// The platform of a configuration without one, as some tools write it.
fn or_host(mut document: ImageDocument) -> ImageDocument {
    if document.platform.architecture.is_empty() {
        document.platform = Platform { os_version: document.platform.os_version.clone(), ..Platform::host() };
    }
    document
}
