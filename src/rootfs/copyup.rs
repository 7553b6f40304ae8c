//! Filling an empty volume with what the image has at its mount point.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    vec,
};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::{
    attributes,
    descent::Descent,
    resolve::{beneath, open_entry, open_made},
    tree,
    view::{RootView, reopen},
};
use crate::{
    model::{Error, Result, error::Context},
    work,
};

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
    let source = match view.resolve(path) {
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
    let names = tree::names(source)?.into_iter();
    let source = source.try_clone_to_owned()?;
    let copy = Copy {
        volume: target.as_fd(),
        links: HashMap::new(),
        source: Descent::new(source, Level { names, stat: *stat })?,
        target: Descent::new(target.try_clone()?, ())?,
        path: Vec::new(),
    };
    copy.run()
}

/// What is copied at this moment.
struct Copy<'a> {
    volume: BorrowedFd<'a>,
    /// Where in the volume the first of several names of a file is, and which file that is.
    links: HashMap<FileId, (CString, FileId)>,
    source: Descent<Level>,
    target: Descent<()>,
    /// Names of the folders that are being copied, from the volume down.
    path: Vec<CString>,
}

type FileId = (u64, u64);

/// A folder that is being copied.
struct Level {
    names: vec::IntoIter<CString>,
    stat: Stat,
}

impl Copy<'_> {
    fn run(mut self) -> io::Result<()> {
        loop {
            if let Some(name) = self.source.known().names.next() {
                self.entry(name)?;
                continue;
            }
            // What is put into a folder changes its times.
            let stat = self.source.known().stat;
            attributes::copy_all(self.source.here(), &stat, self.target.here())?;
            self.path.pop();
            self.target.leave()?;
            if self.source.leave()?.is_none() {
                return Ok(());
            }
        }
    }

    fn entry(&mut self, name: CString) -> io::Result<()> {
        let from = open_entry(self.source.here(), &name)?;
        let stat = rustix::fs::fstat(&from)?;
        let target = self.target.here();
        let made = match tree::file_type(stat.st_mode) {
            FileType::Directory => return self.folder(name, from, stat),
            FileType::RegularFile => match self.link(target, &name, &stat)? {
                true => return Ok(()),
                false => self.regular(&name, from.as_fd(), &stat)?,
            },
            FileType::Symlink => {
                rustix::fs::symlinkat(rustix::fs::readlinkat(&from, c"", Vec::new())?, target, &name)?;
                open_made(target, &name, FileType::Symlink)?
            }
            FileType::Socket | FileType::Unknown => return Ok(()),
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                rustix::fs::mknodat(target, &name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
                open_made(target, &name, kind)?
            }
        };
        attributes::copy_all(from.as_fd(), &stat, made.as_fd())
    }

    fn folder(&mut self, name: CString, from: OwnedFd, stat: Stat) -> io::Result<()> {
        rustix::fs::mkdirat(self.target.here(), &name, Mode::RWXU)?;
        let made = open_made(self.target.here(), &name, FileType::Directory)?;
        let names = tree::names(from.as_fd())?.into_iter();
        self.path.push(name.clone());
        self.source.push(name.clone(), from, Level { names, stat })?;
        self.target.push(name, made, ())
    }

    fn regular(&mut self, name: &CString, from: BorrowedFd<'_>, stat: &Stat) -> io::Result<OwnedFd> {
        let from = File::from(reopen(from, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = File::from(rustix::fs::openat(self.target.here(), name, flags, Mode::RUSR | Mode::WUSR)?);
        work::copy(&mut &from, &mut &to)?;
        if stat.st_nlink > 1 {
            self.links.insert(id(stat), (self.path_of(name), id(&rustix::fs::fstat(&to)?)));
        }
        Ok(to.into())
    }

    /// Gives a further name to a file that was copied before, if that is still where it was put: who has the volume already
    /// may have put a link there.
    fn link(&self, target: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<bool> {
        let Some((path, copied)) = self.links.get(&id(stat)) else { return Ok(false) };
        let Ok(first) = beneath(self.volume, path.as_c_str(), OFlags::PATH | OFlags::NOFOLLOW) else {
            return Ok(false);
        };
        if id(&rustix::fs::fstat(&first)?) != *copied {
            return Ok(false);
        }
        attributes::link(first.as_fd(), target, name)?;
        Ok(true)
    }

    fn path_of(&self, name: &CStr) -> CString {
        let parts: Vec<&[u8]> = self.path.iter().map(|part| part.to_bytes()).chain([name.to_bytes()]).collect();
        CString::new(parts.join(&b'/')).expect("names hold no zero")
    }
}

fn id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}
