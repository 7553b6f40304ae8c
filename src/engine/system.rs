//! The daemon itself: `/version`, `/info`, `/events`, `/system/df`.

mod df;
mod events;
mod identity;
mod info;
mod version;

pub use df::{DiskUsage, UsageTypes, VolumeUsage};
pub use events::{EventStream, EventsQuery};
pub use identity::DaemonId;
pub use version::ApiRange;
