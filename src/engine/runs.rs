//! Runs: what a container has from its start to its end, in the order of its life.
//!
//! `start` sets it up (`prepare`, `mounts`, `shm`), `streams` carries its output and input, `health` looks after it, `end` records
//! its exit and takes everything back, `restart` begins the next. `restore` takes up what the last daemon left, and ends what ran.

mod end;
pub(crate) mod failure;
mod health;
mod held_sources;
mod mounts;
mod prepare;
mod restart;
mod restore;
mod shm;
mod start;
mod streams;

pub(crate) use self::{held_sources::WhenGone, mounts::seen_path};
