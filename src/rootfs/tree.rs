//! Folders by descriptor: listing, removing, copying what describes a file.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, RawDir, StatxAttributes, StatxFlags, XattrFlags},
    io::Errno,
};

use super::resolve::beneath;

/// How deep folders may lie in each other; deeper ones are refused before they exhaust descriptors.
pub const MAX_DEPTH: usize = 400;

/// Names in a folder, sorted bytewise as Go's walk has them.
pub fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let folder = beneath(folder, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes an entry of a folder, with all that is below it.
pub fn remove_all(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    remove(folder, name, 0)
}

fn remove(folder: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
    // From outside the container's mount namespace the kernel would let a mount point go, and its mount with it.
    let there = rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    if there.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::BUSY.into());
    }
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) if depth < MAX_DEPTH => {}
        other => return Ok(other?),
    }
    let inner = beneath(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
    for entry in names(inner.as_fd())? {
        remove(inner.as_fd(), &entry, depth + 1)?;
    }
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

/// The kind of file that a mode names.
pub fn file_type(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

/// A path by which calls that know no descriptors reach an entry of a folder without following links above it.
pub fn path_through(folder: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).expect("a C string and digits hold no zero")
}

/// One extended attribute of an entry; `None` if it has none of this name.
pub fn xattr(folder: BorrowedFd<'_>, name: &CStr, attribute: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 4096];
    match rustix::fs::lgetxattr(path_through(folder, name), attribute, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets an extended attribute. Those that the file system or the kernel refuses are left out, as dockerd does.
pub fn set_xattr(folder: BorrowedFd<'_>, name: &CStr, attribute: &CStr, value: &[u8]) -> io::Result<()> {
    match rustix::fs::lsetxattr(path_through(folder, name), attribute, value, XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Copies all extended attributes from one entry to another.
pub fn copy_xattrs(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr)) -> io::Result<()> {
    let mut list = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(path_through(from.0, from.1), &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for attribute in list[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(attribute) = CStr::from_bytes_with_nul(attribute) else { continue };
        // Overlayfs's own; they describe layers, not files.
        let name = attribute.to_string_lossy();
        if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            continue;
        }
        if let Some(value) = xattr(from.0, from.1, &name)? {
            set_xattr(to.0, to.1, attribute, &value)?;
        }
    }
    Ok(())
}
