//! The archive of docker before 1.10: `repositories` names images, each layer is a folder with `json` and `layer.tar`
//! and knows its parent.

use indexmap::IndexMap;
use serde::Deserialize;

use super::{Archive, Loaded, archive::File, docker, or_host};
use crate::{
    backend::images::Lease,
    engine::images::ImageStore,
    model::{
        Error, Result,
        image::{
            Descriptor,
            documents::{HistoryEntry, ImageDocument, RootFs, media_type},
        },
        json, limits,
        network::null_is_default,
        reference::{Digest, Reference},
    },
};

/// Stacks are not deeper than this; a circle of parents ends here.
const DEEPEST: usize = 128;

#[derive(Deserialize)]
struct Layer {
    #[serde(default, deserialize_with = "null_is_default")]
    parent: String,
    #[serde(default, deserialize_with = "null_is_default")]
    container_config: Command,
    #[serde(flatten)]
    document: ImageDocument,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Command {
    #[serde(deserialize_with = "null_is_default")]
    cmd: Vec<String>,
}

/// Makes configuration and manifest for each image.
pub async fn images(store: &ImageStore, lease: &Lease, archive: &Archive) -> Result<Vec<Loaded>> {
    let json = &archive.documents["repositories"];
    json::check(json, limits::DOCUMENT_VALUES).map_err(|error| error.context("invalid repositories"))?;
    let repositories: IndexMap<String, IndexMap<String, String>> =
        serde_json::from_slice(json).map_err(|error| Error::invalid(format!("invalid repositories: {error}")))?;
    let mut tops: IndexMap<String, Vec<Reference>> = IndexMap::new();
    for (repository, tags) in repositories {
        for (tag, id) in tags {
            tops.entry(id).or_default().push(Reference::parse(&repository)?.with_tag(&tag)?);
        }
    }
    super::check_image_count(tops.len())?;
    let mut images = Vec::new();
    for (id, names) in tops {
        let target = image(store, lease, archive, &id).await?;
        images.push(Loaded { target, names });
    }
    Ok(images)
}

async fn image(store: &ImageStore, lease: &Lease, archive: &Archive, top: &str) -> Result<Descriptor> {
    let mut stack: Vec<(Layer, &File)> = Vec::new();
    let mut id = top.to_owned();
    while !id.is_empty() {
        if stack.len() == DEEPEST {
            return Err(Error::invalid(format!("invalid archive: image {top} has more than {DEEPEST} layers")));
        }
        let json = archive.file(&format!("{id}/json"))?;
        let json = Descriptor { digest: json.digest.clone(), size: json.size, ..Descriptor::of("", b"") };
        let json = store.read_document(&json).await?;
        json::check(&json, limits::DOCUMENT_VALUES).map_err(|error| error.context(format!("invalid {id}/json")))?;
        let layer: Layer =
            serde_json::from_slice(&json).map_err(|error| Error::invalid(format!("invalid {id}/json: {error}")))?;
        let tar = archive.file(&format!("{id}/layer.tar"))?;
        id.clone_from(&layer.parent);
        stack.push((layer, tar));
    }
    stack.reverse();
    let diff_ids: Vec<Digest> = stack.iter().map(|(_, tar)| tar.digest.clone()).collect();
    let history = stack.iter().map(|(layer, _)| step(layer)).collect();
    let (layers, files): (Vec<Layer>, Vec<&File>) = stack.into_iter().unzip();
    let newest =
        layers.into_iter().next_back().ok_or_else(|| Error::invalid("invalid archive: an image without layers"))?;
    let document =
        ImageDocument { rootfs: RootFs { diff_ids, ..RootFs::default() }, history, ..or_host(newest.document) };
    let bytes = serde_json::to_vec(&document).expect("documents are plain data");
    let config = Descriptor::of(media_type::DOCKER_CONFIG, &bytes);
    store.store_document(lease, &config, &bytes).await?;
    docker::store_manifest(store, lease, config, &files).await
}

fn step(layer: &Layer) -> HistoryEntry {
    HistoryEntry {
        created: layer.document.created,
        created_by: layer.container_config.cmd.join(" "),
        author: layer.document.author.clone(),
        comment: layer.document.comment.clone(),
        empty_layer: false,
    }
}
