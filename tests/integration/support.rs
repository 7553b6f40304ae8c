//! What the suites share: daemons, containerds, registries and images of their own.

pub mod boxes;
pub mod daemon;
pub mod images;
pub mod registry;
pub mod runtime;
