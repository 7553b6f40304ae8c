//! The daemon itself: `/version`, `/info`, `/events`.

mod events;
pub(crate) mod host;
mod identity;
mod info;
mod version;

pub use events::{EventStream, EventsQuery};
pub use identity::DaemonId;
pub use version::ApiRange;
