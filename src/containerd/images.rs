//! [`ImageBackend`] on containerd: image records here, blobs in `content`, unpacking in `layers`.

use std::collections::HashMap;

use async_trait::async_trait;
use containerd_client::services::v1::{
    AddResourceRequest, CreateImageRequest, DeleteImageRequest, DeleteRequest, GetImageRequest, Image,
    ListImagesRequest, Resource, UpdateImageRequest,
};

use super::{Client, Containerd, changes, content, from_status, layers, leases};
use crate::{
    backend::{
        builds,
        images::{BlobInfo, BlobReader, BlobWriter, ImageBackend, ImageRecord, Lease, NewLayer},
    },
    model::{
        Error, ErrorKind, Result,
        container::Change,
        id::{ContainerId, TenantId},
        image::Descriptor,
        reference::Digest,
        time::Timestamp,
    },
};

/// A lease that nobody ends, ends by itself. Pulls of an hour are broken pulls.
const LEASE_LIFE: std::time::Duration = std::time::Duration::from_secs(3600);

#[async_trait]
impl ImageBackend for Containerd {
    async fn lease(&self) -> Result<Lease> {
        let id = leases::create(self.client(), LEASE_LIFE).await?;
        Ok(Lease(id))
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        leases::delete(self.client(), &lease.0).await
    }

    async fn list_images(&self, tenant: &TenantId) -> Result<Vec<ImageRecord>> {
        // containerd's filter knows expressions only. It narrows what is sent; whose an image is, is compared below.
        let expression = regex::escape(tenant.as_str());
        let request = ListImagesRequest { filters: vec![format!("name~={:?}", format!("^{expression}/"))] };
        let answer = self.client().images().list(request).await.map_err(from_status)?;
        answer.into_inner().images.into_iter().filter_map(|image| from_image(tenant, image).transpose()).collect()
    }

    async fn get_image(&self, tenant: &TenantId, name: &str) -> Result<Option<ImageRecord>> {
        let request = GetImageRequest { name: record_name(tenant, name) };
        match self.client().images().get(request).await.map_err(from_status) {
            Ok(answer) => answer.into_inner().image.map_or(Ok(None), |image| from_image(tenant, image)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn put_image(&self, image: &ImageRecord) -> Result<ImageRecord> {
        let sent = to_image(image);
        let mut client = self.client().images();
        let create = CreateImageRequest { image: Some(sent.clone()), source_date_epoch: None };
        let kept = match client.create(create).await.map_err(from_status) {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let update = UpdateImageRequest { image: Some(sent), update_mask: None, source_date_epoch: None };
                client.update(update).await.map_err(from_status)?.into_inner().image
            }
            created => created?.into_inner().image,
        };
        let kept = kept.map(|kept| from_image(&image.tenant, kept)).transpose()?.flatten();
        kept.ok_or_else(|| Error::system(format!("containerd made no image {}", image.name)))
    }

    async fn delete_image(&self, tenant: &TenantId, name: &str, sync: bool) -> Result<()> {
        let request = DeleteImageRequest { name: record_name(tenant, name), sync, target: None };
        missing_is_done(self.client().images().delete(request).await.map_err(from_status))
    }

    async fn blob_info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        content::info(self.client(), digest).await
    }

    async fn read_blob(&self, digest: &Digest, offset: u64) -> Result<BlobReader> {
        content::read(self.client(), digest, offset).await
    }

    async fn fetch_blob(
        &self,
        lease: &Lease,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<Box<dyn BlobWriter>>> {
        let client = self.client().with_lease(&lease.0)?;
        let wanted = content::Wanted::Blob { blob: Box::new(descriptor.clone()), source: source.to_owned() };
        let writer = content::Writer::open(client, wanted).await?;
        Ok(writer.map(|writer| Box::new(writer) as Box<dyn BlobWriter>))
    }

    async fn write_new_blob(&self, lease: &Lease) -> Result<Box<dyn BlobWriter>> {
        let client = self.client().with_lease(&lease.0)?;
        match content::Writer::open(client, content::Wanted::Anything).await? {
            Some(writer) => Ok(Box::new(writer)),
            None => Err(Error::system("containerd has a blob that nobody has written yet")),
        }
    }

    async fn label_blob(&self, digest: &Digest, labels: HashMap<String, String>) -> Result<()> {
        content::label(self.client(), digest, labels).await
    }

    async fn lend(&self, tenant: &TenantId, blobs: &[Descriptor]) -> Result<()> {
        let builders = self.client_of_builder(tenant)?;
        // It ends by itself: a build takes what it needs into leases of its own.
        let lease = leases::create(&builders, builds::LENT).await?;
        let builders = builders.with_lease(&lease)?;
        for blob in blobs {
            content::give(self.client(), &builders, blob).await?;
        }
        Ok(())
    }

    async fn take(&self, lease: &Lease, tenant: &TenantId, blob: &Descriptor) -> Result<bool> {
        let client = self.client().with_lease(&lease.0)?;
        content::give(&self.client_of_builder(tenant)?, &client, blob).await
    }

    async fn has_snapshot(&self, lease: &Lease, chain_id: &str) -> Result<bool> {
        // The lease first: between a look and a lease the collector could come.
        let resource = Resource { id: chain_id.to_owned(), r#type: format!("snapshots/{}", self.snapshotter_name()) };
        let request = AddResourceRequest { id: lease.0.clone(), resource: Some(resource) };
        self.client().leases().add_resource(request).await.map_err(from_status)?;
        layers::exists(self, chain_id).await
    }

    async fn unpack_layer(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        parent: &str,
        chain_id: &str,
        expected_diff_id: &Digest,
    ) -> Result<()> {
        layers::unpack(self, lease, &layers::Layer { blob: layer, parent, chain_id, diff_id: expected_diff_id }).await
    }

    async fn store_changes(&self, lease: &Lease, container: &ContainerId) -> Result<NewLayer> {
        changes::store(self, &lease.0, container).await
    }

    async fn list_changes(&self, container: &ContainerId) -> Result<Vec<Change>> {
        let lease = self.lease().await?;
        let changes = changes::list(self, &lease.0, container).await;
        leases::delete_later(self.client(), lease.0);
        changes
    }

    async fn snapshot_size(&self, chain_id: &str) -> Result<u64> {
        layers::size(self, chain_id).await
    }

    fn snapshotter(&self) -> &str {
        self.snapshotter_name()
    }

    fn connection(&self) -> u64 {
        self.client().connection()
    }

    async fn collect_garbage(&self) -> Result<()> {
        // containerd has no call for it, but ending a lease can wait for the collector.
        let lease = self.lease().await?;
        let request = DeleteRequest { id: lease.0, sync: true };
        missing_is_done(self.client().leases().delete(request).await.map_err(from_status))
    }
}

impl Containerd {
    /// As the builder of a tenant finds containerd.
    fn client_of_builder(&self, tenant: &TenantId) -> Result<Client> {
        self.client().in_namespace(&builds::namespace(self.client().namespace(), tenant))
    }
}

fn missing_is_done<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn record_name(tenant: &TenantId, name: &str) -> String {
    format!("{tenant}/{name}")
}

fn to_image(image: &ImageRecord) -> Image {
    Image {
        name: record_name(&image.tenant, &image.name),
        labels: image.labels.clone(),
        target: Some(layers::to_descriptor(&image.target)),
        created_at: None,
        updated_at: None,
    }
}

/// `None` if it is another tenant's.
fn from_image(tenant: &TenantId, image: Image) -> Result<Option<ImageRecord>> {
    let Some(name) = image.name.strip_prefix(tenant.as_str()).and_then(|name| name.strip_prefix('/')) else {
        return Ok(None);
    };
    let target = image.target.ok_or_else(|| Error::system(format!("image record {} has no target", image.name)))?;
    Ok(Some(ImageRecord {
        tenant: tenant.clone(),
        name: name.to_owned(),
        target: layers::from_descriptor(target)?,
        labels: image.labels,
        created: image.created_at.map_or_else(Timestamp::zero, from_time),
        updated: image.updated_at.map_or_else(Timestamp::zero, from_time),
    }))
}

fn from_time(time: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_unix(time.seconds, u32::try_from(time.nanos).unwrap_or_default())
}
