//! How much is in a folder.

use std::{
    collections::HashSet,
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    resolve::beneath,
    tree::{MAX_DEPTH, file_type, names},
};

/// Bytes of all files below `folder`, each once however many names it has; nothing for folders, as dockerd counts. What
/// goes away meanwhile is not counted.
pub fn folder_size(folder: &Path) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let mut sum = Sum::default();
    sum.add_folder(folder.as_fd(), 0)?;
    Ok(sum.bytes)
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    seen: HashSet<(u64, u64)>,
}

impl Sum {
    fn add_folder(&mut self, folder: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for name in names(folder)? {
            match self.add(folder, &name, depth) {
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn add(&mut self, folder: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if file_type(stat.st_mode) == FileType::Directory {
            if depth >= MAX_DEPTH {
                return Ok(());
            }
            let inner = beneath(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
            return self.add_folder(inner.as_fd(), depth + 1);
        }
        if stat.st_nlink < 2 || self.seen.insert((stat.st_dev, stat.st_ino)) {
            self.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_by_their_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("inner")).unwrap();
        std::fs::write(path("file"), [0; 1000]).unwrap();
        std::fs::hard_link(path("file"), path("inner/again")).unwrap();
        std::os::unix::fs::symlink("/", path("link")).unwrap();
        assert_eq!(folder_size(folder.path()).unwrap(), 1001);
    }
}
