//! What describes a file: owner, mode, times, extended attributes, further names.
//!
//! A container may put another file, or a link to one of the host's, under a name at any moment. So nothing here takes a
//! name: each call goes by a descriptor that was opened without following a link, and reaches the file that was
//! opened or none. An `O_PATH` descriptor takes no mode and no attributes itself; `/proc/self/fd` leads to the
//! file that it holds, and is no path of the container's. `tests/levels.rs` keeps the calls by name out of the
//! other files.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{resolve::Owner, tree::file_type};

/// Attributes are mostly short.
const SHORT: usize = 256;
/// The kernel takes no longer ones, and no longer lists of their names.
const LONGEST: usize = 64 * 1024;

/// Gives a file to `owner`. Takes set-id bits and capabilities from it, so it comes first.
pub fn set_owner(file: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// Sets permissions. A link has none: it is left as it is.
pub fn set_mode(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match rustix::fs::fchmod(file, mode) {
        // `O_PATH`.
        Err(Errno::BADF) if file_type(rustix::fs::fstat(file)?.st_mode) == FileType::Symlink => Ok(()),
        Err(Errno::BADF) => Ok(rustix::fs::chmod(path_to(file), mode)?),
        other => Ok(other?),
    }
}

/// Sets both times.
pub fn set_times(file: BorrowedFd<'_>, times: &Timestamps) -> io::Result<()> {
    Ok(rustix::fs::utimensat(file, c"", times, AtFlags::EMPTY_PATH)?)
}

/// Sets an extended attribute. Those that the file system or the kernel refuses are left out, as dockerd does.
pub fn set_xattr(file: BorrowedFd<'_>, attribute: &CStr, value: &[u8]) -> io::Result<()> {
    match rustix::fs::setxattr(path_to(file), attribute, value, XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One extended attribute; `None` if there is none of this name.
pub fn xattr(file: BorrowedFd<'_>, attribute: &CStr) -> io::Result<Option<Vec<u8>>> {
    let read = |size: usize| {
        let mut value = vec![0; size];
        rustix::fs::getxattr(path_to(file), attribute, &mut value[..]).map(|length| {
            value.truncate(length);
            value
        })
    };
    let value = match read(SHORT) {
        Err(Errno::RANGE) => read(LONGEST),
        other => other,
    };
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies owner, attributes, mode and times from one file, whose `stat` was read before, to another.
pub fn copy_all(from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>) -> io::Result<()> {
    set_owner(to, Owner { uid: stat.st_uid, gid: stat.st_gid })?;
    copy_xattrs(from, to)?;
    set_mode(to, stat.st_mode)?;
    set_times(to, &times_of(stat))
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = vec![0; LONGEST];
    let length = match rustix::fs::listxattr(path_to(from), &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for attribute in list[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(attribute) = CStr::from_bytes_with_nul(attribute) else { continue };
        // Overlayfs's own; they describe layers, not files.
        let name = attribute.to_bytes();
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        if let Some(value) = xattr(from, attribute)? {
            set_xattr(to, attribute, &value)?;
        }
    }
    Ok(())
}

fn times_of(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos: u64| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos.cast_signed() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Gives a further name to a file, a link included. With `AT_EMPTY_PATH` it would take a capability more.
pub fn link(file: BorrowedFd<'_>, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::linkat(CWD, path_to(file), folder, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// A path to what a descriptor holds, a link included, for calls that take no `O_PATH` descriptor.
fn path_to(file: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("digits hold no zero")
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::{
            fd::AsFd,
            unix::fs::{MetadataExt, symlink},
        },
    };

    use rustix::fs::Timespec;

    use super::*;
    use crate::rootfs::{RootView, resolve::open_entry};

    /// Each kind of file takes what it can through an `O_PATH` descriptor, on the kernel that runs this.
    #[test]
    fn every_kind_of_file_is_described_by_its_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let view = RootView::of_folder(folder.path());
        let path = |name: &str| folder.path().join(name);
        fs::write(path("outside"), "").unwrap();
        let before = fs::metadata(path("outside")).unwrap();
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("folder")).unwrap();
        symlink(path("outside"), path("link")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(view.root(), "fifo", FileType::Fifo, mode, 0).unwrap();
        rustix::fs::mknodat(view.root(), "device", FileType::CharacterDevice, mode, rustix::fs::makedev(1, 3)).unwrap();
        let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
        for name in [c"file", c"folder", c"link", c"fifo", c"device"] {
            let file = open_entry(view.root(), name).unwrap();
            set_owner(file.as_fd(), Owner { uid: 5, gid: 6 }).unwrap();
            set_xattr(file.as_fd(), c"trusted.test", &[7; 1000]).unwrap();
            set_mode(file.as_fd(), 0o4751).unwrap();
            set_times(file.as_fd(), &Timestamps { last_access: time, last_modification: time }).unwrap();
            let made = fs::symlink_metadata(path(name.to_str().unwrap())).unwrap();
            assert_eq!((made.uid(), made.gid(), made.mtime(), made.mtime_nsec()), (5, 6, time.tv_sec, 5), "{name:?}");
            assert_eq!(made.mode() & 0o7777, if made.is_symlink() { 0o777 } else { 0o4751 }, "{name:?}");
            let mut value = [0; 2000];
            let length = rustix::fs::lgetxattr(path(name.to_str().unwrap()), "trusted.test", &mut value[..]).unwrap();
            assert_eq!((length, xattr(file.as_fd(), c"trusted.test").unwrap().unwrap().len()), (1000, 1000));
        }
        let after = fs::metadata(path("outside")).unwrap();
        let told = |metadata: &fs::Metadata| (metadata.uid(), metadata.mode(), metadata.mtime(), metadata.ctime_nsec());
        assert_eq!(told(&before), told(&after), "what a link names is not touched");
    }
}
