//! Level 0: the nouns, the state machine and the error type. No I/O, no async.

pub mod caller;
pub mod container;
pub mod error;
pub mod event;
pub mod filters;
#[cfg(test)]
pub mod fuzz;
pub mod id;
pub mod image;
pub mod job;
pub mod json;
pub mod layer;
pub mod limits;
pub mod mirror;
pub mod network;
pub mod output;
pub mod path;
pub mod policy;
pub mod record;
pub mod reference;
pub mod registry_auth;
pub mod signal;
pub mod stats;
pub mod system;
pub mod time;
pub mod url;
pub mod volume;

pub use error::{Error, ErrorKind, Result};
