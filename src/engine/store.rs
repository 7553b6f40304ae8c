//! Where the tenants' containers and their execs are found.

mod containers;
mod execs;

pub use self::{containers::ContainerStore, execs::ExecStore};
