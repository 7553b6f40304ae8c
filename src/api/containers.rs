//! Handlers for containers and execs.

pub mod archive;
pub mod create;
pub mod exec;
pub mod export;
pub mod inspect;
pub mod lifecycle;
pub mod list;
pub mod network_settings;
pub mod prune;
pub mod session;
pub mod stats;
pub mod streams;
pub mod update;
