//! `POST /images/create?fromSrc=-`: an image of one layer from a tar of a file system.

use std::{collections::HashMap, io::Read};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::io::ReaderStream;

use super::{
    load::{Body, decompressed},
    tag::new_name,
};
use crate::{
    backend::images::{BlobWriter, Lease},
    dockerfile::changes,
    engine::{Engine, images::reach::Held, tenants::Scope},
    model::{
        Error, Result,
        error::Context,
        image::{
            Descriptor, ImageConfig, Platform,
            documents::{HistoryEntry, ImageDocument, RootFs, media_type},
        },
        reference::{Digest, Reference},
        time::Timestamp,
    },
    policy::Asked,
    work::{self, Disk, Stop, Why, Worker},
};

/// Bytes that travel at once.
const CHUNK: usize = 1 << 20;

/// What the imported image is like.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// Name, empty for none.
    pub repository: String,
    /// Tag, `latest` if empty.
    pub tag: String,
    /// Dockerfile instructions for its configuration.
    pub changes: Vec<String>,
    /// Comment of its history.
    pub message: String,
    /// For which platform; this machine's if none.
    pub platform: Option<Platform>,
}

impl Engine {
    /// Makes an image of `body`, which may be packed; returns its id.
    pub async fn image_import(&self, scope: &Scope, request: &ImportRequest, body: Body) -> Result<Digest> {
        scope.permit(Asked::Load)?;
        let mut config = ImageConfig::default();
        changes::apply(&mut config, &request.changes)?;
        let name = match request.repository.as_str() {
            "" => None,
            repository => Some(new_name(repository, &request.tag)?),
        };
        let lease = self.images.backend.lease().await?;
        let imported = self.import(scope, request, config, name.as_ref(), body, &lease).await;
        self.images.backend.release(lease).await?;
        if imported.is_err() {
            self.collect_garbage_soon();
        }
        imported
    }

    async fn import(
        &self,
        scope: &Scope,
        request: &ImportRequest,
        config: ImageConfig,
        name: Option<&Reference>,
        body: Body,
        lease: &Lease,
    ) -> Result<Digest> {
        let layer = self.store_layer(lease, body).await?;
        let created = Some(Timestamp::now());
        let document = ImageDocument {
            created,
            platform: request.platform.clone().unwrap_or_else(Platform::host),
            comment: request.message.clone(),
            config,
            rootfs: RootFs { diff_ids: vec![layer.digest.clone()], ..RootFs::default() },
            history: vec![HistoryEntry { created, comment: request.message.clone(), ..HistoryEntry::default() }],
            ..ImageDocument::default()
        };
        let (target, manifest) = self.images.store_manifest(lease, &document, vec![layer]).await?;
        self.images.unpack(lease, &manifest, &document).await?;
        self.images.pin_manifest(&target, &manifest, &document).await?;
        match name {
            Some(name) => {
                self.images.point(scope.tenant(), name, &target, Held::default()).await?;
                self.image_event(scope, "tag", target.digest.as_str(), &name.familiar(), indexmap::IndexMap::new());
            }
            None => self.images.keep_nameless(scope.tenant(), &target, Held::default()).await?,
        }
        let labels = document.config.labels.unwrap_or_default();
        self.image_event(scope, "import", target.digest.as_str(), target.digest.as_str(), labels);
        Ok(target.digest)
    }

    /// Unpacks the body's compression on the way into the store.
    async fn store_layer(&self, lease: &Lease, body: Body) -> Result<Descriptor> {
        let stop = Stop::when([(self.stopping(), Why::Stopping)]);
        let (worker, body) = Worker::receive(stop, ReaderStream::with_capacity(body, CHUNK)).await?;
        let writer = self.images.backend.write_new_blob(lease).await?;
        let (handle, disk) = (Handle::current(), Disk::of(&self.config.data_root));
        worker.run("import", move || store(writer, body, &handle, disk)).await
    }
}

fn store(
    mut writer: Box<dyn BlobWriter>,
    body: impl Read + 'static,
    handle: &Handle,
    mut disk: Disk,
) -> Result<Descriptor> {
    let mut tar = decompressed(body)?;
    let mut size = 0;
    loop {
        let mut chunk = Vec::new();
        let read = tar.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        if read.map_err(|error| Error::invalid(format!("reading the tar: {error}")).with_source(error))? == 0 {
            break;
        }
        size += chunk.len() as u64;
        work::check().context("reading the tar")?;
        disk.step(chunk.len())?;
        handle.block_on(writer.write(Bytes::from(chunk)))?;
    }
    let digest = handle.block_on(writer.commit(HashMap::new()))?;
    Ok(Descriptor { digest, size, ..Descriptor::of(media_type::OCI_LAYER, b"") })
}
