//! Containers: one file per verb.

pub mod archive;
pub mod attach;
mod binds;
mod buildx;
pub mod create;
pub mod delete;
pub mod effective;
pub mod exec;
pub mod export;
mod image_mounts;
mod kill;
pub mod list;
mod logs;
mod name;
mod own_socket;
mod pause;
pub mod prune;
mod resize;
mod seat;
pub mod session;
mod start;
pub mod stats;
pub mod stop;
mod storage;
#[cfg(test)]
mod tests;
pub mod top;
mod update;
pub mod view;
pub mod wait;
