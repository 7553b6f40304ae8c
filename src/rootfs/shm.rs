//! A `/dev/shm` that containers share (`IpcMode` `shareable`): a tmpfs on the host, mounted into each of them.

use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::mounting::unmount_and_remove;
use crate::model::{Result, error::Context};

/// Mounts a tmpfs of `size` bytes at `dir`.
pub fn mount_shm(dir: &Path, size: i64) -> Result<()> {
    unmount_and_remove(dir)?;
    std::fs::create_dir_all(dir).context(format!("creating {}", dir.display()))?;
    let flags = MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
    let options = std::ffi::CString::new(format!("mode=1777,size={size}")).expect("a number has no zero byte");
    mount("shm", dir, "tmpfs", flags, options.as_c_str()).context(format!("mounting a tmpfs at {}", dir.display()))
}
