//! The folders from where a walk began down to where it is, however deep: only the last few stay open.
//!
//! The way back up leads through `..`, and is taken only to the folder that the walk came through: a container may move folders
//! meanwhile, out of what is walked too.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::resolve::beneath;

/// Folders of one walk that are kept open, beside the one where it began.
const OPEN: usize = 32;

/// How a walk opens folders.
const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// Where a walk is. `T` is what it knows of each folder on the way.
pub struct Descent<T> {
    levels: Vec<Level<T>>,
}

struct Level<T> {
    name: CString,
    id: (u64, u64),
    /// `None` far above; never of the first and of the last.
    folder: Option<OwnedFd>,
    known: T,
}

impl<T> Descent<T> {
    /// A walk that begins in `folder`.
    pub fn new(folder: OwnedFd, known: T) -> io::Result<Self> {
        let id = id(&rustix::fs::fstat(&folder)?);
        Ok(Self { levels: vec![Level { name: CString::default(), id, folder: Some(folder), known }] })
    }

    /// The folder where the walk is.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.last().folder.as_ref().expect("the last folder is open").as_fd()
    }

    /// What is known of it.
    pub fn known(&mut self) -> &mut T {
        &mut self.levels.last_mut().expect("where it began is never left").known
    }

    /// How many folders below its beginning the walk is.
    pub fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// How many of the names that led here are the first ones of `names`.
    pub fn shared<'n>(&self, names: impl IntoIterator<Item = &'n [u8]>) -> usize {
        self.levels[1..].iter().zip(names).take_while(|(level, name)| level.name.to_bytes() == *name).count()
    }

    /// Goes into a folder; a link is refused.
    pub fn enter(&mut self, name: &CStr, known: T) -> io::Result<()> {
        let folder = beneath(self.here(), name, FLAGS)?;
        self.push(name.to_owned(), folder, known)
    }

    /// Goes into a folder that was opened, by that name.
    pub fn push(&mut self, name: CString, folder: OwnedFd, known: T) -> io::Result<()> {
        let id = id(&rustix::fs::fstat(&folder)?);
        self.levels.push(Level { name, id, folder: Some(folder), known });
        if let Some(far) = self.levels.len().checked_sub(OPEN + 1).filter(|far| *far > 0) {
            self.levels[far].folder = None;
        }
        Ok(())
    }

    /// Goes to the folder above and tells the name of the one that is left; `None` where the walk began. `ESTALE` if the
    /// folder above is no longer to be found: the walk is in the nearest one that is.
    pub fn leave(&mut self) -> io::Result<Option<CString>> {
        if self.depth() == 0 {
            return Ok(None);
        }
        let left = self.levels.pop().expect("there is more than the first");
        if self.last().folder.is_some() {
            return Ok(Some(left.name));
        }
        let below = left.folder.expect("the last folder is open");
        match parent(below.as_fd()) {
            Ok((above, found)) if found == self.last().id => {
                self.levels.last_mut().expect("the first is open").folder = Some(above);
                Ok(Some(left.name))
            }
            _ => {
                while self.last().folder.is_none() {
                    self.levels.pop();
                }
                Err(Errno::STALE.into())
            }
        }
    }

    /// Leaves folders until the walk is that deep, or less deep if folders on the way are no longer to be found.
    pub fn back_to(&mut self, depth: usize) {
        if depth == 0 {
            self.levels.truncate(1);
        }
        while self.depth() > depth {
            let _lost = self.leave();
        }
    }

    fn last(&self) -> &Level<T> {
        self.levels.last().expect("where it began is never left")
    }
}

fn parent(folder: BorrowedFd<'_>) -> io::Result<(OwnedFd, (u64, u64))> {
    let flags = FLAGS | OFlags::CLOEXEC;
    let above = rustix::fs::openat2(folder, c"..", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let id = id(&rustix::fs::fstat(&above)?);
    Ok((above, id))
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::rootfs::RootView;

    fn descent(folder: &std::path::Path, depth: usize) -> Descent<()> {
        let mut way = Descent::new(RootView::of_folder(folder).into_root(), ()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(way.here(), c"d", Mode::RWXU).unwrap();
            way.enter(c"d", ()).unwrap();
        }
        way
    }

    #[test]
    fn way_down_and_back_holds_few_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let mut way = descent(folder.path(), 3000);
        assert_eq!(way.levels.iter().filter(|level| level.folder.is_some()).count(), OPEN + 1);
        way.back_to(1000);
        assert_eq!((way.depth(), way.shared([&b"d"[..]; 5000])), (1000, 1000));
        while let Some(name) = way.leave().unwrap() {
            rustix::fs::unlinkat(way.here(), name, rustix::fs::AtFlags::REMOVEDIR).unwrap_or_default();
        }
        assert_eq!(way.depth(), 0);
        crate::rootfs::remove_folder(&folder.path().join("d")).unwrap();
    }

    #[test]
    fn folder_that_was_moved_out_is_not_followed() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut way = descent(folder.path(), 100);
        let middle = format!("{}/{}", folder.path().display(), vec!["d"; 50].join("/"));
        fs::rename(middle, other.path().join("moved")).unwrap();
        way.back_to(50);
        assert_eq!(way.depth(), 50, "what lies below the move is where it was");
        assert!(way.leave().is_err());
        assert_eq!((way.depth(), id(&rustix::fs::fstat(way.here()).unwrap())), (0, way.levels[0].id));
    }
}
