//! Paths of a container to descriptors. The kernel resolves inside the root; nothing is looked at twice.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    path::Arg,
};

use super::{
    attributes,
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

    /// Makes the folder `path` and those above it, mode 0755, owned by `owner`, where they are missing. Answers a
    /// descriptor of it; `NotADirectory` if something else is there.
    pub fn ensure_dir(&self, path: &str, owner: Owner) -> io::Result<OwnedFd> {
        match open_in_root(self.root(), path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut way = Way::new(self, path, owner)?;
        while let Some(part) = way.rest.pop_front() {
            way.go_into(&part)?;
        }
        Ok(way.here)
    }

    /// Where a file at `path` is to be written: its folder, made where it is missing, and its name there, at which there
    /// is no link. Links at the end are followed even if they lead nowhere yet. A name with a slash after it, and `/`, have none.
    pub fn ensure_place(&self, path: &str, owner: Owner) -> io::Result<(OwnedFd, CString)> {
        let mut way = Way::new(self, path, owner)?;
        loop {
            let part = way.rest.pop_front().ok_or(Errno::ISDIR)?;
            if !way.rest.is_empty() || part == ".." {
                way.go_into(&part)?;
                continue;
            }
            let name = CString::new(part).map_err(|_| Errno::INVAL)?;
            match rustix::fs::readlinkat(&way.here, &name, Vec::new()) {
                Ok(link) => way.follow(&link)?,
                Err(Errno::NOENT | Errno::INVAL) => return Ok((way.here, name)),
                Err(error) => return Err(error.into()),
            }
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

/// A path that is gone step by step, since parts of it are missing.
struct Way<'v> {
    view: &'v RootView,
    here: OwnedFd,
    rest: VecDeque<String>,
    /// Links that may still be followed.
    links: u32,
    /// Who gets what is made.
    owner: Owner,
}

impl<'v> Way<'v> {
    fn new(view: &'v RootView, path: &str, owner: Owner) -> io::Result<Self> {
        let here = view.root().try_clone_to_owned()?;
        let rest = parts(&clean_absolute(path)).map(str::to_owned).collect();
        Ok(Self { view, here, rest, links: MAX_LINKS, owner })
    }

    fn go_into(&mut self, part: &str) -> io::Result<()> {
        if part == ".." {
            // By its path, which the root bounds.
            let above = format!("{}/..", self.view.container_path(self.here.as_fd())?);
            self.here = open_in_root(self.view.root(), above.as_str(), OFlags::PATH | OFlags::DIRECTORY)?;
            return Ok(());
        }
        let name = CString::new(part).map_err(|_| Errno::INVAL)?;
        let opened = match open_entry(self.here.as_fd(), &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.make(&name, part),
            other => other?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) {
            FileType::Directory => self.here = opened,
            FileType::Symlink => self.follow(&rustix::fs::readlinkat(&opened, c"", Vec::new())?)?,
            _ => return Err(Errno::NOTDIR.into()),
        }
        Ok(())
    }

    fn make(&mut self, name: &CStr, part: &str) -> io::Result<()> {
        match make_dir(self.here.as_fd(), name, self.owner) {
            // Somebody was faster; that may be a link.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.links > 0 => {
                self.links -= 1;
                self.rest.push_front(part.to_owned());
            }
            made => self.here = made?,
        }
        Ok(())
    }

    fn follow(&mut self, link: &CStr) -> io::Result<()> {
        self.links = self.links.checked_sub(1).ok_or(Errno::LOOP)?;
        let link = link.to_str().map_err(|_| Errno::ILSEQ)?;
        if link.starts_with('/') {
            self.here = self.view.root().try_clone_to_owned()?;
        }
        for part in parts(link).rev() {
            self.rest.push_front(part.to_owned());
        }
        Ok(())
    }
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// Makes a folder, mode 0755, owned by `owner`, and opens it.
pub fn make_dir(parent: BorrowedFd<'_>, name: &CStr, owner: Owner) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    // Not `O_PATH`, whose mode is set by a path below `/proc`: a root under construction hides that.
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let made = open(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, how)?;
    attributes::set_owner(made.as_fd(), owner)?;
    // The process's mask may have cut the mode.
    attributes::set_mode(made.as_fd(), 0o755)?;
    Ok(made)
}

/// An `O_PATH` descriptor of an entry of a folder; a link is itself the result.
pub fn open_entry(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    match open(folder, name, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::BENEATH) {
        // It was moved out of the folder while the kernel looked at it.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => Err(Errno::NOENT.into()),
        opened => opened,
    }
}

/// An `O_PATH` descriptor of what was just made. `ESTALE` if somebody put something of another kind there meanwhile; what is
/// mounted there is refused as well.
pub fn open_made(folder: BorrowedFd<'_>, name: &CStr, kind: FileType) -> io::Result<OwnedFd> {
    let made = open(folder, name, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::BENEATH | ResolveFlags::NO_XDEV)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) == kind {
        true => Ok(made),
        false => Err(Errno::STALE.into()),
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

/// Whether a descriptor names a folder.
pub fn is_dir(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}
