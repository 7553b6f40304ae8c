//! Paths of a container to descriptors. The kernel resolves inside the root; nothing is looked at twice.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
    path::Arg,
};

use super::{
    path::{clean_absolute, split_last},
    view::RootView,
};

/// Links that one look-up may follow while it makes folders; the kernel's own limit.
const MAX_LINKS: u32 = 40;

/// Owner of what is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

impl RootView {
    /// An `O_PATH` descriptor of `path`, links resolved as the container would.
    pub fn resolve(&self, path: &str) -> io::Result<OwnedFd> {
        open_in_root(self.root(), path, OFlags::PATH)
    }

    /// As [`RootView::resolve`], but a link at the end is itself the result.
    pub fn resolve_no_follow(&self, path: &str) -> io::Result<OwnedFd> {
        open_in_root(self.root(), path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Makes the folder `path` and those above it, mode 0755, owned by `owner`, where they are missing. Answers an
    /// `O_PATH` descriptor of it; `NotADirectory` if something else is there.
    pub fn ensure_dir(&self, path: &str, owner: Owner) -> io::Result<OwnedFd> {
        self.ensure_dir_following(&clean_absolute(path), owner, MAX_LINKS)
    }

    fn ensure_dir_following(&self, path: &str, owner: Owner, links: u32) -> io::Result<OwnedFd> {
        match open_in_root(self.root(), path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let Some((folder, name)) = split_last(path) else { return Err(Errno::NOENT.into()) };
        let folder_fd = self.ensure_dir_following(folder, owner, links)?;
        match rustix::fs::mkdirat(&folder_fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = beneath(folder_fd.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
                // The process's mask may have cut the mode.
                rustix::fs::chmodat(&folder_fd, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
                chown(folder_fd.as_fd(), name, owner)?;
                Ok(made)
            }
            // A link to nowhere: what it names is made.
            Err(Errno::EXIST) if links > 0 => {
                let target = rustix::fs::readlinkat(&folder_fd, name, Vec::new())?;
                let target = target.to_string_lossy();
                let target = match target.starts_with('/') {
                    true => clean_absolute(&target),
                    false => clean_absolute(&format!("{}/{target}", self.container_path(folder_fd.as_fd())?)),
                };
                self.ensure_dir_following(&target, owner, links - 1)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an empty file at `path` if nothing is there, for mounting a file over it.
    pub fn ensure_file(&self, path: &str) -> io::Result<OwnedFd> {
        match self.resolve(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let cleaned = clean_absolute(path);
        let (folder, name) = split_last(&cleaned).ok_or(Errno::ISDIR)?;
        let folder = self.ensure_dir(folder, Owner::default())?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // dockerd and runc leave such files executable.
        drop(rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o755))?);
        beneath(folder.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW)
    }
}

/// Opens `path` with `root` as `/`.
pub fn open_in_root(root: BorrowedFd<'_>, path: impl Arg + Copy, flags: OFlags) -> io::Result<OwnedFd> {
    open(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `folder`; a link that leads out of it is refused (`EXDEV`), and so is every absolute one.
pub fn within(folder: BorrowedFd<'_>, path: impl Arg + Copy, flags: OFlags) -> io::Result<OwnedFd> {
    open(folder, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `folder`, following no link at all.
pub fn beneath(folder: BorrowedFd<'_>, path: impl Arg + Copy, flags: OFlags) -> io::Result<OwnedFd> {
    open(folder, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn open(from: BorrowedFd<'_>, path: impl Arg + Copy, flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(from, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // A rename next to a `..` while the kernel walked.
            Err(Errno::AGAIN) if tries < 100 => tries += 1,
            other => return Ok(other?),
        }
    }
}

/// Gives an entry of a folder to `owner`, without following a link.
pub fn chown(folder: BorrowedFd<'_>, name: impl Arg, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether a descriptor names a folder.
pub fn is_dir(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}
