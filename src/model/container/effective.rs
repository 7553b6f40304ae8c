//! A create as it will be carried out.

use super::{Attachment, Config, HostConfig, mount_spec::WantedMount};
use crate::model::id::ContainerId;

/// What becomes of a create once defaults are filled in, the image's configuration is laid below and every word is looked up;
/// nothing is made yet. What may be refused is judged by this, whichever field, version or spelling it came by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    /// The client's config with the image's laid below.
    pub config: Config,
    /// The client's host config with defaults filled in; containers that it names are named by their ids.
    pub host_config: HostConfig,
    /// The networks that it will be connected to.
    pub attachments: Vec<Attachment>,
    /// The containers that `Links` names.
    pub linked: Vec<ContainerId>,
    /// Binds, volumes, tmpfs and images, those of other containers and of the image among them. Of binds it is said whose path the source is.
    pub mounts: Vec<WantedMount>,
    /// The runtime, if it is another than the one that containers have by default.
    pub other_runtime: Option<String>,
    /// System paths that containers see hidden or read-only by default and this one does not.
    pub uncovered_paths: Vec<String>,
}
