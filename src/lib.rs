//! ringer: a dead ringer for the Docker Engine, carried out by containerd.
//!
//! Modules are levels of one house; imports point down, never up (see `docs/architecture.md`;
//! `tests/levels.rs` reads the `use crate::` lines and keeps it so).
//!
//! | Level | Modules |
//! |---|---|
//! | 3 | `api`, `admin`, `web`; below them `edge` and `supervisor` |
//! | 2 | `engine`; `buildkit`, `containerd`, `network` |
//! | 1 | `backend`, `work`, `descriptors`, `processes`, `oci`, `logs`, `dns`, `dockerfile`, `policy`, `registry`, `rootfs` |
//! | 0 | `model` |

pub mod admin;
pub mod api;
pub mod backend;
pub mod buildkit;
pub mod containerd;
pub mod descriptors;
pub mod dns;
pub mod dockerfile;
pub mod edge;
pub mod engine;
pub mod logs;
pub mod model;
pub mod network;
pub mod oci;
pub mod policy;
pub mod processes;
pub mod registry;
pub mod rootfs;
pub mod supervisor;
pub mod web;
pub mod work;
