//! What one request can cost: each bomb is sent to a daemon that has a limit, and the daemon lives on.

mod archives;
mod bodies;
mod deep;
mod descriptors;
mod dockerfiles;
mod files;
pub mod fort;
mod holds;
pub mod naive;
mod registries;
mod tars;
