//! A container's root file system, seen from the host: resolving its paths, reading and writing archives, copying
//! image content into volumes, reading its user database; and a build's context.
//!
//! Everything goes through a [`RootView`] and descriptors that were resolved inside the container's root, so that
//! a link which a job controls never leads to the host, and links mean what they mean to the container. All of it
//! blocks; the engine calls it on blocking threads.

mod archive;
mod attributes;
mod changes;
mod compress;
mod copyup;
mod decompress;
mod descent;
mod entries;
mod extract;
mod header;
mod holding;
mod image;
mod layer;
mod mounting;
mod path;
mod prepare;
mod projects;
mod resolve;
mod shm;
mod size;
mod subpath;
mod transfer;
mod tree;
mod users;
mod view;
mod walk;

pub use archive::{PathStat, Target};
pub use changes::Changes;
pub use compress::gzip;
pub use copyup::{copy_up, is_empty};
pub use decompress::decompress;
pub use entries::{Bounded, Tar, is_too_long};
pub use extract::ExtractOptions;
pub use holding::{SeenPath, hold_socket, is_same_file};
pub use image::{mount_image, path_in_image};
pub use mounting::{mount_into, unmount_and_remove};
pub use prepare::prepare;
pub use projects::LinuxProjects;
pub use resolve::Owner;
pub use shm::mount_shm;
pub use size::{folder_size, room_of, room_up_to};
pub use subpath::{hold_part, open_part};
pub use transfer::{ContentHash, Placing};
pub use tree::remove_folder;
pub use users::{UserFiles, user_files};
pub use view::{Attached, RootView};

#[cfg(test)]
mod tests;
