//! What the engine asks of file systems that count what the files of a project take: the kernel's quotas of projects, or the fake.

#[doc(hidden)]
pub mod contract;
#[doc(hidden)]
pub mod fake;

use std::{io, path::Path};

use crate::model::job::ProjectId;

/// What a project takes of one file system, and may take. Nobody uses a number of which both are nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of all its files and folders.
    pub taken: u64,
    /// Bytes that it may have at most.
    pub most: Option<u64>,
}

/// Projects of file systems. Each call names a folder on the file system that is meant, and blocks.
pub trait Projects: Send + Sync + 'static {
    /// Whether a write beyond a project's limit fails there.
    fn are_limited(&self, folder: &Path) -> bool;

    /// What a project takes there.
    fn room(&self, folder: &Path, project: ProjectId) -> io::Result<Room>;

    /// Lets a project take so many bytes there; as many as there are if `None`.
    fn limit(&self, folder: &Path, project: ProjectId, most: Option<u64>) -> io::Result<()>;

    /// Puts an empty folder into a project, and with it all that will be made below.
    fn add(&self, folder: &Path, project: ProjectId) -> io::Result<()>;
}
