//! Filling an empty volume with what the image has at its mount point.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps},
    io::Errno,
};

use super::{
    resolve::{Owner, beneath, chown},
    tree::{self, MAX_DEPTH},
    view::RootView,
};
use crate::model::{Error, Result, error::Context};

/// Whether this is a folder with nothing in it.
pub fn is_empty(folder: BorrowedFd<'_>) -> bool {
    listed(folder).and_then(|folder| tree::names(folder.as_fd())).is_ok_and(|names| names.is_empty())
}

/// A descriptor for listing a folder and writing into it.
fn listed(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    beneath(folder, c".", OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Copies what `view` has at `path` into the folder `volume`, if that is empty: files, folders, links, devices
/// with their owners, modes, times, attributes; the folder's own too. Nothing at `path` is success.
pub fn copy_up(view: &RootView, path: &str, volume: BorrowedFd<'_>) -> Result<()> {
    let source = match super::resolve::open_in_root(view.root(), path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("opening {path}")),
    };
    let stat = rustix::fs::fstat(&source).context(format!("looking at {path}"))?;
    if tree::file_type(stat.st_mode) != FileType::Directory {
        return Err(Error::system(format!("source {path} is not a directory")));
    }
    copy_root(source.as_fd(), &stat, volume).context(format!("copying {path} into a volume"))
}

fn copy_root(source: BorrowedFd<'_>, stat: &Stat, volume: BorrowedFd<'_>) -> io::Result<()> {
    let target = listed(volume)?;
    if !tree::names(target.as_fd())?.is_empty() {
        return Ok(());
    }
    let mut copy = Copy { volume: target.as_fd(), links: HashMap::new(), path: Vec::new() };
    copy.contents(source, target.as_fd(), 0)?;
    describe(source, c".", target.as_fd(), c".", stat)
}

struct Copy<'a> {
    volume: BorrowedFd<'a>,
    /// Where in the volume the first of several names of a file is.
    links: HashMap<(u64, u64), CString>,
    /// Names of the folders that are being copied, from the volume down.
    path: Vec<CString>,
}

impl Copy<'_> {
    fn contents(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        for name in tree::names(source)? {
            self.entry(source, target, &name, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &CString,
        depth: usize,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match tree::file_type(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(target, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let (from, to) = (beneath(source, name, flags)?, beneath(target, name, flags)?);
                self.path.push(name.clone());
                self.contents(from.as_fd(), to.as_fd(), depth + 1)?;
                self.path.pop();
            }
            FileType::RegularFile => {
                if self.link(target, name, &stat)? {
                    return Ok(());
                }
                let from = File::from(beneath(source, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?);
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let to = File::from(rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
                io::copy(&mut &from, &mut &to)?;
                if stat.st_nlink > 1 {
                    self.links.insert((stat.st_dev, stat.st_ino), self.path_of(name));
                }
            }
            FileType::Symlink => {
                rustix::fs::symlinkat(rustix::fs::readlinkat(source, name, Vec::new())?, target, name)?;
            }
            FileType::Socket | FileType::Unknown => return Ok(()),
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)?;
            }
        }
        describe(source, name, target, name, &stat)
    }

    /// Gives a further name to a file that was copied before.
    fn link(&self, target: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<bool> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else { return Ok(false) };
        rustix::fs::linkat(self.volume, first, target, name, AtFlags::empty())?;
        Ok(true)
    }

    fn path_of(&self, name: &CStr) -> CString {
        let parts: Vec<&[u8]> = self.path.iter().map(|part| part.to_bytes()).chain([name.to_bytes()]).collect();
        CString::new(parts.join(&b'/')).expect("names hold no zero")
    }
}

/// Copies owner, mode, times and attributes. The owner first, since changing it takes set-id bits and capabilities.
fn describe(
    source: BorrowedFd<'_>,
    name: &CStr,
    target: BorrowedFd<'_>,
    as_name: &CStr,
    stat: &Stat,
) -> io::Result<()> {
    chown(target, as_name, Owner { uid: stat.st_uid, gid: stat.st_gid })?;
    tree::copy_xattrs((source, name), (target, as_name))?;
    if tree::file_type(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(target, as_name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let times = Timestamps { last_access: access_time(stat), last_modification: modification_time(stat) };
    Ok(rustix::fs::utimensat(target, as_name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn access_time(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec.cast_signed() }
}

fn modification_time(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() }
}
