//! Images as Docker writes them, fields in dockerd's order.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::compat::ApiVersion,
    engine::images::{Deleted, HistoryLine, ImageDetails, ImageSummary, ManifestSummary},
    model::{
        image::{Descriptor, ImageConfig, Platform},
        time::Timestamp,
    },
};

/// A line of `GET /images/json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryBody {
    containers: i64,
    created: i64,
    id: String,
    labels: Option<IndexMap<String, String>>,
    parent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor: Option<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<Vec<ManifestBody>>,
    repo_digests: Vec<String>,
    repo_tags: Vec<String>,
    shared_size: i64,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<u64>,
}

impl SummaryBody {
    /// As `version` has it.
    pub fn new(image: ImageSummary, version: ApiVersion) -> Self {
        let nameless = image.repo_tags.is_empty() && image.repo_digests.is_empty();
        // Before 1.43 an image without name had these in place of names.
        let old_names = nameless && version.names_nameless_images();
        let or_none = |names: Vec<String>, none: &str| if old_names { vec![none.to_owned()] } else { names };
        Self {
            // Not counted by the list, as with dockerd; `system df` does.
            containers: -1,
            created: image.created.unix(),
            id: image.id.to_string(),
            labels: image.labels,
            parent_id: image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            descriptor: version.has_image_descriptor().then_some(image.descriptor),
            manifests: image.manifests.map(|all| all.into_iter().map(ManifestBody::from).collect()),
            repo_digests: or_none(image.repo_digests, "<none>@<none>"),
            repo_tags: or_none(image.repo_tags, "<none>:<none>"),
            shared_size: image.shared_size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)),
            size: image.size,
            virtual_size: version.has_virtual_size().then_some(image.size),
        }
    }
}

/// One entry of `Manifests`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManifestBody {
    #[serde(rename = "ID")]
    id: String,
    descriptor: Descriptor,
    available: bool,
    size: SizeBody,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_data: Option<ImageDataBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attestation_data: Option<AttestationDataBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SizeBody {
    content: u64,
    total: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageDataBody {
    platform: Platform,
    size: UnpackedBody,
    containers: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttestationDataBody {
    r#for: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UnpackedBody {
    unpacked: u64,
}

impl From<ManifestSummary> for ManifestBody {
    fn from(manifest: ManifestSummary) -> Self {
        let is_image = manifest.about.is_none();
        let image_data = is_image.then(|| ImageDataBody {
            platform: manifest.platform,
            size: UnpackedBody { unpacked: manifest.unpacked_size },
            containers: (!manifest.containers.is_empty()).then_some(manifest.containers),
        });
        Self {
            id: manifest.descriptor.digest.to_string(),
            descriptor: manifest.descriptor,
            available: manifest.available,
            size: SizeBody { content: manifest.content_size, total: manifest.content_size + manifest.unpacked_size },
            kind: if is_image { "image" } else { "attestation" },
            image_data,
            attestation_data: manifest.about.map(|about| AttestationDataBody { r#for: about }),
        }
    }
}

/// `GET /images/{name}/json`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectBody {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    docker_version: String,
    author: String,
    config: Value,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os_version: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<u64>,
    graph_driver: GraphDriverBody,
    #[serde(rename = "RootFS")]
    root_fs: RootFsBody,
    metadata: MetadataBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor: Option<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    manifests: Vec<ManifestBody>,
    /// What older clients read of the container of a classic build; `Config` again would mislead.
    #[serde(flatten)]
    legacy: IndexMap<&'static str, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriverBody {
    data: Option<()>,
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFsBody {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataBody {
    last_tag_time: Timestamp,
}

impl InspectBody {
    /// As `version` has it.
    pub fn new(image: ImageDetails, version: ApiVersion) -> Self {
        let document = image.document;
        let mut legacy = IndexMap::new();
        if version.has_image_container() {
            legacy.insert("Container", json!(""));
            legacy.insert("ContainerConfig", container_config(&ImageConfig::default()));
        }
        let config = match version.has_container_fields_in_image_config() {
            true => container_config(&document.config),
            false => serde_json::to_value(&document.config).unwrap_or_default(),
        };
        Self {
            id: image.id.to_string(),
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            parent: image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            comment: comment(&document),
            created: document.created,
            docker_version: document.docker_version,
            author: document.author,
            config,
            architecture: document.platform.architecture,
            variant: document.platform.variant,
            os: document.platform.os,
            os_version: document.platform.os_version,
            size: image.size,
            virtual_size: version.has_virtual_size().then_some(image.size),
            graph_driver: GraphDriverBody { data: None, name: image.snapshotter },
            root_fs: RootFsBody {
                kind: document.rootfs.kind,
                layers: document.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            metadata: MetadataBody { last_tag_time: image.last_tagged },
            descriptor: version.has_image_descriptor().then_some(image.descriptor),
            manifests: image.manifests.into_iter().map(ManifestBody::from).collect(),
            legacy,
        }
    }
}

/// With the container image store dockerd takes the comment from the newest step.
fn comment(document: &crate::model::image::documents::ImageDocument) -> String {
    let newest = || document.history.last().map(|step| step.comment.clone()).unwrap_or_default();
    if document.comment.is_empty() { newest() } else { document.comment.clone() }
}

/// Before 1.50 an image's `Config` had all fields of a container's.
fn container_config(config: &ImageConfig) -> Value {
    let mut container = config.to_container_config();
    container.env = container.env.filter(|env| !env.is_empty());
    serde_json::to_value(container).unwrap_or_default()
}

/// A line of the history.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HistoryBody {
    comment: String,
    created: i64,
    created_by: String,
    id: String,
    size: u64,
    tags: Option<Vec<String>>,
}

impl From<HistoryLine> for HistoryBody {
    fn from(line: HistoryLine) -> Self {
        Self {
            comment: line.comment,
            created: line.created.unix(),
            created_by: line.created_by,
            id: line.id,
            size: line.size,
            tags: (!line.tags.is_empty()).then_some(line.tags),
        }
    }
}

/// A step of a deletion.
#[derive(Serialize)]
pub enum DeletedBody {
    /// A name.
    Untagged(String),
    /// An image.
    Deleted(String),
}

impl From<Deleted> for DeletedBody {
    fn from(step: Deleted) -> Self {
        match step {
            Deleted::Untagged(name) => Self::Untagged(name),
            Deleted::Deleted(id) => Self::Deleted(id.to_string()),
        }
    }
}
