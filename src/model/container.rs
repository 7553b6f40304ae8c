//! Containers: what a client asks for, what is stored, and the state machine.

mod change;
mod config;
mod effective;
mod host_config;
mod merge;
mod modes;
pub mod mount_spec;
mod mounts;
mod state;

pub use change::{Change, ChangeKind};
pub use config::{Config, HealthConfig, StrSlice};
pub use effective::Effective;
pub use host_config::{
    BindOptions, ClusterOptions, DeviceMapping, DeviceRequest, DriverConfig, HostConfig, ImageOptions, LogConfig,
    MountRequest, PortBinding, RestartPolicy, ThrottleDevice, TmpfsOptions, Ulimit, VolumeOptions, WeightDevice,
};
pub use merge::merge_health;
pub use modes::{CgroupnsMode, IpcMode, NetworkMode, PidMode, RestartMode, UsernsMode, UtsMode};
pub use mounts::{MountKind, MountPoint, MountedImage, ReadOnlyDepth, SourceRoot};
pub use state::{ContainerState, Ended, Health, HealthProbe, HealthStatus, Live};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{
    id::{ContainerId, NetworkId, TenantId},
    image::{Descriptor, Platform},
    network::{Endpoint, EndpointSettings, PublishedPort},
    record::Record,
    reference::Digest,
    time::Timestamp,
};

/// `NetworkingConfig` of `POST /containers/create`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    /// Settings by the network's name or id as the client wrote it.
    pub endpoints_config: Option<IndexMap<String, Option<EndpointSettings>>>,
}

/// The body of `POST /containers/create`, with the query's name and platform.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerCreateRequest {
    /// The wanted name, without the slash; `None` for one that we make up.
    pub name: Option<String>,
    /// The wanted platform of the image.
    pub platform: Option<Platform>,
    /// What the container is.
    pub config: Config,
    /// How the host runs it.
    pub host_config: HostConfig,
    /// Networks beside `HostConfig.NetworkMode`.
    pub networking: NetworkingConfig,
    /// What was asked for and is not carried out, for `Warnings`.
    pub warnings: Vec<String>,
    /// What the client's version of the API means where it says nothing.
    pub defaults: VersionDefaults,
    /// What the daemon itself mounts into the container, which no client asked for.
    pub own_mounts: Vec<MountPoint>,
}

/// Defaults that differ between versions of the API. `Unset` is the default of today.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionDefaults {
    /// Of `IpcMode`.
    pub ipc_mode: IpcMode,
    /// Of `CgroupnsMode`.
    pub cgroupns_mode: CgroupnsMode,
}

/// A container's attachment to a network, as asked for and, while it runs, as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name.
    pub name: String,
    /// The network's id.
    pub network: NetworkId,
    /// What was asked for.
    pub settings: EndpointSettings,
    /// Names others find it by, its own first; empty on the default bridge, where there are no names.
    pub dns_names: Vec<String>,
    /// Present while the container runs.
    pub endpoint: Option<Endpoint>,
}

/// How a container is connected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Networking {
    /// Its networks, in the order of connection. Empty with `none`, `host` and `container:`, except that `none` and
    /// `host` show their network in inspect.
    pub attachments: Vec<Attachment>,
    /// Ports as they are published while it runs.
    pub published: Vec<PublishedPort>,
    /// Path of the network namespace while it runs.
    pub sandbox: Option<String>,
    /// The containers that `HostConfig.Links` names, in its order, as they were when it was made. Records of daemons
    /// that did not note it have none: there the names count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub linked: Vec<ContainerId>,
}

/// A container as it is stored: JSON in an extension of its containerd container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub id: ContainerId,
    /// Its name, without the slash.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The image's id.
    pub image_id: Digest,
    /// The manifest that was chosen.
    pub image_manifest: Descriptor,
    /// The platform of that manifest.
    pub platform: Platform,
    /// The program and its arguments, entrypoint first.
    pub command: Vec<String>,
    /// The client's config with the image's laid below.
    pub config: Config,
    /// The client's host config with effective values laid over.
    pub host_config: HostConfig,
    /// Its networks.
    pub networking: Networking,
    /// Binds, volumes and tmpfs.
    pub mounts: Vec<MountPoint>,
    /// Where it stands.
    pub state: ContainerState,
    /// Health, if there is a check and it has been started.
    #[serde(default)]
    pub health: Option<Health>,
    /// How often the restart policy has started it.
    #[serde(default)]
    pub restart_count: u64,
    /// Stopped by a client: the restart policy holds still.
    #[serde(default)]
    pub has_been_manually_stopped: bool,
    /// The runtime it was made with.
    pub runtime: String,
}

impl Networking {
    /// Forgets what a run had: endpoints, published ports, the sandbox.
    pub fn forget_run(&mut self) {
        self.published.clear();
        self.sandbox = None;
        for attachment in &mut self.attachments {
            attachment.endpoint = None;
        }
    }
}

impl Record for ContainerRecord {
    const KIND: &'static str = "container";
}

impl ContainerRecord {
    /// The label's value, for filters.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(key).map(String::as_str)
    }
}
