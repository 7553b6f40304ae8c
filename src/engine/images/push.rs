//! `POST /images/{name}/push`. What is stored is what is pushed, byte for byte: the registry has the digests that
//! the images have here. Failures come in the stream, as dockerd has it; a client that leaves ends the push.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;

use super::{
    load::ProgressStream,
    look_up::{Found, reference_of, short},
    progress::Message,
};
use crate::{
    backend::images::{BlobInfo, ImageBackend},
    engine::{Engine, images::tree::Tree, tenants::Scope},
    model::{
        Error, Result,
        image::{
            Descriptor, Platform,
            documents::{Index, Manifest, media_type},
        },
        reference::{Digest, Reference},
        registry_auth::RegistryAuth,
    },
    policy::Asked,
    registry::{Pushed, Session},
};

/// How many layers are sent at once; dockerd's number.
const UPLOADS: usize = 5;

/// How often an upload reports.
const REPORT_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

/// Repositories of a registry in which a blob is known to be; containerd's label, so that its tools find it, too.
const SOURCE: &str = "containerd.io/distribution.source.";

/// Repositories that are remembered of a blob, and tried for a mount.
const SOURCES: usize = 3;

/// What to push.
#[derive(Clone, Debug, Default)]
pub struct PushRequest {
    /// The name, perhaps with a tag.
    pub image: String,
    /// Its tag. Without any, all tags are pushed.
    pub tag: String,
    /// Only this part of an image for several platforms.
    pub platform: Option<Platform>,
    /// Credentials.
    pub auth: RegistryAuth,
}

type Messages = mpsc::Sender<Result<Message>>;

impl Engine {
    /// Pushes one tag, or all of a repository.
    pub async fn image_push(&self, scope: &Scope, request: PushRequest) -> Result<ProgressStream> {
        let reference = match request.tag.as_str() {
            "" => Reference::parse(&request.image)?,
            tag => super::tag::import_name(&request.image)?.with_tag(tag)?,
        };
        scope.permit(Asked::Push(&reference))?;
        let (messages, stream) = mpsc::channel(64);
        let (engine, scope) = (self.clone(), scope.clone());
        self.spawn("image_push", async move {
            let push = Push { engine: &engine, scope: &scope, request: &request, messages: &messages };
            let stopping = engine.stopping();
            let pushed = tokio::select! {
                () = messages.closed() => return,
                () = stopping.cancelled() => Err(Error::unavailable("the daemon is shutting down")),
                pushed = push.run(&reference) => pushed,
            };
            if let Err(error) = pushed {
                let _client_left = messages.send(Err(error)).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

struct Push<'a> {
    engine: &'a Engine,
    scope: &'a Scope,
    request: &'a PushRequest,
    messages: &'a Messages,
}

impl Push<'_> {
    async fn say(&self, message: Message) {
        let _client_left = self.messages.send(Ok(message)).await;
    }

    async fn run(&self, reference: &Reference) -> Result<()> {
        self.say(Message::status(format!("The push refers to repository [{}]", reference.name()))).await;
        if reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let images = self.wanted(reference).await?;
        let mut labels = None;
        for (name, found) in &images {
            let tree = self.engine.images.tree(found).await?;
            self.push(name, &tree).await?;
            labels.get_or_insert_with(|| tree.labels());
        }
        let labels = labels.unwrap_or_default();
        let (full, name) = (reference.familiar(), reference.familiar_name());
        self.engine.image_event(self.scope, "push", &full, &name, labels);
        Ok(())
    }

    /// The tags that are meant, with what they point at.
    async fn wanted(&self, reference: &Reference) -> Result<Vec<(Reference, Found)>> {
        let images = self.engine.images.all(self.scope.tenant()).await?;
        let named =
            images.iter().flat_map(|found| found.references().into_iter().map(move |name| (name, found.clone())));
        let mut all: Vec<_> =
            named.filter(|(name, _)| name.name() == reference.name() && name.tag().is_some()).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        if all.is_empty() {
            return Err(Error::no_local_tag(&reference.familiar_name()));
        }
        if reference.tag().is_none() {
            return Ok(all);
        }
        all.retain(|(name, _)| name == reference);
        match all.is_empty() {
            true => Err(Error::tag_does_not_exist(&reference.familiar())),
            false => Ok(all),
        }
    }

    async fn push(&self, name: &Reference, tree: &Tree) -> Result<()> {
        let target = &tree.target;
        let (root, manifests) = self.choose(name, tree).await?;
        let mut sources = self.sources(name, &manifests).await?;
        let mounts: Vec<String> = {
            let mut all: Vec<String> = sources.values().flatten().cloned().collect();
            all.sort();
            all.dedup();
            all.truncate(SOURCES);
            all
        };
        for layer in layers(&manifests) {
            self.say(Message::layer(short(&layer.digest), "Preparing")).await;
        }
        let session =
            self.engine.registry_for(self.scope).await?.open_for_push(name, &self.request.auth, &mounts).await?;
        let session = &session;
        let uploads: Vec<(Descriptor, Vec<String>)> = layers(&manifests)
            .map(|layer| (layer.clone(), sources.remove(&layer.digest).unwrap_or_default()))
            .collect();
        let uploading: Vec<_> = uploads.iter().map(|(layer, mounts)| self.push_layer(session, layer, mounts)).collect();
        stream::iter(uploading).buffer_unordered(UPLOADS).try_collect::<Vec<()>>().await?;
        for (descriptor, manifest) in &manifests {
            self.push_blob(session, &manifest.config, &[], None).await?;
            if descriptor.digest != root.digest {
                self.put(session, descriptor.digest.as_str(), descriptor).await?;
            }
        }
        let tag = name.tag().unwrap_or("latest");
        self.put(session, tag, &root).await?;
        self.say(Message::status(format!("{tag}: digest: {} size: {}", root.digest, root.size))).await;
        self.say(Message::aux(json!({ "Tag": tag, "Digest": root.digest, "Size": root.size }))).await;
        if root.digest != target.digest && self.request.platform.is_none() {
            let note = json!({
                "manifestPushedInsteadOfIndex": true,
                "originalIndex": target,
                "selectedManifest": root,
            });
            self.say(Message::aux(note)).await;
        }
        Ok(())
    }

    /// The document that gets the tag, and the manifests that belong to it: the whole image if all of it is here,
    /// else the part for the wished platform or this machine's.
    async fn choose<'t>(
        &self,
        name: &Reference,
        tree: &'t Tree,
    ) -> Result<(Descriptor, Vec<(&'t Descriptor, &'t Manifest)>)> {
        if self.request.platform.is_none() && self.is_whole(tree).await? {
            return Ok((tree.target.clone(), tree.manifests().collect()));
        }
        let platform = self.request.platform.as_ref();
        let wanted = || platform.cloned().unwrap_or_else(Platform::host).to_string();
        let (variant, content) =
            tree.choose(platform).ok_or_else(|| Error::platform_not_provided(&name.familiar(), &wanted()))?;
        let root = Descriptor { platform: None, ..variant.descriptor.clone() };
        Ok((root, vec![(&variant.descriptor, &content.manifest)]))
    }

    /// An index must not name what the registry will not have.
    async fn is_whole(&self, tree: &Tree) -> Result<bool> {
        if !media_type::is_index(&tree.target.media_type) {
            return Ok(true);
        }
        let index = Index::parse(&self.engine.images.read_document(&tree.target).await?)?;
        let here = |entry: &Descriptor| tree.manifests().any(|(descriptor, _)| descriptor.digest == entry.digest);
        Ok(index.manifests.iter().all(here))
    }

    /// For each layer the other repositories of the registry in which it is, of those that the tenant has images of: the
    /// labels lie on content that is everybody's, and others' names are not to be told.
    async fn sources(
        &self,
        name: &Reference,
        manifests: &[(&Descriptor, &Manifest)],
    ) -> Result<HashMap<Digest, Vec<String>>> {
        let records = self.engine.images.backend.list_images(self.scope.tenant()).await?;
        let own: HashSet<String> = records
            .iter()
            .filter_map(reference_of)
            .filter(|reference| reference.registry() == name.registry())
            .map(|reference| reference.repository().to_owned())
            .collect();
        let mut sources = HashMap::new();
        for layer in layers(manifests) {
            let Some(info) = self.engine.images.backend.blob_info(&layer.digest).await? else { continue };
            let mut found = repositories(&info, name.registry());
            found.retain(|repository| repository != name.repository() && own.contains(repository));
            sources.insert(layer.digest.clone(), found);
        }
        Ok(sources)
    }

    async fn push_layer(&self, session: &Session, layer: &Descriptor, mounts: &[String]) -> Result<()> {
        let id = short(&layer.digest);
        // What others have in a registry is no business of one that a job has made.
        let mounts = if session.vouches() { mounts } else { &[] };
        let done = match self.push_blob(session, layer, mounts, Some(id)).await? {
            Pushed::Existed => "Layer already exists".to_owned(),
            Pushed::Mounted(from) => format!("Mounted from {from}"),
            Pushed::Uploaded => "Pushed".to_owned(),
        };
        self.say(Message::layer(id, done)).await;
        self.engine.images.remember_source(layer, session).await
    }

    /// `id` names it in messages, if it is to be reported.
    async fn push_blob(
        &self,
        session: &Session,
        blob: &Descriptor,
        mounts: &[String],
        id: Option<&str>,
    ) -> Result<Pushed> {
        let reporter = Reporter { messages: self.messages.clone(), id: id.map(str::to_owned), total: blob.size };
        let backend = self.engine.images.backend.clone();
        let digest = blob.digest.clone();
        let open = move || bytes(backend.clone(), digest.clone(), reporter.clone());
        let retrying = |seconds: u64| {
            if let Some(id) = id {
                let plural = if seconds == 1 { "" } else { "s" };
                let text = format!("Retrying in {seconds} second{plural}");
                let _slow_client_misses_it = self.messages.try_send(Ok(Message::layer(id, text)));
            }
        };
        session.push_blob(blob, mounts, &open, &retrying).await
    }

    async fn put(&self, session: &Session, name: &str, descriptor: &Descriptor) -> Result<()> {
        let bytes = self.engine.images.read_document(descriptor).await?;
        session.put_manifest(name, &descriptor.media_type, bytes).await
    }
}

/// Layers of all manifests, the topmost first, each once. What lies elsewhere by its maker's wish is not pushed.
fn layers<'a>(manifests: &[(&'a Descriptor, &'a Manifest)]) -> impl Iterator<Item = &'a Descriptor> + use<'a> {
    let mut seen = std::collections::HashSet::new();
    let all: Vec<&'a Descriptor> = manifests.iter().flat_map(|(_, manifest)| manifest.layers.iter().rev()).collect();
    all.into_iter().filter(move |layer| layer.urls.is_empty() && seen.insert(&layer.digest))
}

/// Tells how far an upload is.
#[derive(Clone)]
struct Reporter {
    messages: Messages,
    id: Option<String>,
    total: u64,
}

/// A blob's bytes, with its progress told as they are read.
fn bytes(
    backend: Arc<dyn ImageBackend>,
    digest: Digest,
    reporter: Reporter,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    let opened = async move {
        let reader = backend.read_blob(&digest, 0).await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(ReaderStream::with_capacity(reader, 256 << 10))
    };
    let (mut sent, mut last) = (0, None::<Instant>);
    let chunks = stream::once(opened).try_flatten().inspect_ok(move |chunk| {
        sent += chunk.len() as u64;
        let due = sent == reporter.total || last.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
        if let (Some(id), true) = (&reporter.id, due) {
            last = Some(Instant::now());
            let message = Message::layer_progress(id, "Pushing", sent, reporter.total);
            let _slow_client_misses_it = reporter.messages.try_send(Ok(message));
        }
    });
    chunks.boxed()
}

/// Repositories of a registry that are known to have a blob.
pub(super) fn repositories(info: &BlobInfo, registry: &str) -> Vec<String> {
    let label = info.labels.get(&format!("{SOURCE}{registry}"));
    label.map(|label| label.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

impl super::ImageStore {
    /// Notes in which repository of which registry a layer is: pushes to others can mount it from there.
    pub(super) async fn remember_source(&self, layer: &Descriptor, session: &Session) -> Result<()> {
        if !session.vouches() {
            return Ok(());
        }
        let name = session.reference();
        let Some(info) = self.backend.blob_info(&layer.digest).await? else { return Ok(()) };
        let mut known = repositories(&info, name.registry());
        if known.iter().any(|repository| repository == name.repository()) {
            return Ok(());
        }
        known.insert(0, name.repository().to_owned());
        known.truncate(SOURCES);
        let label = HashMap::from([(format!("{SOURCE}{}", name.registry()), known.join(","))]);
        self.backend.label_blob(&layer.digest, label).await
    }
}
