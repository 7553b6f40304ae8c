//! All that is in a folder, by descriptor: entries sorted, a folder before what it holds, as Go's walk has them. What goes away or is
//! moved meanwhile is left out.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    vec,
};

use rustix::fs::Stat;

use super::{
    descent::Descent,
    resolve::open_entry,
    tree::{is_gone, names},
};

/// A walk that is under way.
pub struct Walk {
    way: Descent<Listing>,
    /// The path of the entry that was found last.
    path: Vec<u8>,
}

struct Listing {
    names: vec::IntoIter<CString>,
    /// How much of the path is the folder's, with a slash after it.
    path: usize,
    /// The file system that the folder is on.
    device: u64,
}

/// An entry, held by an `O_PATH` descriptor: what is told of it is told of one file.
pub struct Found {
    /// It; a link is itself meant.
    pub file: OwnedFd,
    /// What it is.
    pub stat: Stat,
    /// Its name in its folder.
    pub name: CString,
    /// Whether it is on another file system than its folder.
    pub is_mount: bool,
}

impl Walk {
    /// Begins in `folder`; `prefix` is put before all paths.
    pub fn new(folder: BorrowedFd<'_>, prefix: &[u8]) -> io::Result<Self> {
        let folder = super::resolve::beneath(folder, c".", rustix::fs::OFlags::PATH)?;
        let device = rustix::fs::fstat(&folder)?.st_dev;
        let names = names(folder.as_fd())?.into_iter();
        let way = Descent::new(folder, Listing { names, path: prefix.len(), device })?;
        Ok(Self { way, path: prefix.to_vec() })
    }

    /// The next entry, `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        loop {
            let Some(name) = self.way.known().names.next() else {
                match self.way.leave() {
                    Ok(None) => return Ok(None),
                    // The rest of folders that were moved is left out.
                    Ok(Some(_)) | Err(_) => continue,
                }
            };
            match self.look(name) {
                Err(error) if is_gone(&error) => {}
                found => return found.map(Some),
            }
        }
    }

    fn look(&mut self, name: CString) -> io::Result<Found> {
        let file = open_entry(self.way.here(), &name)?;
        let stat = rustix::fs::fstat(&file)?;
        let Listing { path, device, .. } = *self.way.known();
        self.path.truncate(path);
        self.path.extend_from_slice(name.to_bytes());
        Ok(Found { file, stat, name, is_mount: stat.st_dev != device })
    }

    /// Goes into a folder that was just found.
    pub fn enter(&mut self, found: Found) -> io::Result<()> {
        let names = match names(found.file.as_fd()) {
            Err(error) if is_gone(&error) => return Ok(()),
            names => names?.into_iter(),
        };
        if self.path.last() != Some(&b'/') {
            self.path.push(b'/');
        }
        let known = Listing { names, path: self.path.len(), device: found.stat.st_dev };
        self.way.push(found.name, found.file, known)
    }

    /// The path of the entry that was found last; of a folder that was just entered with a slash.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// How many folders lie between the beginning and the entry that was found last.
    pub fn depth(&self) -> usize {
        self.way.depth()
    }
}

impl Found {
    /// Where it leads, if it is a link.
    pub fn link(&self) -> io::Result<CString> {
        Ok(rustix::fs::readlinkat(&self.file, c"", Vec::new())?)
    }
}
