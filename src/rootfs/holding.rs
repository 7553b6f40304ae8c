//! Sources of mounts that are held: what was opened is mounted at a place of ours, so that whoever mounts the place gets that,
//! whatever the path that led to it says by then.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags},
    io::Errno,
    mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags},
};

use super::{
    mounting::{in_mounts, remove_place, unmount_and_remove},
    resolve::{Owner, beneath, is_dir, make_dir},
    view::RootView,
};
use crate::{
    model::{Error, Result, error::Context},
    processes::Process,
};

/// A path as a process sees it, and how it is to be held.
#[derive(Clone, Debug)]
pub struct SeenPath {
    /// The path, from the root of the process.
    pub path: String,
    /// Whether a folder is made where nothing is.
    pub create: bool,
    /// With what is mounted below it.
    pub recursive: bool,
    /// Whether mounts that are made there later may be seen by the process as well.
    pub shared: bool,
}

impl SeenPath {
    /// An `O_PATH` descriptor of it. No magic link is followed, and none out of the root.
    pub fn open(&self, process: &Process) -> Result<OwnedFd> {
        let view = RootView::seen_by(process)?;
        let path = &self.path;
        match view.resolve(path) {
            Ok(file) => Ok(file),
            Err(error) if !is_missing(&error) => {
                Err(Error::invalid(format!("bind source path cannot be resolved: {path}: {error}")).with_source(error))
            }
            Err(_) if self.create => view
                .ensure_dir(path, Owner::default())
                .context(format!("error while creating mount source path '{path}'")),
            Err(error) => Err(Error::bind_source_missing(path).with_source(error)),
        }
    }

    /// Mounts it at `place` with the rights that the process has: what is read-only to it is so there.
    /// Answers whether it is so itself. [`unmount_and_remove`] undoes it.
    pub fn hold(&self, process: &Process, place: &Path) -> Result<bool> {
        unmount_and_remove(place)?;
        let file = self.open(process)?;
        let mounts = process.mounts().context("opening the client's mounts")?;
        let doing = format!("copying the mount of {}", self.path);
        let tree = in_mounts(mounts.as_fd(), &doing, || tree_of(file.as_fd(), self.recursive))?;
        self.mount(tree.as_fd(), place)?;
        let held = rustix::fs::fstatvfs(tree.as_fd()).context(format!("looking at the mount of {}", self.path))?;
        Ok(held.f_flag.contains(StatVfsMountFlags::RDONLY))
    }
}

impl SeenPath {
    /// An `O_PATH` descriptor of it on the machine. A link on the way is an error, so is one at its end: who may bind a folder could put one
    /// there that leads out of it.
    pub fn open_exactly(&self) -> Result<OwnedFd> {
        let path = &self.path;
        let opened = match open_without_links(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.create => make_without_links(path),
            opened => opened,
        };
        opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Error::bind_source_missing(path).with_source(error),
            Some(Errno::LOOP) => Error::bind_source_has_link(path),
            _ => Error::invalid(format!("bind source path cannot be opened: {path}: {error}")).with_source(error),
        })
    }

    /// Mounts it at `place`, as [`Self::open_exactly`] finds it. [`unmount_and_remove`] undoes it.
    pub fn hold_exactly(&self, place: &Path) -> Result<()> {
        unmount_and_remove(place)?;
        let file = self.open_exactly()?;
        let tree = tree_of(file.as_fd(), self.recursive).context(format!("copying the mount of {}", self.path))?;
        self.mount(tree.as_fd(), place)
    }

    fn mount(&self, tree: BorrowedFd<'_>, place: &Path) -> Result<()> {
        hold(tree, place).context(format!("mounting {} at {}", self.path, place.display()))?;
        if !self.shared {
            // What is unmounted here must not be unmounted there as well.
            let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            rustix::mount::mount_change(place, slave).context(format!("mounting {}", self.path))?;
        }
        Ok(())
    }
}

/// Mounts a socket at `place`. Whoever has the folder may have put a link there: none is followed, and nothing else is mounted.
pub fn hold_socket(socket: &Path, place: &Path) -> Result<()> {
    unmount_and_remove(place)?;
    let hold_it = || -> io::Result<()> {
        let file = rustix::fs::open(socket, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Socket {
            return Err(io::Error::other("it is no socket"));
        }
        hold(tree_of(file.as_fd(), false)?.as_fd(), place)
    };
    hold_it().context(format!("mounting the socket {} at {}", socket.display(), place.display()))
}

fn open_without_links(path: &str) -> io::Result<OwnedFd> {
    let no_links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), no_links)?)
}

/// Makes the folders of a path that are missing, and opens the last.
fn make_without_links(path: &str) -> io::Result<OwnedFd> {
    let mut here = open_without_links("/")?;
    for part in Path::new(path).components().skip(1) {
        let name = CString::new(part.as_os_str().as_bytes())?;
        here = match beneath(here.as_fd(), name.as_c_str(), OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match make_dir(here.as_fd(), &name, Owner::default()) {
                    // Another container of the same job was quicker.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        beneath(here.as_fd(), name.as_c_str(), OFlags::PATH | OFlags::DIRECTORY)?
                    }
                    made => made?,
                }
            }
            opened => opened?,
        };
    }
    Ok(here)
}

/// Whether what was opened is what is at `path` on the machine.
pub fn is_same_file(file: BorrowedFd<'_>, path: &Path) -> bool {
    let one = rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    let other = rustix::fs::lstat(path).map(|stat| (stat.st_dev, stat.st_ino));
    one.is_ok() && one == other
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A copy of the mount of a file or folder, at which it begins.
pub fn tree_of(file: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(file, c"", flags)?)
}

/// Puts a mount that is nowhere yet at a place, which is made.
pub fn hold(tree: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    remove_place(place)?;
    fs::create_dir_all(place.parent().unwrap_or(place))?;
    match is_dir(tree)? {
        true => fs::create_dir(place)?,
        false => drop(File::create(place)?),
    }
    let held = rustix::mount::move_mount(tree, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    if held.is_err() {
        remove_place(place)?;
    }
    Ok(held?)
}
