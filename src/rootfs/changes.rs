//! What a container changed on its image: as a list, and as a layer.
//!
//! Of overlayfs the upper folder alone is read, which holds nothing else; other snapshotters keep whole trees,
//! which are compared. What [`super::prepare`] made is no change of the container's, as long as it is as it was made.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{
    archive::{ArchiveWriter, Sink, tell},
    prepare::{FILES, FOLDERS},
    resolve::beneath,
    tree::{self, MAX_DEPTH},
    view::{RootView, reopen},
};
use crate::{
    backend::runtime::RootfsMount,
    model::{
        Result,
        container::{Change, ChangeKind},
        error::Context,
    },
};

/// A container's files beside those of its image.
pub struct Changes {
    base: RootView,
    own: RootView,
    /// Whether `own` is overlayfs's upper folder, not a whole tree.
    is_upper: bool,
}

/// One entry that differs.
struct Entry<'a> {
    path: &'a [u8],
    kind: ChangeKind,
    /// Where it is and what it is; `None` if it was deleted.
    own: Option<(BorrowedFd<'a>, &'a CStr, &'a Stat)>,
}

impl Changes {
    /// `base` are the mounts of the image's files, `own` those of the container's.
    pub fn open(base: &[RootfsMount], own: &[RootfsMount]) -> Result<Self> {
        let base = RootView::layers(base)?;
        match upper_folder(own) {
            Some(upper) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let upper = rustix::fs::open(upper, flags, Mode::empty()).context("opening the container's layer")?;
                Ok(Self { base, own: RootView::under_construction(upper), is_upper: true })
            }
            None => Ok(Self { base, own: RootView::layers(own)?, is_upper: false }),
        }
    }

    /// Everything that changed, folders before what they hold.
    pub fn list(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.walk(&mut |entry| {
            changes.push(Change { path: format!("/{}", String::from_utf8_lossy(entry.path)), kind: entry.kind });
            Ok(())
        })
        .context("comparing the container with its image")?;
        Ok(changes)
    }

    /// The changes as a layer's tar. Ends early when the receiver is gone.
    pub fn layer(&self, sender: &mpsc::Sender<Result<Bytes>>) {
        let mut writer = ArchiveWriter { view: &self.own, sink: Sink::new(sender), links: HashMap::new() };
        let written = self.walk(&mut |entry| write(&mut writer, entry)).and_then(|()| writer.sink.finish());
        tell(written, sender);
    }

    fn walk(&self, report: &mut dyn FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut walk = Walk { is_upper: self.is_upper, report, pending: Vec::new() };
        let own = reopen(self.own.root(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let base = reopen(self.base.root(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        walk.folder(own.as_fd(), Some(base.as_fd()), b"", false)
    }
}

/// The folder with a container's own files, where the snapshotter keeps them apart. One that was renamed within the
/// layer without a copy says so in an attribute that only the mounted tree honours; containerd mounts without.
fn upper_folder(mounts: &[RootfsMount]) -> Option<&str> {
    let [mount] = mounts else { return None };
    if mount.kind != "overlay" {
        return None;
    }
    mount.options.iter().find_map(|option| option.strip_prefix("upperdir="))
}

/// Hands an entry over as a tar has it: deleted ones as `.wh.NAME`.
fn write(writer: &mut ArchiveWriter<'_>, entry: &Entry<'_>) -> io::Result<()> {
    match entry.own {
        Some((folder, name, _)) => match writer.single(folder, name, entry.path.to_vec()) {
            // It went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        None => {
            let start = entry.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            let (folder, name) = entry.path.split_at(start);
            writer.empty_file(&[folder, b".wh.", name].concat())
        }
    }
}

/// A folder that is reported as soon as something in it is.
struct Pending {
    folder: OwnedFd,
    name: CString,
    stat: Stat,
    path: Vec<u8>,
    kind: ChangeKind,
}

struct Walk<'a> {
    is_upper: bool,
    report: &'a mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
    pending: Vec<Pending>,
}

impl Walk<'_> {
    /// `opaque`: nothing of the base shows through.
    fn folder(
        &mut self,
        own: BorrowedFd<'_>,
        base: Option<BorrowedFd<'_>>,
        prefix: &[u8],
        opaque: bool,
    ) -> io::Result<()> {
        if prefix.iter().filter(|byte| **byte == b'/').count() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let mut names: BTreeSet<CString> = tree::names(own)?.into_iter().collect();
        if let Some(base) = base
            && (opaque || !self.is_upper)
        {
            names.extend(tree::names(base)?);
        }
        for name in names {
            let path = [prefix, name.to_bytes()].concat();
            self.entry(own, base, &name, &path)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        base_folder: Option<BorrowedFd<'_>>,
        name: &CStr,
        path: &[u8],
    ) -> io::Result<()> {
        let own = stat(folder, name)?.filter(|stat| !(self.is_upper && is_whiteout(stat)));
        let base = base_folder.map(|base| stat(base, name)).transpose()?.flatten();
        let Some(own) = own else {
            return match base {
                Some(_) => self.emit(&Entry { path, kind: ChangeKind::Deleted, own: None }),
                None => Ok(()),
            };
        };
        if is_stub(folder, name, path, &own, base.as_ref())? {
            return Ok(());
        }
        let kind = if base.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        let entry = Entry { path, kind, own: Some((folder, name, &own)) };
        if file_type(&own) != FileType::Directory {
            let changed = match &base {
                Some(base) if !self.is_upper => differs(&own, base),
                _ => true,
            };
            return if changed { self.emit(&entry) } else { Ok(()) };
        }
        let base_is_folder = base.as_ref().is_some_and(|base| file_type(base) == FileType::Directory);
        let depth = self.pending.len();
        let shown = match &base {
            Some(base) if base_is_folder => folder_differs(path, &own, base),
            Some(_) => true,
            // Made for the stubs that it holds, or by the container.
            None => !HOLDERS.contains(&path),
        };
        if shown {
            self.emit(&entry)?;
        } else {
            let folder = folder.try_clone_to_owned()?;
            self.pending.push(Pending { folder, name: name.to_owned(), stat: own, path: path.to_vec(), kind });
        }
        self.inner(folder, base_folder.filter(|_| base_is_folder), name, path)?;
        self.pending.truncate(depth);
        Ok(())
    }

    fn inner(
        &mut self,
        folder: BorrowedFd<'_>,
        base: Option<BorrowedFd<'_>>,
        name: &CStr,
        path: &[u8],
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let inner = match beneath(folder, name, flags) {
            // It went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let base = base.map(|base| beneath(base, name, flags)).transpose()?;
        let opaque = self.is_upper && is_opaque(folder, name)?;
        self.folder(inner.as_fd(), base.as_ref().map(AsFd::as_fd), &[path, b"/"].concat(), opaque)
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

/// overlayfs marks what was deleted by a device of number 0.
fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    for attribute in [c"trusted.overlay.opaque", c"user.overlay.opaque"] {
        if tree::xattr(folder, name, attribute)?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
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

/// A folder's time changes with the names in it; of the stubs' folders it says nothing.
fn folder_differs(path: &[u8], own: &Stat, base: &Stat) -> bool {
    let owner = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    owner(own) != owner(base) || (!HOLDERS.contains(&path) && time(own) != time(base))
}
