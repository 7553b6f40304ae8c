//! The docker-archive: `manifest.json` names configuration, layers and tags.

use serde::Deserialize;

use super::{Archive, Loaded, archive::File};
use crate::{
    backend::images::Lease,
    engine::images::{ImageStore, keep::check_depth},
    model::{
        Error, Result,
        image::{
            Descriptor,
            documents::{ImageDocument, Manifest, media_type},
        },
        json, limits,
        network::null_is_default,
        reference::Reference,
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<String>,
}

/// Makes a manifest for each image, byte for byte the one that dockerd with the containerd image store makes, so
/// that the ids are equal.
pub async fn images(store: &ImageStore, lease: &Lease, archive: &Archive) -> Result<Vec<Loaded>> {
    let json = &archive.documents["manifest.json"];
    json::check(json, limits::DOCUMENT_VALUES).map_err(|error| error.context("invalid manifest.json"))?;
    let items: Vec<Item> =
        serde_json::from_slice(json).map_err(|error| Error::invalid(format!("invalid manifest.json: {error}")))?;
    super::check_image_count(items.len())?;
    let mut images = Vec::new();
    for item in items {
        check_depth(item.layers.len())?;
        let config = archive.file(clean(&item.config))?;
        let layers = item.layers.iter().map(|path| archive.file(clean(path)));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let config = descriptor(media_type::DOCKER_CONFIG, config);
        ImageDocument::parse(&store.read_document(&config).await?)?;
        let target = store_manifest(store, lease, config, &layers).await?;
        let names = item.repo_tags.iter().map(|name| Reference::parse(name).map(Reference::or_latest));
        images.push(Loaded { target, names: names.collect::<Result<Vec<_>>>()? });
    }
    Ok(images)
}

fn clean(path: &str) -> &str {
    path.trim_start_matches("./")
}

fn descriptor(kind: &str, file: &File) -> Descriptor {
    Descriptor { digest: file.digest.clone(), size: file.size, ..Descriptor::of(kind, b"") }
}

/// Stores the manifest of an image whose parts are stored.
pub async fn store_manifest(
    store: &ImageStore,
    lease: &Lease,
    config: Descriptor,
    layers: &[&File],
) -> Result<Descriptor> {
    let layer = |file: &&File| {
        let kind = match file.head.as_slice() {
            [0x1f, 0x8b, ..] => media_type::DOCKER_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => media_type::DOCKER_LAYER_ZSTD,
            _ => media_type::DOCKER_LAYER,
        };
        descriptor(kind, file)
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::DOCKER_MANIFEST.to_owned(),
        config,
        layers: layers.iter().map(layer).collect(),
        annotations: indexmap::IndexMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("documents are plain data");
    let target = Descriptor::of(media_type::DOCKER_MANIFEST, &bytes);
    store.store_document(lease, &target, &bytes).await?;
    Ok(target)
}
