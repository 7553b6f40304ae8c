//! What `GET /events` reports.

use indexmap::IndexMap;

use super::time::Timestamp;

/// The `Type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A container, including its execs and health.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The daemon itself.
    Daemon,
    /// The build cache.
    Builder,
}

impl EventType {
    /// The word in the JSON and in the `type` filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Daemon => "daemon",
            Self::Builder => "builder",
        }
    }
}

/// One event. Attributes keep their order of insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind of object.
    pub kind: EventType,
    /// What happened: `create`, `start`, `die`, `exec_create: sh -c true` …
    pub action: String,
    /// The object's id (containers, networks, images) or name (volumes).
    pub actor: String,
    /// Labels of the object and facts on the event.
    pub attributes: IndexMap<String, String>,
    /// When.
    pub time: Timestamp,
}
