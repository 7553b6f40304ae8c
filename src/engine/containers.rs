//! Containers: one file per verb.

pub mod console;
pub mod exec;
mod restore;
