//! Images as the engine knows them.

pub mod documents;
pub mod platform;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{
    container::{Config, HealthConfig},
    json,
    network::null_is_default,
    reference::Digest,
};

/// An operating system and architecture, `linux/arm64/v8`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64` …
    pub architecture: String,
    /// `v8` … or empty.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub variant: String,
    /// Of Windows images.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub os_version: String,
}

/// A pointer to content (OCI descriptor).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it points at.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// URLs of foreign layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: IndexMap<String, String>,
    /// For which platform; entries of an index have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// The part of an image's configuration that becomes a container's (`config` of the OCI image configuration,
/// with Docker's additions).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// User or user:group.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// `{"80/tcp":{}}`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::names")]
    pub exposed_ports: Option<IndexMap<String, serde_json::Value>>,
    /// `KEY=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program if there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// `{"/data":{}}`.
    #[serde(deserialize_with = "json::names")]
    pub volumes: Option<IndexMap<String, serde_json::Value>>,
    /// Where the program starts.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Labels.
    pub labels: Option<IndexMap<String, String>>,
    /// Signal that stops it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds until it is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Shell of the build's shell forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Instructions for images built upon this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Escaped command line of Windows images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
}

/// What a container needs of its image: the result of a look-up at create.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageForContainer {
    /// The image's id as inspect shows it.
    pub id: Digest,
    /// Digest of the manifest for the chosen platform.
    pub manifest: Descriptor,
    /// The platform of that manifest.
    pub platform: Platform,
    /// The configuration that is merged into the container's.
    pub config: ImageConfig,
    /// Chain id of the topmost layer: the parent of the container's snapshot. Empty for an image without layers.
    pub chain_id: String,
}

impl ImageConfig {
    /// What an image keeps of a container's configuration.
    pub fn of_container(config: &Config) -> Self {
        Self {
            user: config.user.clone(),
            exposed_ports: config.exposed_ports.clone().filter(|ports| !ports.is_empty()),
            env: config.env.clone().unwrap_or_default(),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            volumes: config.volumes.clone().filter(|volumes| !volumes.is_empty()),
            working_dir: config.working_dir.clone(),
            labels: config.labels.clone().filter(|labels| !labels.is_empty()),
            stop_signal: config.stop_signal.clone(),
            stop_timeout: config.stop_timeout,
            healthcheck: config.healthcheck.clone(),
            shell: config.shell.clone(),
            on_build: config.on_build.clone(),
            args_escaped: config.args_escaped.then_some(true),
        }
    }

    /// The configuration as the defaults of a container's.
    pub fn to_container_config(&self) -> Config {
        Config {
            user: self.user.clone(),
            exposed_ports: self.exposed_ports.clone(),
            env: Some(self.env.clone()),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            volumes: self.volumes.clone(),
            working_dir: self.working_dir.clone(),
            labels: self.labels.clone(),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            healthcheck: self.healthcheck.clone(),
            shell: self.shell.clone(),
            on_build: self.on_build.clone(),
            args_escaped: self.args_escaped.unwrap_or_default(),
            ..Config::default()
        }
    }
}
