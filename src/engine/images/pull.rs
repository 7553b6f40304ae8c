//! `POST /images/create?fromImage=…`: pulls. Two of the same image at once share one job, and the last client that
//! leaves ends it. What fails before the first message becomes the answer's status, as dockerd has it.

mod job;
mod layers;

use std::sync::Arc;

use futures_util::StreamExt;
pub use job::Pulls;

use self::job::{Job, JobKey};
use super::{
    load::ProgressStream,
    look_up::short,
    progress::Message,
    reach::{Held, Reach},
    tag::pull_name,
};
use crate::{
    backend::images::Lease,
    engine::{
        Engine,
        tenants::{Scope, Traffic},
    },
    model::{
        Error, Result,
        image::{
            Descriptor, Platform,
            documents::{ImageDocument, Index, Manifest, media_type},
        },
        reference::Reference,
        registry_auth::RegistryAuth,
    },
    policy::Asked,
    registry::Resolved,
};

/// What to pull.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// `fromImage`: the name, perhaps with a tag or digest.
    pub image: String,
    /// `tag`: a tag or a digest; wins over the name's. Without any, all tags are pulled.
    pub tag: String,
    /// For which platform; this machine's if none.
    pub platform: Option<Platform>,
    /// Credentials.
    pub auth: RegistryAuth,
}

impl Engine {
    /// Pulls, and answers with messages from the first one on.
    pub async fn image_pull(&self, scope: &Scope, request: &PullRequest) -> Result<ProgressStream> {
        let reference = pull_name(&request.image, &request.tag)?;
        scope.permit(Asked::Pull(&reference))?;
        let request = PullRequest { auth: scope.login(&reference, &request.auth), ..request.clone() };
        let key = JobKey {
            tenant: scope.tenant().clone(),
            reference: reference.to_string(),
            platform: request.platform.clone(),
            auth: request.auth.clone(),
        };
        let (follower, job) = self.images.pulls.join(key);
        if let Some(job) = job {
            let (engine, scope) = (self.clone(), scope.clone());
            self.spawn("image_pull", async move { engine.run_pull(&scope, &reference, &request, &job).await });
        }
        follower.into_stream_once_begun().await
    }

    /// Pulls to the end, for who tells nobody of the way.
    pub async fn image_pull_whole(&self, scope: &Scope, request: &PullRequest) -> Result<()> {
        let mut messages = self.image_pull(scope, request).await?;
        while let Some(message) = messages.next().await {
            message?;
        }
        Ok(())
    }

    /// So many bytes of layers were fetched.
    fn note_pulled(&self, scope: &Scope, bytes: u64) {
        scope.traffic().pull(bytes);
        self.images.traffic.pull(bytes);
    }

    /// So many were here already.
    fn note_shared(&self, scope: &Scope, bytes: u64) {
        scope.traffic().share(bytes);
        self.images.traffic.share(bytes);
    }

    /// What pulls of all tenants needed since the daemon has started.
    pub fn traffic(&self) -> &Traffic {
        &self.images.traffic
    }

    /// The job: under a lease, until done or nobody waits for it.
    async fn run_pull(&self, scope: &Scope, reference: &Reference, request: &PullRequest, job: &Arc<Job>) {
        let lease = match self.images.backend.lease().await {
            Ok(lease) => lease,
            Err(error) => return self.images.pulls.finish(job, Err(error)),
        };
        let pull = Pull { engine: self, scope, request, lease: &lease, job };
        let stopping = self.stopping();
        let result = tokio::select! {
            () = job.abandoned() => Err(Error::system("context canceled")),
            () = stopping.cancelled() => Err(Error::unavailable("the daemon is shutting down")),
            result = pull.run(reference) => result,
        };
        if let Err(error) = self.images.backend.release(lease).await {
            tracing::warn!("ending the lease of a pull: {}", error.chain());
        }
        if result.is_err() {
            self.collect_garbage_soon();
        }
        self.images.pulls.finish(job, result);
    }
}

/// A pull under way.
pub(super) struct Pull<'a> {
    engine: &'a Engine,
    scope: &'a Scope,
    request: &'a PullRequest,
    lease: &'a Lease,
    job: &'a Arc<Job>,
}

/// What became of one reference.
struct Pulled {
    /// Whether it brought anything.
    news: bool,
    /// The image's platform, if it is not the one that was asked for: an image that is alone under its name is taken as
    /// it is.
    stranger: Option<Platform>,
}

/// One manifest's.
struct Content {
    /// Whether any of it was missing.
    brought: bool,
    /// What it is for.
    platform: Platform,
    /// Its labels.
    labels: indexmap::IndexMap<String, String>,
}

impl Pull<'_> {
    async fn run(&self, reference: &Reference) -> Result<()> {
        if reference.tag().is_some() || reference.digest().is_some() {
            let Pulled { news, stranger } = self.pull(reference).await?;
            self.say_status(reference, news);
            if let (Some(actual), Some(wanted)) = (stranger, &self.request.platform) {
                self.say(Message::status(format!(
                    "WARNING: image with reference {} was found but its platform ({actual}) does not match the \
                     specified platform ({wanted})",
                    reference.familiar()
                )));
            }
            return Ok(());
        }
        let tags = self.engine.registry_for(self.scope).await?.tags(reference, &self.request.auth).await?;
        let mut news = false;
        for tag in tags {
            news |= self.pull(&reference.with_tag(&tag)?).await?.news;
        }
        self.say_status(reference, news);
        Ok(())
    }

    fn say(&self, message: Message) {
        self.job.say(message);
    }

    fn say_status(&self, reference: &Reference, news: bool) {
        let name = reference.familiar();
        self.say(Message::status(match news {
            true => format!("Status: Downloaded newer image for {name}"),
            false => format!("Status: Image is up to date for {name}"),
        }));
    }

    /// One reference.
    async fn pull(&self, reference: &Reference) -> Result<Pulled> {
        let images = &self.engine.images;
        let known =
            images.backend.get_image(self.scope.tenant(), &reference.to_string()).await?.map(|record| record.target);
        let have = |digest: &crate::model::reference::Digest| known.clone().filter(|target| target.digest == *digest);
        let resolved =
            self.engine.registry_for(self.scope).await?.resolve(reference, &self.request.auth, &have).await?;
        let Resolved { session, target, fetched } = resolved;
        let reach = Arc::new(Reach::new(self.engine, self.scope, session));
        let id = match (reference.tag(), reference.digest()) {
            (Some(tag), None) => tag.to_owned(),
            _ => reference.familiar(),
        };
        self.say(Message::about(id, format!("Pulling from {}", familiar_path(reference))));

        let bytes = match fetched {
            Some(fetched) => {
                images.store_document(self.lease, &target, &fetched.bytes).await?;
                fetched.bytes.to_vec()
            }
            None => images.read_document(&target).await?,
        };
        let mut held = Held::default();
        let Content { brought, platform, labels } = if media_type::is_index(&target.media_type) {
            let index = Index::parse(&bytes)?;
            let entry = self.choose(&index)?;
            let manifest = self.manifest(&reach, entry).await?;
            images.pin_entries(&target, &index, |other| other.digest == entry.digest).await?;
            held = Held::from_iter([entry.digest.clone()]);
            self.content(&reach, entry, &manifest).await?
        } else if media_type::is_manifest(&target.media_type) {
            self.content(&reach, &target, &Manifest::parse(&bytes)?).await?
        } else {
            return Err(unsupported(reference, &target.media_type));
        };
        images.forget_tree(&target.digest);
        let moved = images.point(self.scope.tenant(), reference, &target, held).await?;
        self.engine.keep_for_other_jobs(self.scope, &target, brought).await;
        self.say(Message::status(format!("Digest: {}", target.digest)));
        self.engine.image_event(self.scope, "pull", &reference.familiar(), &reference.familiar_name(), labels);
        let strange =
            |platform: &Platform| self.request.platform.as_ref().is_some_and(|wanted| !platform.satisfies(wanted));
        Ok(Pulled { news: brought || moved, stranger: Some(platform).filter(strange) })
    }

    fn choose<'i>(&self, index: &'i Index) -> Result<&'i Descriptor> {
        let wanted = self.request.platform.clone().unwrap_or_else(Platform::host);
        Platform::choose(&wanted, &index.manifests)
            .ok_or_else(|| Error::not_found(format!("no matching manifest for {wanted} in the manifest list entries")))
    }

    /// The manifest of an index's entry, from here if it is here.
    async fn manifest(&self, reach: &Reach, entry: &Descriptor) -> Result<Manifest> {
        let images = &self.engine.images;
        if reach.has(entry).await? && images.backend.write_blob(self.lease, entry).await?.is_none() {
            return Manifest::parse(&images.read_document(entry).await?);
        }
        let fetched = reach.session.manifest(entry).await?;
        images.store_document(self.lease, entry, &fetched.bytes).await?;
        images.remember_source(entry, &reach.session).await?;
        Manifest::parse(&fetched.bytes)
    }

    /// Configuration and layers of one manifest.
    async fn content(&self, reach: &Arc<Reach>, descriptor: &Descriptor, manifest: &Manifest) -> Result<Content> {
        if !media_type::is_image_config(&manifest.config.media_type) {
            return Err(Error::system(format!(
                "Encountered remote \"{}\"(unknown) when fetching",
                manifest.config.media_type
            )));
        }
        let document = self.document(reach, &manifest.config).await?;
        super::keep::check_layer_count(manifest, &document)?;
        let brought = self.layers(reach, manifest, &document).await?;
        self.engine.images.pin_manifest(descriptor, manifest, &document).await?;
        let labels = document.config.labels.unwrap_or_default();
        Ok(Content { brought, platform: document.platform, labels })
    }

    async fn document(&self, reach: &Reach, config: &Descriptor) -> Result<ImageDocument> {
        let images = &self.engine.images;
        if reach.has(config).await? && images.backend.write_blob(self.lease, config).await?.is_none() {
            return ImageDocument::parse(&images.read_document(config).await?);
        }
        let limit = usize::try_from(super::tree::DOCUMENT_LIMIT).unwrap_or(usize::MAX);
        let bytes = reach.session.small_blob(config, limit).await?;
        let document = ImageDocument::parse(&bytes)?;
        images.store_document(self.lease, config, &bytes).await?;
        images.remember_source(config, &reach.session).await?;
        Ok(document)
    }
}

impl super::tree::Tree {
    /// Labels of an image, for events.
    pub(super) fn labels(&self) -> indexmap::IndexMap<String, String> {
        self.choose(None).and_then(|(_, content)| content.document.config.labels.clone()).unwrap_or_default()
    }
}

/// `library/alpine`, but a registry's name is left out: dockerd writes the path alone.
fn familiar_path(reference: &Reference) -> &str {
    reference.repository()
}

fn unsupported(reference: &Reference, media_type: &str) -> Error {
    if media_type::SCHEMA1.contains(&media_type) {
        return Error::invalid(format!(
            "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support is \
             disabled by default and will be removed in an upcoming release. Suggest the author of {reference} to upgrade \
             the image to the OCI Format or Docker Image manifest v2, schema 2. More information at \
             https://docs.docker.com/go/deprecated-image-specs/"
        ));
    }
    Error::system(format!("unsupported manifest media type {media_type:?} of {reference}"))
}

/// How messages call a layer.
fn layer_id(layer: &Descriptor) -> &str {
    short(&layer.digest)
}
