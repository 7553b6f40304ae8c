//! Ways into a container's root: through its first process while it runs, else by mounting what it consists of
//! where nobody else sees it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::fs::{AtFlags, CWD, FsWord, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};

use crate::{
    backend::runtime::RootfsMount,
    model::{Error, Result, error::Context},
    processes::Process,
    rootfs::mounting,
};

/// A volume or bind that belongs into the view of a stopped container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Path on the host, a folder or a file. One that is not there is left out.
    pub source: PathBuf,
    /// Path in the container.
    pub destination: String,
    /// Not writable.
    pub read_only: bool,
    /// With the mounts below the source.
    pub recursive: bool,
}

/// A container's root. Dropping it gives everything back; nothing of it is ever in the host's mount table.
#[derive(Debug)]
pub struct RootView {
    root: OwnedFd,
    /// Keeps the mounts of a stopped container's view: they live in a mount namespace without any process.
    _namespace: Option<OwnedFd>,
    /// Where the kernel says that the root is, to make container paths of what it says of descriptors.
    prefix: PathBuf,
    is_running: bool,
}

/// File systems of the kernel's own, which are no part of a container's files.
const KERNEL_FILE_SYSTEMS: [FsWord; 8] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7363_6673, // securityfs
];

impl RootView {
    /// The root of a running container, as its process `pid` sees it: with volumes, binds and tmpfs.
    pub fn running(pid: u32) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())
            .context("opening the container's root")?;
        Self::new(root, None, true)
    }

    /// The root of a process, as that sees it.
    pub fn seen_by(process: &Process) -> Result<Self> {
        Self::new(process.root().context("opening the process's root")?, None, true)
    }

    /// The root of a container that does not run: its layers, with volumes and binds on top. Mount points that
    /// are missing are made, as dockerd makes them. Must not be kept while the container is started.
    pub fn stopped(rootfs: &[RootfsMount], read_only: bool, attached: &[Attached]) -> Result<Self> {
        let mounted = mounting::mount_apart(rootfs, read_only, attached)?;
        Self::new(mounted.root, Some(mounted.namespace), false)
    }

    /// The same to be read, without writing to its layers: they may be mounted elsewhere meanwhile. Mount points must be
    /// there.
    pub fn still(rootfs: &[RootfsMount], attached: &[Attached]) -> Result<Self> {
        let rootfs: Vec<RootfsMount> = rootfs.iter().map(mounting::without_upper).collect();
        let mounted = mounting::mount_apart(&rootfs, true, attached)?;
        Self::new(mounted.root, Some(mounted.namespace), false)
    }

    /// The layers of a container alone, whether it runs or not: without volumes, and with no way to write them.
    pub fn layers(rootfs: &[RootfsMount]) -> Result<Self> {
        Self::still(rootfs, &[])
    }

    /// A folder of the host as a root, for tests.
    #[cfg(test)]
    pub fn of_folder(path: &std::path::Path) -> Self {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Self::new(root, None, false).unwrap()
    }

    /// A folder that is no container's.
    pub(super) fn outside(root: OwnedFd) -> Result<Self> {
        Self::new(root, None, false)
    }

    /// A root that is still being put together.
    pub(super) fn under_construction(root: OwnedFd) -> Self {
        Self { root, _namespace: None, prefix: PathBuf::from(mounting::PLACE), is_running: false }
    }

    pub(super) fn into_root(self) -> OwnedFd {
        self.root
    }

    fn new(root: OwnedFd, namespace: Option<OwnedFd>, is_running: bool) -> Result<Self> {
        let prefix = path_of(root.as_fd()).context("naming the container's root")?;
        Ok(Self { root, _namespace: namespace, prefix, is_running })
    }

    /// The root itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The path in the container at which `file` is now.
    pub fn container_path(&self, file: BorrowedFd<'_>) -> io::Result<String> {
        let path = path_of(file)?;
        let inside = path.strip_prefix(&self.prefix).unwrap_or(&path);
        Ok(super::path::clean_absolute(&inside.to_string_lossy()))
    }

    /// Whether `file` belongs to a file system that the runtime mounts for the kernel's interfaces (`/proc`, `/sys`,
    /// `/dev`): Docker does not show these in archives.
    pub fn is_kernel_interface(&self, file: BorrowedFd<'_>) -> io::Result<bool> {
        if !self.is_running {
            return Ok(false);
        }
        if KERNEL_FILE_SYSTEMS.contains(&rustix::fs::fstatfs(file)?.f_type) {
            return Ok(true);
        }
        let dev = match super::resolve::beneath(self.root(), "dev", OFlags::PATH | OFlags::DIRECTORY) {
            Ok(dev) => mount_id(dev.as_fd())?,
            Err(_) => return Ok(false),
        };
        Ok(dev != mount_id(self.root())? && dev == mount_id(file)?)
    }

    /// Whether something is mounted right at `file`.
    pub fn is_mount_point(&self, file: BorrowedFd<'_>) -> io::Result<bool> {
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
        Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    /// Refuses a place that cannot be written, in dockerd's words.
    pub fn check_writable(&self, file: BorrowedFd<'_>) -> Result<()> {
        let flags = rustix::fs::fstatvfs(file).context("looking at the mount")?.f_flag;
        if !flags.contains(StatVfsMountFlags::RDONLY) {
            return Ok(());
        }
        let is_root =
            (|| Ok::<_, io::Error>(mount_id(file)? == mount_id(self.root())?))().context("looking at the mount")?;
        Err(if is_root { Error::rootfs_read_only() } else { Error::volume_read_only() })
    }
}

pub(super) fn path_of(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn mount_id(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// A descriptor for reading or writing what an `O_PATH` descriptor names.
pub fn reopen(file: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?)
}
