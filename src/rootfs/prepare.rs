//! What Docker puts into the root of every new container.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{fs::OFlags, io::Errno};

use super::{
    resolve::{Owner, beneath},
    view::RootView,
};
use crate::{
    backend::runtime::RootfsMount,
    model::{Error, Result, error::Context},
};

/// Files and folders over which a run mounts its own; dockerd makes them at create, so that they can be copied.
pub const FILES: [&str; 5] = ["/.dockerenv", "/dev/console", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
pub const FOLDERS: [&str; 4] = ["/dev/pts", "/dev/shm", "/proc", "/sys"];

/// Makes what every container has where its image lacks it: `/.dockerenv`, by which programs tell that they are in
/// a container, mount points, `/etc/mtab`; then the folder `working_dir` (empty for none). 400 if something else is
/// where that should be.
pub fn prepare(rootfs: &[RootfsMount], working_dir: &str) -> Result<()> {
    let view = RootView::stopped(rootfs, false, &[])?;
    for folder in FOLDERS {
        lenient(view.ensure_dir(folder, Owner::default())).context(format!("creating {folder}"))?;
    }
    for file in FILES {
        lenient(view.ensure_file(file)).context(format!("creating {file}"))?;
    }
    make_mtab(&view).context("creating /etc/mtab")?;
    if working_dir.is_empty() {
        return Ok(());
    }
    view.make_working_dir(working_dir)
}

impl RootView {
    /// Makes the folder that programs start in. 400 if something else is there.
    pub fn make_working_dir(&self, working_dir: &str) -> Result<()> {
        match self.ensure_dir(working_dir, Owner::default()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(Error::invalid(format!("Cannot mkdir: {working_dir} is not a directory")).with_source(error))
            }
            Err(error) => Err(error).context(format!("creating the working directory {working_dir}")),
        }
    }
}

/// `df`, `mount` and older libraries read it.
fn make_mtab(view: &RootView) -> io::Result<()> {
    let Some(etc) = lenient(view.ensure_dir("/etc", Owner::default()))? else { return Ok(()) };
    match beneath(etc.as_fd(), c"mtab", OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // With `NO_SYMLINKS` the kernel calls a link at the end a loop; something is there.
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Ok(()),
        other => return other.map(drop),
    }
    Ok(rustix::fs::symlinkat(c"/proc/mounts", &etc, c"mtab")?)
}

/// An image that has something else in a place has its reasons; the runtime will tell if it cannot be used.
fn lenient(made: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(None),
        other => other.map(Some),
    }
}
