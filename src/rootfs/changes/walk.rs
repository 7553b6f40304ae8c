//! The walk through a container's files and those of its image, side by side.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, Stat},
    io::Errno,
};

use super::{
    Entry,
    upper::{Upper, is_whiteout},
};
use crate::{
    model::container::ChangeKind,
    rootfs::{
        prepare::{FILES, FOLDERS},
        resolve::beneath,
        tree::{self, MAX_DEPTH},
        view::{RootView, reopen},
    },
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

/// A folder of the container's beside the one of its image, if there is one.
#[derive(Clone, Copy)]
struct Pair<'a> {
    own: BorrowedFd<'a>,
    base: Option<BorrowedFd<'a>>,
    holds: Holds,
}

/// A folder that is reported as soon as something in it is.
struct Pending {
    folder: OwnedFd,
    name: CString,
    stat: Stat,
    path: Vec<u8>,
    kind: ChangeKind,
}

/// One walk.
pub struct Walk<'a> {
    upper: Option<&'a Upper>,
    measure: Measure,
    report: &'a mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
    pending: Vec<Pending>,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

impl<'a> Walk<'a> {
    /// Of an upper folder, or of a whole tree.
    pub fn new(
        upper: Option<&'a Upper>,
        measure: Measure,
        report: &'a mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
    ) -> Self {
        Self { upper, measure, report, pending: Vec::new() }
    }

    /// From the root down.
    pub fn run(mut self, own: &RootView, base: &RootView) -> io::Result<()> {
        let own = reopen(own.root(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let base = reopen(base.root(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let holds = if self.upper.is_some() { Holds::Changes } else { Holds::Everything };
        self.folder(Pair { own: own.as_fd(), base: Some(base.as_fd()), holds }, b"")
    }

    fn folder(&mut self, pair: Pair<'_>, prefix: &[u8]) -> io::Result<()> {
        if prefix.iter().filter(|byte| **byte == b'/').count() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let mut names: BTreeSet<CString> = tree::names(pair.own)?.into_iter().collect();
        if let Some(base) = pair.base
            && pair.holds != Holds::Changes
        {
            names.extend(tree::names(base)?);
        }
        for name in names {
            self.entry(pair, &name, &[prefix, name.to_bytes()].concat())?;
        }
        Ok(())
    }

    fn entry(&mut self, pair: Pair<'_>, name: &CStr, path: &[u8]) -> io::Result<()> {
        let may_be_mark = pair.holds != Holds::Everything;
        let own = stat(pair.own, name)?.filter(|stat| !(may_be_mark && is_whiteout(stat)));
        let base = pair.base.map(|base| stat(base, name)).transpose()?.flatten();
        let Some(own) = own else {
            return match base {
                Some(_) => self.emit(&Entry { path, kind: ChangeKind::Deleted, own: None }),
                None => Ok(()),
            };
        };
        if is_stub(pair.own, name, path, &own, base.as_ref())? {
            return Ok(());
        }
        match file_type(&own) {
            FileType::Directory => self.present_folder(pair, name, path, &own, base.as_ref()),
            _ => self.present_file(pair, name, path, &own, base.as_ref()),
        }
    }

    fn present_file(
        &mut self,
        pair: Pair<'_>,
        name: &CStr,
        path: &[u8],
        own: &Stat,
        base: Option<&Stat>,
    ) -> io::Result<()> {
        if let Some(upper) = self.elsewhere(pair, name, own)? {
            let merged = upper.merged_folder(above(path))?;
            let pair = Pair { own: merged.as_fd(), holds: Holds::Everything, ..pair };
            let Some(own) = stat(pair.own, name)? else { return Ok(()) };
            return self.present_file(pair, name, path, &own, base);
        }
        let changed = match base {
            // Whatever is there was written, if only with what had been there.
            _ if self.measure == Measure::Packed && pair.holds != Holds::Everything => true,
            Some(base) => differs(own, base) || self.capabilities_differ(pair, name, own)?,
            None => true,
        };
        match changed {
            true => self.emit(&Entry { path, kind: kind(base), own: Some((pair.own, name, own)) }),
            false => Ok(()),
        }
    }

    fn present_folder(
        &mut self,
        pair: Pair<'_>,
        name: &CStr,
        path: &[u8],
        own: &Stat,
        base: Option<&Stat>,
    ) -> io::Result<()> {
        let base_is_folder = base.is_some_and(|base| file_type(base) == FileType::Directory);
        let depth = self.pending.len();
        let shown = match base {
            Some(base) if base_is_folder => self.folder_differs(path, own, base),
            Some(_) => true,
            // Made for the stubs that it holds, or by the container.
            None => !HOLDERS.contains(&path),
        };
        if shown {
            self.emit(&Entry { path, kind: kind(base), own: Some((pair.own, name, own)) })?;
        } else {
            let folder = pair.own.try_clone_to_owned()?;
            let (name, path) = (name.to_owned(), path.to_vec());
            self.pending.push(Pending { folder, name, stat: *own, path, kind: kind(base) });
        }
        self.inner(Pair { base: pair.base.filter(|_| base_is_folder), ..pair }, name, path, own)?;
        self.pending.truncate(depth);
        Ok(())
    }

    fn inner(&mut self, pair: Pair<'_>, name: &CStr, path: &[u8], own: &Stat) -> io::Result<()> {
        let prefix = [path, b"/"].concat();
        let base = pair.base.map(|base| beneath(base, name, FOLDER)).transpose()?;
        let base = base.as_ref().map(AsFd::as_fd);
        if let Some(upper) = self.elsewhere(pair, name, own)? {
            let merged = upper.merged_folder(path)?;
            return self.folder(Pair { own: merged.as_fd(), base, holds: Holds::Everything }, &prefix);
        }
        let inner = match beneath(pair.own, name, FOLDER) {
            // It went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let holds = match (pair.holds, self.upper) {
            (Holds::Changes, Some(upper)) if upper.is_opaque(pair.own, name)? => Holds::Opaque,
            (holds, _) => holds,
        };
        self.folder(Pair { own: inner.as_fd(), base, holds }, &prefix)
    }

    /// The upper folder, if what an entry of it holds is not there.
    fn elsewhere(&self, pair: Pair<'_>, name: &CStr, own: &Stat) -> io::Result<Option<&'a Upper>> {
        match self.upper {
            Some(upper) if pair.holds != Holds::Everything => {
                Ok(upper.is_elsewhere(pair.own, name, own)?.then_some(upper))
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

    fn capabilities_differ(&self, pair: Pair<'_>, name: &CStr, own: &Stat) -> io::Result<bool> {
        let (Some(base), FileType::RegularFile) = (pair.base, file_type(own)) else { return Ok(false) };
        let of = |folder| tree::xattr(folder, name, c"security.capability");
        Ok(of(pair.own)? != of(base)?)
    }

    /// Reports the folders that lead to an entry, then the entry.
    fn emit(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        for Pending { folder, name, stat, path, kind } in self.pending.drain(..) {
            let own = Some((folder.as_fd(), name.as_c_str(), &stat));
            (self.report)(&Entry { path: &path, kind, own })?;
        }
        (self.report)(entry)
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
