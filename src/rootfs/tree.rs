//! Folders by descriptor: listing, removing.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::{
    attributes,
    descent::Descent,
    resolve::{beneath, open_entry},
};

/// How deep folders may lie in each other where a walk keeps all of them open.
pub const MAX_DEPTH: usize = 400;

/// Names in a folder, sorted bytewise as Go's walk has them.
pub fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    each_name(folder, |name| {
        names.push(name.to_owned());
        Ok(true)
    })?;
    names.sort_unstable();
    Ok(names)
}

/// Gives `take` one name after another as the kernel lists them, for as long as it answers yes: however many there are, none is
/// kept.
pub fn each_name(folder: BorrowedFd<'_>, mut take: impl FnMut(&CStr) -> io::Result<bool>) -> io::Result<()> {
    let folder = beneath(folder, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." && !take(name)? {
            break;
        }
    }
    Ok(())
}

/// Removes an entry of a folder, with all that is below it.
pub fn remove_all(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    if remove_single(folder, name)? {
        return Ok(());
    }
    let mut way = Descent::new(folder.try_clone_to_owned()?, vec![name.to_owned()].into_iter())?;
    loop {
        match way.known().next() {
            Some(name) => {
                if !remove_single(way.here(), &name)? {
                    way.enter(&name, Vec::new().into_iter())?;
                    *way.known() = names(way.here())?.into_iter();
                }
            }
            None => match way.leave()? {
                Some(name) => rustix::fs::unlinkat(way.here(), name, AtFlags::REMOVEDIR)?,
                None => return Ok(()),
            },
        }
    }
}

/// Removes an entry that is no folder; answers whether it was none.
fn remove_single(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    // From outside the container's mount namespace the kernel would let a mount point go, and its mount with it.
    let there = rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    if there.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::BUSY.into());
    }
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(Errno::PERM) if file_type(there.stx_mode.into()) == FileType::Directory => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes a folder of the host with all that a container left in it, however deep; none is success.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) else { return Err(Errno::INVAL.into()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let removed = rustix::fs::open(above, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|above| remove_all(above.as_fd(), &CString::new(name.as_bytes())?));
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The kind of file that a mode names.
pub fn file_type(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

/// One extended attribute of an entry, which may be a link; `None` if it has none of this name.
pub fn xattr(folder: BorrowedFd<'_>, name: &CStr, attribute: &CStr) -> io::Result<Option<Vec<u8>>> {
    attributes::xattr(open_entry(folder, name)?.as_fd(), attribute)
}

/// Whether an entry went away while a walk was about to look at it.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::STALE))
}
