//! What Docker puts into the root of every new container.

use std::{io, os::fd::AsFd};

use super::{
    resolve::{Owner, beneath},
    view::RootView,
};
use crate::{
    backend::runtime::RootfsMount,
    model::{Error, Result, error::Context},
};
use rustix::{fs::OFlags, io::Errno};

/// Makes `/.dockerenv`, by which programs tell that they are in a container, `/etc/mtab` if the image has none, and
/// the folder `working_dir` (empty for none). 400 if something else is where that should be.
pub fn prepare(rootfs: &[RootfsMount], working_dir: &str) -> Result<()> {
    let view = RootView::stopped(rootfs, false, &[])?;
    drop(view.ensure_file("/.dockerenv").context("creating /.dockerenv")?);
    make_mtab(&view).context("creating /etc/mtab")?;
    if working_dir.is_empty() {
        return Ok(());
    }
    match view.ensure_dir(working_dir, Owner::default()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Error::invalid(format!("Cannot mkdir: {working_dir} is not a directory")).with_source(error))
        }
        Err(error) => Err(error).context(format!("creating the working directory {working_dir}")),
    }
}

/// `df`, `mount` and older libraries read it.
fn make_mtab(view: &RootView) -> io::Result<()> {
    let etc = match view.ensure_dir("/etc", Owner::default()) {
        // An image that has something else there has its reasons.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(()),
        other => other?,
    };
    match beneath(etc.as_fd(), c"mtab", OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // With `NO_SYMLINKS` the kernel calls a link at the end a loop; something is there.
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Ok(()),
        other => return other.map(drop),
    }
    Ok(rustix::fs::symlinkat(c"/proc/mounts", &etc, c"mtab")?)
}
