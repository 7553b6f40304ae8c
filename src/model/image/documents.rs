//! The JSON documents an image consists of: index, manifest, configuration (OCI image spec and Docker's schema 2).

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Descriptor, ImageConfig, Platform};
use crate::model::{Error, Result, json, limits, network::null_is_default, reference::Digest, time::Timestamp};

/// Media types.
pub mod media_type {
    /// Docker's list of manifests.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// OCI's index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI's manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// Docker's old manifest, unsigned and signed.
    pub const SCHEMA1: [&str; 2] = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ];
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// OCI's image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Docker's layer as plain tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// OCI's layer as plain tar.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI's layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    /// OCI's layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

    /// OCI's name for a layer of either kind; tools refuse manifests that mix the two.
    pub fn of_oci_layer(media_type: &str) -> &str {
        match media_type {
            DOCKER_LAYER => OCI_LAYER,
            DOCKER_LAYER_GZIP => OCI_LAYER_GZIP,
            DOCKER_LAYER_ZSTD => OCI_LAYER_ZSTD,
            other => other,
        }
    }

    /// Whether it names an index or manifest list.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, DOCKER_LIST | OCI_INDEX)
    }

    /// Whether it names a manifest that we read.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, DOCKER_MANIFEST | OCI_MANIFEST)
    }

    /// Whether it names a configuration that containers can be made from.
    pub fn is_image_config(media_type: &str) -> bool {
        matches!(media_type, DOCKER_CONFIG | OCI_CONFIG)
    }
}

/// Digest of a layer in which nothing is changed: a tar that ends at once.
pub const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Which of the two kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The manifests.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: IndexMap<String, String>,
}

/// An image for one platform: configuration and layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Which of the two kinds; OCI's may lack it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: IndexMap<String, String>,
}

/// An image's configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageDocument {
    /// When it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Who built it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// Where it runs; `os`, `architecture`, `variant`, `os.version`.
    #[serde(flatten)]
    pub platform: Platform,
    /// Docker's comment (`import -m`, `commit -m`).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub comment: String,
    /// Which dockerd made it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub docker_version: String,
    /// What becomes a container's configuration.
    #[serde(deserialize_with = "null_is_default")]
    pub config: ImageConfig,
    /// The layers' diff ids.
    #[serde(deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// How it came about, oldest first.
    #[serde(deserialize_with = "null_is_default")]
    pub history: Vec<HistoryEntry>,
}

/// `rootfs` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One line of `docker history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The command.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// Comment.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

impl Index {
    /// Reads an index.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let index: Self = parse("image index", bytes)?;
        if index.manifests.len() > limits::INDEX_TOTAL { Err(Error::index_too_wide()) } else { Ok(index) }
    }
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse("image manifest", bytes)
    }
}

impl ImageDocument {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse("image configuration", bytes)
    }

    /// Chain ids of the layers, lowest first: names of the snapshots.
    pub fn chain_ids(&self) -> Vec<String> {
        chain_ids(&self.rootfs.diff_ids)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T> {
    json::check(bytes, limits::DOCUMENT_VALUES).map_err(|error| error.context(format!("invalid {what}")))?;
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("invalid {what}: {error}")))
}

/// Chain ids of a stack of layers, lowest first (OCI image spec, "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.to_string(),
            Some(parent) => Digest::from_sha256(&Sha256::digest(format!("{parent} {diff_id}"))).to_string(),
        };
        chain.push(next);
    }
    chain
}

/// The kind of a document whose media type is not known: by its own `mediaType`, else by its fields.
pub fn sniff_media_type(bytes: &[u8]) -> Option<String> {
    json::check(bytes, limits::DOCUMENT_VALUES).ok()?;
    let value: Value = serde_json::from_slice(bytes).ok()?;
    if let Some(own) = value.get("mediaType").and_then(Value::as_str) {
        return Some(own.to_owned());
    }
    if value.get("schemaVersion").and_then(Value::as_u64) == Some(1) {
        return Some(media_type::SCHEMA1[0].to_owned());
    }
    if value.get("manifests").is_some() {
        return Some(media_type::OCI_INDEX.to_owned());
    }
    (value.get("config").is_some() && value.get("layers").is_some()).then(|| media_type::OCI_MANIFEST.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_of_one_layer_is_its_diff_id() {
        let layer = Digest::of(b"a");
        assert_eq!(chain_ids(std::slice::from_ref(&layer)), [layer.to_string()]);
    }

    #[test]
    fn chain_hashes_parent_and_diff_id() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let expected = Digest::of(format!("{a} {b}").as_bytes()).to_string();
        assert_eq!(chain_ids(&[a, b])[1], expected);
    }

    #[test]
    fn document_with_nulls_is_read() {
        let text =
            br#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":null,"Volumes":null},"history":null,
            "rootfs":{"type":"layers","diff_ids":null},"created":"2026-11-24T03:28:13.826883787Z","container":"x"}"#;
        let document = ImageDocument::parse(text).unwrap();
        assert_eq!(document.platform.architecture, "amd64");
        assert!(document.chain_ids().is_empty());
    }

    #[test]
    fn kind_of_document_without_media_type_is_told_by_its_fields() {
        assert_eq!(sniff_media_type(br#"{"manifests":[]}"#).unwrap(), media_type::OCI_INDEX);
        assert_eq!(sniff_media_type(br#"{"schemaVersion":1}"#).unwrap(), media_type::SCHEMA1[0]);
        assert!(sniff_media_type(b"<html>").is_none());
    }
}
