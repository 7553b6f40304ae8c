//! What is mounted into a container beside its root file system.

use serde::{Deserialize, Serialize};

use crate::model::{id::ContainerId, reference::Digest};

/// What kind of thing is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    #[default]
    Bind,
    /// A volume, named or anonymous.
    Volume,
    /// Memory.
    Tmpfs,
    /// The files of an image, read-only.
    Image,
}

/// The image that a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedImage {
    /// Its id.
    pub id: Digest,
    /// The layer over it that it is seen through; it keeps the image's files.
    pub layer: ContainerId,
}

/// Whether a read-only mount makes what is mounted below it read-only too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadOnlyDepth {
    /// Where kernel and runtime can.
    #[default]
    IfPossible,
    /// No (`BindOptions.ReadOnlyNonRecursive`).
    Shallow,
    /// Fail where they cannot (`BindOptions.ReadOnlyForceRecursive`).
    Forced,
}

/// Whose path the source of a bind is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceRoot {
    /// The machine's.
    #[default]
    Machine,
    /// The machine's, by the way that it is written: no link is followed, and it is looked for when it is bound. So are the
    /// binds of clients that may not bind every path.
    Exact,
    /// A container's: its client named the path as it sees it there.
    Container(ContainerId),
    /// None's: it is the tenant's own socket, by whatever path the client named it.
    Socket,
}

/// One mount, resolved at create and stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What.
    pub kind: MountKind,
    /// The volume's name, or the image's as it was asked for; empty for others.
    pub name: String,
    /// Path on the host, or in the container that `root` names; empty for tmpfs.
    pub source: String,
    /// Where the path of a bind begins.
    #[serde(default)]
    pub root: SourceRoot,
    /// Path in the container, cleaned.
    pub destination: String,
    /// `local` for volumes, else empty.
    pub driver: String,
    /// The mode of a bind as the client wrote it, `z` or `ro,rslave`, for inspect.
    pub mode: String,
    /// Writable.
    pub rw: bool,
    /// `rprivate` and its like; empty for volumes and tmpfs.
    pub propagation: String,
    /// Whether the client said so.
    #[serde(default)]
    pub propagation_given: bool,
    /// The volume was made for this container and has no name of its own: `v=1` and AutoRemove delete it.
    pub anonymous: bool,
    /// Do not fill an empty volume from the image.
    pub no_copy: bool,
    /// Which image; `None` for others.
    #[serde(default)]
    pub image: Option<MountedImage>,
    /// Folder within the volume or image.
    #[serde(default)]
    pub subpath: String,
    /// Not recursive (`BindOptions.NonRecursive`).
    #[serde(default)]
    pub non_recursive: bool,
    /// How far a read-only bind reaches.
    #[serde(default)]
    pub read_only_depth: ReadOnlyDepth,
    /// Missing sources of `Binds` are made as folders; those of `Mounts` are an error.
    #[serde(default)]
    pub create_source: bool,
    /// Options of a tmpfs, `size=64k,mode=1777`.
    #[serde(default)]
    pub tmpfs_options: String,
    /// Whether inspect lists it in `Mounts` (`HostConfig.Tmpfs` entries are not).
    #[serde(default)]
    pub hidden: bool,
}
