//! Level 1: the traits that the engine calls and the adapters (`containerd`, `network`) carry out.
//!
//! Each trait has a fake for unit tests and one contract suite that the fake and the real adapter both pass.

pub mod builds;
pub mod images;
pub mod network;
pub mod projects;
pub mod runtime;
