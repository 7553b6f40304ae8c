//! What the suites share: daemons, containerds, registries, forges and images of their own.

pub mod boxes;
pub mod daemon;
pub mod forge;
pub mod forgejo;
pub mod images;
pub mod launches;
pub mod place;
pub mod registry;
pub mod runtime;
