//! `GET /images/get` and `/images/{name}/get`: one tar that is an OCI layout and a docker-archive at once, as dockerd
//! has made it since 25; `docker load` of older ones reads its `manifest.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
};

use bytes::Bytes;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    look_up::Found,
    tree::{Tree, Variant},
};
use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, ErrorKind, Result,
        image::{
            Descriptor, Platform,
            documents::{Index, Manifest, media_type},
        },
        reference::{Digest, Reference},
    },
};

/// The tar as it is being made. An error in it means that it is not whole.
pub type ArchiveReader = Pin<Box<dyn AsyncRead + Send>>;

/// Bytes between the store and the client.
const PIPE: usize = 1 << 20;

/// Bytes of a tar's unit.
const BLOCK: u64 = 512;

/// An image to be saved: its tree, the variant for the docker-archive, the names it is saved under.
struct Saved {
    tree: std::sync::Arc<Tree>,
    names: Vec<Reference>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Engine {
    /// Saves images. Names with a tag save that name; a name alone saves all tags of its repository; an id saves the image
    /// without names. All of them are looked up before the first byte.
    pub async fn image_get(&self, scope: &Scope, images: &[String], platforms: &[Platform]) -> Result<ArchiveReader> {
        let mut saved: Vec<Saved> = Vec::new();
        for name in images {
            for (found, names) in self.found_for_save(scope, name).await? {
                let tree = self.images.tree(&found).await?;
                if let Err(missing) = tree.choose_all(platforms) {
                    return Err(Error::platform_not_provided(name, &missing.to_string()));
                }
                self.image_event(scope, "save", found.id().as_str(), found.id().as_str(), indexmap::IndexMap::new());
                match saved.iter_mut().find(|saved| saved.tree.target.digest == *found.id()) {
                    Some(known) => known.names.extend(names),
                    None => saved.push(Saved { tree, names }),
                }
            }
        }
        for image in &mut saved {
            image.names.sort();
            image.names.dedup();
        }
        let lease = self.images.backend.lease().await?;
        let (reader, writer) = tokio::io::duplex(PIPE);
        let (engine, platforms) = (self.clone(), platforms.to_vec());
        self.spawn("image_get", async move {
            let mut archive = ArchiveWriter { engine: &engine, out: writer };
            if let Err(error) = archive.write(&saved, &platforms).await {
                // The client sees a tar without its end.
                tracing::warn!("saving images: {}", error.chain());
            }
            if let Err(error) = engine.images.backend.release(lease).await {
                tracing::warn!("ending the lease of a save: {}", error.chain());
            }
        });
        Ok(Box::pin(reader))
    }

    async fn found_for_save(&self, scope: &Scope, name: &str) -> Result<Vec<(Found, Vec<Reference>)>> {
        let repository = Reference::parse(name).ok().filter(|name| name.tag().is_none() && name.digest().is_none());
        if let Some(repository) = repository {
            let mut all = Vec::new();
            for found in self.images.all(scope.tenant()).await? {
                let mut names = found.references();
                names.retain(|reference| reference.name() == repository.name() && reference.tag().is_some());
                if !names.is_empty() {
                    all.push((found, names));
                }
            }
            if !all.is_empty() {
                return Ok(all);
            }
        }
        let found = self.images.find(scope.tenant(), name).await.map_err(|error| match error.kind() {
            // The name as it was given, without a tag.
            ErrorKind::NotFound => Error::no_such_image(name),
            _ => error,
        })?;
        let names = found.named.iter().filter(|name| name.tag().is_some()).cloned().collect();
        Ok(vec![(found, names)])
    }
}

struct ArchiveWriter<'a, W> {
    engine: &'a Engine,
    out: W,
}

impl<W: AsyncWrite + Send + Unpin> ArchiveWriter<'_, W> {
    async fn write(&mut self, images: &[Saved], platforms: &[Platform]) -> Result<()> {
        let blobs = blobs(images, platforms);
        let folders: BTreeSet<&str> =
            blobs.keys().filter_map(|digest| digest.as_str().split_once(':')).map(|(algorithm, _)| algorithm).collect();
        self.folder("blobs/").await?;
        for algorithm in folders {
            self.folder(&format!("blobs/{algorithm}/")).await?;
        }
        for (digest, size) in &blobs {
            self.blob(digest, *size).await?;
        }
        self.file("index.json", &index(images)).await?;
        self.file("manifest.json", &manifest(images, platforms)).await?;
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
        self.raw(&[0; 2 * BLOCK as usize]).await?;
        self.out.shutdown().await.map_err(|error| client_left(&error))
    }

    async fn folder(&mut self, path: &str) -> Result<()> {
        self.header(path, tar::EntryType::Directory, 0o755, 0).await
    }

    async fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.header(path, tar::EntryType::Regular, 0o644, content.len() as u64).await?;
        self.raw(content).await?;
        self.pad(content.len() as u64).await
    }

    async fn blob(&mut self, digest: &Digest, size: u64) -> Result<()> {
        let path = format!("blobs/{}", digest.as_str().replace(':', "/"));
        self.header(&path, tar::EntryType::Regular, 0o444, size).await?;
        let mut content = self.engine.images.backend.read_blob(digest, 0).await?;
        let copied = tokio::io::copy(&mut content, &mut self.out).await.map_err(|error| client_left(&error))?;
        if copied != size {
            return Err(Error::system(format!("blob {digest} has {copied} bytes, not {size}")));
        }
        self.pad(size).await
    }

    async fn header(&mut self, path: &str, kind: tar::EntryType, mode: u32, size: u64) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        let named = header.set_path(path);
        named.map_err(|error| Error::system(format!("archive path {path}: {error}")).with_source(error))?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let bytes = Bytes::copy_from_slice(header.as_bytes());
        self.raw(&bytes).await
    }

    async fn pad(&mut self, size: u64) -> Result<()> {
        let padding = usize::try_from((BLOCK - size % BLOCK) % BLOCK).expect("less than a block");
        self.raw(&[0; BLOCK as usize][..padding]).await
    }

    async fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).await.map_err(|error| client_left(&error))
    }
}

/// All blobs that are here, with their sizes.
fn blobs(images: &[Saved], platforms: &[Platform]) -> BTreeMap<Digest, u64> {
    let mut blobs = BTreeMap::new();
    for image in images {
        let chosen = image.tree.choose_all(platforms).unwrap_or_default();
        let is_chosen =
            |variant: &Variant| chosen.iter().any(|(known, _)| known.descriptor.digest == variant.descriptor.digest);
        let documents = image.tree.indexes.iter().chain([&image.tree.target]);
        blobs.extend(documents.map(|document| (document.digest.clone(), document.size)));
        for (variant, content) in image.tree.available() {
            if !platforms.is_empty() && !is_chosen(variant) {
                continue;
            }
            add(&mut blobs, &variant.descriptor, &content.manifest);
        }
        for attestation in image.tree.attestations.iter().filter(|_| platforms.is_empty()) {
            add(&mut blobs, &attestation.descriptor, &attestation.manifest);
        }
    }
    blobs
}

fn add(blobs: &mut BTreeMap<Digest, u64>, descriptor: &Descriptor, manifest: &Manifest) {
    let parts = manifest.layers.iter().chain([&manifest.config, descriptor]);
    blobs.extend(parts.map(|part| (part.digest.clone(), part.size)));
}

fn client_left(error: &std::io::Error) -> Error {
    Error::system(format!("writing the archive: {error}"))
}

fn index(images: &[Saved]) -> Vec<u8> {
    let mut manifests = Vec::new();
    for image in images {
        for name in &image.names {
            let mut entry = image.tree.target.clone();
            entry.annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
            let tag = name.tag().unwrap_or_default().to_owned();
            entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
            manifests.push(entry);
        }
        if image.names.is_empty() {
            manifests.push(image.tree.target.clone());
        }
    }
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests,
        annotations: indexmap::IndexMap::new(),
    };
    serde_json::to_vec(&index).expect("documents are plain data")
}

fn manifest(images: &[Saved], platforms: &[Platform]) -> Vec<u8> {
    let path = |blob: &Descriptor| format!("blobs/{}", blob.digest.as_str().replace(':', "/"));
    let item = |image: &Saved| {
        // The archive's old part has room for one platform.
        let (_, content) = image.tree.choose_all(platforms).ok()?.into_iter().next()?;
        let tags: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        Some(ArchiveItem {
            config: path(&content.manifest.config),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: content.manifest.layers.iter().map(path).collect(),
        })
    };
    let items: Vec<ArchiveItem> = images.iter().filter_map(item).collect();
    serde_json::to_vec(&items).expect("items are plain data")
}
