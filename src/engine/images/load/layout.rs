//! The OCI layout: `index.json` names images, blobs lie under their digests.

use super::{Archive, Loaded};
use crate::{
    backend::images::Lease,
    engine::images::ImageStore,
    model::{
        Error, Result,
        image::{
            Descriptor,
            documents::{Index, media_type},
        },
        reference::Reference,
    },
};

/// The images of a layout, with the names their annotations give them.
pub async fn images(_store: &ImageStore, _lease: &Lease, archive: &Archive) -> Result<Vec<Loaded>> {
    let index = Index::parse(&archive.documents["index.json"])?;
    super::check_image_count(index.manifests.len())?;
    let mut images: Vec<Loaded> = Vec::new();
    for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
        if !media_type::is_index(&entry.media_type) && !media_type::is_manifest(&entry.media_type) {
            return Err(Error::invalid(format!("unsupported media type {} in index.json", entry.media_type)));
        }
        if archive.blob(entry).is_none() {
            return Err(Error::invalid(format!("blob {} is missing in the archive", entry.digest)));
        }
        let name = name(entry)?;
        match images.iter_mut().find(|image| image.target.digest == entry.digest) {
            Some(image) => {
                image.names.extend(name.into_iter().filter(|name| !image.names.contains(name)).collect::<Vec<_>>())
            }
            None => images.push(Loaded { target: bare(entry), names: name.into_iter().collect() }),
        }
    }
    Ok(images)
}

/// Without the annotations that belong to the archive, not to the image.
fn bare(entry: &Descriptor) -> Descriptor {
    Descriptor { annotations: indexmap::IndexMap::new(), platform: None, ..entry.clone() }
}

/// containerd and docker write the whole name into an annotation of their own; OCI's `ref.name` is often a tag
/// alone, which is no name.
fn name(entry: &Descriptor) -> Result<Option<Reference>> {
    if let Some(name) = entry.annotations.get("io.containerd.image.name") {
        return Reference::parse(name).map(|name| Some(name.or_latest()));
    }
    let whole = entry.annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    Ok(whole.and_then(|name| Reference::parse(name).ok()).map(Reference::or_latest))
}
