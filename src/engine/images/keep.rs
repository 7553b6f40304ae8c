//! Keeping an image: the labels that pin its content and snapshots, and its names.

use std::collections::HashMap;

use crate::{
    backend::images::{ImageRecord, Lease},
    engine::images::{ImageStore, reach::Held},
    model::{
        Error, Result,
        id::TenantId,
        image::{
            Descriptor,
            documents::{ImageDocument, Index, Manifest, media_type},
        },
        limits,
        reference::{Digest, Reference},
        time::Timestamp,
    },
};

/// Label of a manifest that names the image it was made on; only images made here have it.
pub const PARENT: &str = "ringer.parent";

impl ImageStore {
    /// Stores a document that is in memory, and has the lease keep it.
    pub(crate) async fn store_document(&self, lease: &Lease, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        let _lock = self.locks.lock(descriptor.digest.as_str()).await;
        if let Some(mut writer) = self.backend.write_blob(lease, descriptor).await? {
            if writer.offset() > 0 {
                writer.truncate().await?;
            }
            writer.write(bytes.to_vec().into()).await?;
            writer.commit(HashMap::new()).await?;
        }
        Ok(())
    }

    /// Stores the documents of an image for one platform, whose layers are here already.
    pub(crate) async fn store_manifest(
        &self,
        lease: &Lease,
        document: &ImageDocument,
        layers: Vec<Descriptor>,
    ) -> Result<(Descriptor, Manifest)> {
        let layers = layers
            .into_iter()
            .map(|layer| Descriptor { media_type: media_type::of_oci_layer(&layer.media_type).to_owned(), ..layer });
        let bytes = serde_json::to_vec(document).expect("documents are plain data");
        if bytes.len() > limits::DOCUMENT {
            let largest = limits::mib(limits::DOCUMENT);
            return Err(Error::invalid(format!("the image's configuration and history are larger than {largest}")));
        }
        let config = Descriptor::of(media_type::OCI_CONFIG, &bytes);
        self.store_document(lease, &config, &bytes).await?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config,
            layers: layers.collect(),
            annotations: indexmap::IndexMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).expect("documents are plain data");
        let target = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        self.store_document(lease, &target, &bytes).await?;
        Ok((target, manifest))
    }

    /// Notes on which image one was made here.
    pub(crate) async fn set_parent(&self, image: &Digest, parent: Option<&Digest>) -> Result<()> {
        let Some(parent) = parent else { return Ok(()) };
        let label = HashMap::from([(PARENT.to_owned(), parent.to_string())]);
        self.backend.label_blob(image, label).await?;
        self.forget_tree(image);
        Ok(())
    }

    /// An index pins some of the manifests that it names: those that came with it. Others may be here for somebody else.
    pub(crate) async fn pin_entries(
        &self,
        descriptor: &Descriptor,
        index: &Index,
        wanted: impl Fn(&Descriptor) -> bool,
    ) -> Result<()> {
        let entries = index.manifests.iter().enumerate().filter(|(_, entry)| wanted(entry));
        let labels =
            entries.map(|(n, entry)| (format!("containerd.io/gc.ref.content.m.{n}"), entry.digest.to_string()));
        self.backend.label_blob(&descriptor.digest, labels.collect()).await
    }

    /// A manifest pins configuration and layers, the configuration pins the snapshots.
    pub(crate) async fn pin_manifest(
        &self,
        descriptor: &Descriptor,
        manifest: &Manifest,
        document: &ImageDocument,
    ) -> Result<()> {
        self.pin_blobs(descriptor, manifest).await?;
        if let Some(top) = document.chain_ids().pop() {
            let label = format!("containerd.io/gc.ref.snapshot.{}", self.backend.snapshotter());
            self.backend.label_blob(&manifest.config.digest, HashMap::from([(label, top)])).await?;
        }
        Ok(())
    }

    /// The first half of that, for an image that is not unpacked yet.
    pub(crate) async fn pin_blobs(&self, descriptor: &Descriptor, manifest: &Manifest) -> Result<()> {
        let layers = manifest.layers.iter().enumerate();
        let mut labels: HashMap<String, String> = layers
            .map(|(n, layer)| (format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.to_string()))
            .collect();
        labels.insert("containerd.io/gc.ref.content.config".to_owned(), manifest.config.digest.to_string());
        self.backend.label_blob(&descriptor.digest, labels).await
    }

    /// Unpacks what is not unpacked yet. The layers' blobs must be here.
    pub(crate) async fn unpack(&self, lease: &Lease, manifest: &Manifest, document: &ImageDocument) -> Result<()> {
        let diff_ids = &document.rootfs.diff_ids;
        check_layer_count(manifest, document)?;
        let chains = document.chain_ids();
        for (n, layer) in manifest.layers.iter().enumerate() {
            let parent = if n == 0 { "" } else { chains[n - 1].as_str() };
            self.unpack_one(lease, layer, parent, &chains[n], &diff_ids[n]).await?;
        }
        Ok(())
    }

    /// Unpacks one layer, unless it is there. Whether there was something to do.
    pub(crate) async fn unpack_one(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        parent: &str,
        chain_id: &str,
        diff_id: &Digest,
    ) -> Result<bool> {
        // What a configuration claims that a blob unpacks to is its own word: others may have the blob that does.
        let _lock = self.locks.lock(&format!("{chain_id} {}", layer.digest)).await;
        if self.backend.has_snapshot(lease, chain_id).await? {
            return match self.holds_tar(layer, diff_id).await? {
                true => Ok(false),
                false => Err(Error::layer_holds_another_tar(layer.digest.as_str(), diff_id.as_str())),
            };
        }
        self.backend.unpack_layer(lease, layer, parent, chain_id, diff_id).await?;
        self.remember_tar(layer, diff_id).await?;
        Ok(true)
    }

    /// Points a tenant's name at an image, of which it has the documents `held` besides those that its other names note. The image that
    /// had the name before, and has no other, stays without a name (dangling), as dockerd has it. Returns whether it moved.
    pub(crate) async fn point(
        &self,
        tenant: &TenantId,
        name: &Reference,
        target: &Descriptor,
        held: Held,
    ) -> Result<bool> {
        let _lock = self.names.lock(tenant.as_str()).await;
        let name = name.to_string();
        let labels = self.hold(tenant, target, held).await?;
        let before = self.backend.get_image(tenant, &name).await?;
        if before.as_ref().is_some_and(|before| before.target.digest == target.digest) {
            return Ok(false);
        }
        if let Some(before) = before {
            let others = self.backend.list_images(tenant).await?;
            let same = |record: &&ImageRecord| record.target.digest == before.target.digest;
            if others.iter().filter(same).count() == 1 {
                let name = before.target.digest.to_string();
                self.backend.put_image(&ImageRecord { name, ..before }).await?;
            }
        }
        self.backend.put_image(&ImageRecord { labels, ..record(tenant, &name, target) }).await?;
        // An image that had lost its name has one again.
        self.backend.delete_image(tenant, target.digest.as_str(), false).await?;
        Ok(true)
    }

    /// Keeps an image that has no name, unless it has one.
    pub(crate) async fn keep_nameless(&self, tenant: &TenantId, target: &Descriptor, held: Held) -> Result<()> {
        let _lock = self.names.lock(tenant.as_str()).await;
        let labels = self.hold(tenant, target, held).await?;
        let records = self.backend.list_images(tenant).await?;
        if records.iter().any(|record| record.target.digest == target.digest) {
            return Ok(());
        }
        self.backend
            .put_image(&ImageRecord { labels, ..record(tenant, target.digest.as_str(), target) })
            .await
            .map(drop)
    }

    /// Notes at each name of an image what the tenant has of it, and answers that as labels. A name that goes takes nothing away.
    async fn hold(&self, tenant: &TenantId, target: &Descriptor, held: Held) -> Result<HashMap<String, String>> {
        if !media_type::is_index(&target.media_type) {
            return Ok(HashMap::new());
        }
        let mut names = self.backend.list_images(tenant).await?;
        names.retain(|record| record.target.digest == target.digest);
        // Where all that is here is the tenant's, by a name of an older daemon, it stays so.
        let labels = Held::of(&names).map(|known| known.and(held).labels()).unwrap_or_default();
        for record in names {
            if record.labels != labels {
                self.backend.put_image(&ImageRecord { labels: labels.clone(), ..record }).await?;
            }
        }
        Ok(labels)
    }
}

/// A configuration and a manifest that disagree make no image.
pub fn check_layer_count(manifest: &Manifest, document: &ImageDocument) -> Result<()> {
    let (layers, diff_ids) = (manifest.layers.len(), document.rootfs.diff_ids.len());
    check_depth(layers)?;
    if layers == diff_ids {
        return Ok(());
    }
    Err(Error::system(format!(
        "layers from manifest don't match image configuration: {layers} layers, {diff_ids} diff ids"
    )))
}

/// dockerd's words for more layers than can lie upon each other.
pub fn check_depth(layers: usize) -> Result<()> {
    if layers > limits::LAYERS { Err(Error::max_depth_exceeded()) } else { Ok(()) }
}

/// Points a name, or its own digest, at an image.
pub fn record(tenant: &TenantId, name: &str, target: &Descriptor) -> ImageRecord {
    ImageRecord {
        tenant: tenant.clone(),
        name: name.to_owned(),
        target: target.clone(),
        labels: HashMap::new(),
        created: Timestamp::now(),
        updated: Timestamp::now(),
    }
}
