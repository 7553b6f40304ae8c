//! Small images for tests: made here, byte for byte the same at every run.

use std::io::Write as _;

use bytes::Bytes;

use crate::model::{
    image::{
        Descriptor, ImageConfig, Platform,
        documents::{HistoryEntry, ImageDocument, Index, Manifest, RootFs, media_type},
    },
    reference::Digest,
    time::Timestamp,
};

/// How a layer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// An image: all its documents and layers, and the one that names the others.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Manifest or index.
    pub target: Descriptor,
    /// Everything, the target included.
    pub blobs: Vec<(Descriptor, Bytes)>,
    /// Platform of an image for one.
    pub platform: Platform,
}

/// A tar of regular files with mode 0755.
pub fn tar(files: &[(&str, &[u8])]) -> Bytes {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, name, *content).expect("writing into memory does not fail");
    }
    archive.into_inner().expect("writing into memory does not fail").into()
}

/// A tar with `/bin/busybox` (package busybox-static) under its applets' names that tests use.
pub fn busybox_tar() -> std::io::Result<Bytes> {
    let program = std::fs::read("/bin/busybox")?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "bin/busybox", program.as_slice())?;
    for applet in ["sh", "cat", "echo", "ls", "sleep", "true", "false", "id", "env", "mkdir", "rm", "test", "seq"] {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o777);
        header.set_entry_type(tar::EntryType::Symlink);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    Ok(archive.into_inner()?.into())
}

/// A tar packed.
pub fn pack(tar: &Bytes, packing: Packing) -> Bytes {
    match packing {
        Packing::Plain => tar.clone(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).expect("writing into memory does not fail");
            encoder.finish().expect("writing into memory does not fail").into()
        }
        Packing::Zstd => zstd::encode_all(tar.as_ref(), 1).expect("writing into memory does not fail").into(),
    }
}

/// An image for one platform. OCI types with zstd, else Docker's.
pub fn image(platform: &str, config: ImageConfig, layers: &[(Bytes, Packing)]) -> Sample {
    let platform: Platform = platform.parse().expect("samples name real platforms");
    let oci = layers.iter().any(|(_, packing)| *packing == Packing::Zstd);
    let mut blobs = Vec::new();
    let mut diff_ids = Vec::new();
    for (tar, packing) in layers {
        let kind = match packing {
            Packing::Plain => media_type::DOCKER_LAYER,
            Packing::Gzip if oci => media_type::OCI_LAYER_GZIP,
            Packing::Gzip => media_type::DOCKER_LAYER_GZIP,
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let packed = pack(tar, *packing);
        diff_ids.push(Digest::of(tar));
        blobs.push((Descriptor::of(kind, &packed), packed));
    }
    let created = Some(Timestamp::from_unix(1_700_000_000, 0));
    let history = |n: usize| HistoryEntry {
        created,
        created_by: format!("/bin/sh -c #(nop) ADD layer {n}"),
        ..HistoryEntry::default()
    };
    let document = ImageDocument {
        created,
        platform: platform.clone(),
        config,
        rootfs: RootFs { diff_ids, ..RootFs::default() },
        history: (0..layers.len()).map(history).collect(),
        ..ImageDocument::default()
    };
    let document = to_bytes(&document);
    let config = Descriptor::of(if oci { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG }, &document);
    let manifest = Manifest {
        schema_version: 2,
        media_type: if oci { media_type::OCI_MANIFEST } else { media_type::DOCKER_MANIFEST }.to_owned(),
        config: config.clone(),
        layers: blobs.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
        annotations: indexmap::IndexMap::new(),
    };
    let bytes = to_bytes(&manifest);
    let target = Descriptor::of(&manifest.media_type, &bytes);
    blobs.push((config, document));
    blobs.push((target.clone(), bytes));
    Sample { target, blobs, platform }
}

/// One name for images of several platforms.
pub fn index(images: &[Sample]) -> Sample {
    let entry = |image: &Sample| Descriptor { platform: Some(image.platform.clone()), ..image.target.clone() };
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: images.iter().map(entry).collect(),
        annotations: indexmap::IndexMap::new(),
    };
    let bytes = to_bytes(&index);
    let target = Descriptor::of(media_type::OCI_INDEX, &bytes);
    let mut blobs: Vec<_> = images.iter().flat_map(|image| image.blobs.clone()).collect();
    blobs.push((target.clone(), bytes));
    Sample { target, blobs, platform: Platform::default() }
}

fn to_bytes(document: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(document).expect("documents are plain data").into()
}

impl Sample {
    /// The manifest of an image for one platform.
    pub fn manifest(&self) -> Manifest {
        Manifest::parse(self.bytes(&self.target.digest)).expect("samples of one platform have a manifest")
    }

    /// The configuration of an image for one platform.
    pub fn document(&self) -> ImageDocument {
        ImageDocument::parse(self.bytes(&self.manifest().config.digest)).expect("samples have a configuration")
    }

    /// One of its blobs.
    pub fn bytes(&self, digest: &Digest) -> &Bytes {
        let found = self.blobs.iter().find(|(descriptor, _)| descriptor.digest == *digest);
        &found.expect("asked for a blob of the sample").1
    }
}
