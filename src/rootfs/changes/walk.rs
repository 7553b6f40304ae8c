//! The walk through a container's files and those of its image, side by side.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd},
    vec,
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, Stat},
    io::Errno,
};

use super::{
    Entry, Own,
    report::{Pending, Report},
    upper::{Upper, is_whiteout},
};
use crate::{
    model::container::ChangeKind,
    rootfs::{
        descent::Descent,
        prepare::{FILES, FOLDERS},
        resolve::beneath,
        tree,
        view::RootView,
    },
    work,
};

/// What counts as a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// What `docker diff` shows: a folder's time does not count, nor a file that was copied and is as before.
    Listed,
    /// What a layer must hold.
    Packed,
}

/// What a folder of the container's holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// All that the container sees there.
    Everything,
    /// What changed; the image's files show through.
    Changes,
    /// overlayfs's own files, under which the image's are hidden: all that the container sees there, too.
    Opaque,
}

/// A folder of the container's that the walk went into.
struct Listing {
    names: vec::IntoIter<CString>,
    holds: Holds,
    /// How much of the path is the folder's, with a slash after it.
    path: usize,
}

/// One walk, which needs no stack and few descriptors however deep the folders lie.
pub struct Walk<'a> {
    upper: Option<&'a Upper>,
    measure: Measure,
    own: Descent<Listing>,
    /// Beside `own`, as far down as the image has the same folders.
    base: Descent<()>,
    /// Of the entry that is looked at.
    path: Vec<u8>,
    report: Report<'a>,
}

/// How folders are opened.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// The longest path that is looked at, without its first slash: what lies deeper has no name that a system call takes, no layer that holds
/// it can be unpacked, and dockerd leaves it out, too.
const LONGEST: usize = 4094;

impl<'a> Walk<'a> {
    /// Of an upper folder, or of a whole tree; begins at the roots.
    pub fn new(
        (upper, measure): (Option<&'a Upper>, Measure),
        own: &RootView,
        base: &RootView,
        report: &'a mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let own = beneath(own.root(), c".", FOLDER)?;
        let base = beneath(base.root(), c".", FOLDER)?;
        let holds = if upper.is_some() { Holds::Changes } else { Holds::Everything };
        let names = names(own.as_fd(), Some(base.as_fd()), holds)?;
        Ok(Self {
            upper,
            measure,
            own: Descent::new(own, Listing { names, holds, path: 0 })?,
            base: Descent::new(base, ())?,
            path: Vec::new(),
            report: Report { pending: Vec::new(), report },
        })
    }

    /// To the end.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            work::check()?;
            match self.own.known().names.next() {
                Some(name) => self.entry(name)?,
                None => match self.own.leave() {
                    Ok(None) => return Ok(()),
                    // The rest of folders that were moved is left out.
                    Ok(Some(_)) | Err(_) => {
                        self.base.back_to(self.base.depth().min(self.own.depth()));
                        self.report.forget_below(self.own.depth());
                    }
                },
            }
        }
    }

    fn entry(&mut self, name: CString) -> io::Result<()> {
        let Listing { holds, path, .. } = *self.own.known();
        self.path.truncate(path);
        self.path.extend_from_slice(name.to_bytes());
        if self.path.len() > LONGEST {
            tracing::debug!("the path of {} is too long for a layer", name.to_string_lossy());
            return Ok(());
        }
        let may_be_mark = holds != Holds::Everything;
        let own = stat(self.own.here(), &name)?.filter(|stat| !(may_be_mark && is_whiteout(stat)));
        let base = self.image_folder().map(|base| stat(base, &name)).transpose()?.flatten();
        let Some(own) = own else {
            return match base {
                Some(_) => self.report.tell(&Entry { path: &self.path, kind: ChangeKind::Deleted, own: None }),
                None => Ok(()),
            };
        };
        if is_stub(self.own.here(), &name, &self.path, &own, base.as_ref())? {
            return Ok(());
        }
        match file_type(&own) {
            FileType::Directory => self.folder(name, &own, base.as_ref()),
            _ => self.file(&name, &own, base.as_ref()),
        }
    }

    /// The image's folder beside the one where the walk is, if it has one.
    fn image_folder(&self) -> Option<BorrowedFd<'_>> {
        (self.base.depth() == self.own.depth()).then(|| self.base.here())
    }

    fn file(&mut self, name: &CStr, own: &Stat, base: Option<&Stat>) -> io::Result<()> {
        let holds = self.own.known().holds;
        let Some(upper) = self.elsewhere(holds, name, own)? else {
            // Whatever is in a layer was written, if only with what had been there.
            let is_written = self.measure == Measure::Packed && holds != Holds::Everything;
            let changed = is_written || self.file_differs(self.own.here(), name, own, base)?;
            return self.report.file(changed, &self.path, kind(base), (self.own.here(), name, own));
        };
        let folder = upper.merged_folder(above(&self.path))?;
        let Some(own) = stat(folder.as_fd(), name)? else { return Ok(()) };
        let changed = self.file_differs(folder.as_fd(), name, &own, base)?;
        self.report.file(changed, &self.path, kind(base), (folder.as_fd(), name, &own))
    }

    fn folder(&mut self, name: CString, own: &Stat, base: Option<&Stat>) -> io::Result<()> {
        let image_has_it = base.is_some_and(|base| file_type(base) == FileType::Directory);
        let path = self.path.as_slice();
        let shown = match base {
            Some(base) if image_has_it => self.folder_differs(path, own, base),
            Some(_) => true,
            // Made for the stubs that it holds, or by the container.
            None => !HOLDERS.contains(&path),
        };
        if shown {
            self.report.tell(&Entry { path, kind: kind(base), own: Some(Own::Folder(own)) })?;
        } else {
            let pending = Pending { depth: self.own.depth() + 1, path: path.len(), stat: *own, kind: kind(base) };
            self.report.pending.push(pending);
        }
        self.enter(name, own, image_has_it)
    }

    fn enter(&mut self, name: CString, own: &Stat, image_has_it: bool) -> io::Result<()> {
        let holds = self.own.known().holds;
        let elsewhere = self.elsewhere(holds, &name, own)?;
        let (folder, holds) = match (elsewhere, self.upper) {
            (Some(upper), _) => (upper.merged_folder(&self.path)?, Holds::Everything),
            (None, upper) => match beneath(self.own.here(), &name, FOLDER) {
                Err(error) if tree::is_gone(&error) => {
                    self.report.forget_below(self.own.depth());
                    return Ok(());
                }
                folder => match upper {
                    Some(upper) if holds == Holds::Changes && upper.is_opaque(self.own.here(), &name)? => {
                        (folder?, Holds::Opaque)
                    }
                    _ => (folder?, holds),
                },
            },
        };
        if image_has_it {
            self.base.enter(&name, ())?;
        }
        let names = names(folder.as_fd(), image_has_it.then(|| self.base.here()), holds)?;
        self.path.push(b'/');
        let known = Listing { names, holds, path: self.path.len() };
        match elsewhere {
            Some(_) => self.own.push_apart(name, folder, known),
            None => self.own.push(name, folder, known),
        }
    }

    /// The upper folder, if what an entry of it holds is not there.
    fn elsewhere(&self, holds: Holds, name: &CStr, own: &Stat) -> io::Result<Option<&'a Upper>> {
        match self.upper {
            Some(upper) if holds != Holds::Everything => {
                Ok(upper.is_elsewhere(self.own.here(), name, own)?.then_some(upper))
            }
            _ => Ok(None),
        }
    }

    /// A folder's time changes with the names in it; of the stubs' folders it says nothing.
    fn folder_differs(&self, path: &[u8], own: &Stat, base: &Stat) -> bool {
        let owner = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        let time_counts = self.measure == Measure::Packed && !HOLDERS.contains(&path);
        owner(own) != owner(base) || (time_counts && time(own) != time(base))
    }

    fn file_differs(&self, folder: BorrowedFd<'_>, name: &CStr, own: &Stat, base: Option<&Stat>) -> io::Result<bool> {
        let (Some(base), Some(image)) = (base, self.image_folder()) else { return Ok(true) };
        if differs(own, base) || file_type(own) != FileType::RegularFile {
            return Ok(differs(own, base));
        }
        let of = |folder| tree::xattr(folder, name, c"security.capability");
        Ok(of(folder)? != of(image)?)
    }
}

/// Folders in which stubs lie, and which the making of stubs touches.
const HOLDERS: [&[u8]; 2] = [b"dev", b"etc"];

fn kind(base: Option<&Stat>) -> ChangeKind {
    if base.is_some() { ChangeKind::Modified } else { ChangeKind::Added }
}

/// The folder that a path leads through last.
fn above(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

/// Names in a folder of the container's, and those of its image's where they tell what is gone.
fn names(own: BorrowedFd<'_>, base: Option<BorrowedFd<'_>>, holds: Holds) -> io::Result<vec::IntoIter<CString>> {
    let mut names = tree::names(own)?;
    if let Some(base) = base
        && holds != Holds::Changes
    {
        names.extend(tree::names(base)?);
        names.sort_unstable();
        names.dedup();
    }
    Ok(names.into_iter())
}

fn stat(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn file_type(stat: &Stat) -> FileType {
    tree::file_type(stat.st_mode)
}

/// Whether it is what `prepare` made, and nobody used it.
fn is_stub(folder: BorrowedFd<'_>, name: &CStr, path: &[u8], own: &Stat, base: Option<&Stat>) -> io::Result<bool> {
    let is = |known: &str| known.as_bytes().strip_prefix(b"/") == Some(path);
    if base.is_some() {
        return Ok(false);
    }
    Ok(match file_type(own) {
        FileType::RegularFile => own.st_size == 0 && FILES.into_iter().any(is),
        FileType::Directory if FOLDERS.into_iter().any(is) => {
            let inner = beneath(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
            tree::names(inner.as_fd())?.is_empty()
        }
        FileType::Symlink => {
            is("/etc/mtab") && rustix::fs::readlinkat(folder, name, Vec::new())?.as_c_str() == c"/proc/mounts"
        }
        _ => false,
    })
}

/// By what a layer records of it; times say whether the content is another.
fn differs(own: &Stat, base: &Stat) -> bool {
    let of = |stat: &Stat| {
        (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
    };
    of(own) != of(base)
}
