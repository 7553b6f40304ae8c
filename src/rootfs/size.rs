//! How much is in a folder.

use std::{collections::HashSet, io, os::fd::AsFd, path::Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};

use super::{tree::file_type, walk::Walk};

/// Bytes of all files below `folder`, each once however many names it has; nothing for folders, as dockerd counts. What
/// goes away meanwhile is not counted.
pub fn folder_size(folder: &Path) -> io::Result<u64> {
    sum(folder, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

/// The same in what they take of the disk: a file of holes takes nothing.
pub fn room_of(folder: &Path) -> io::Result<u64> {
    sum(folder, |stat| u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512))
}

fn sum(folder: &Path, of: impl Fn(&Stat) -> u64) -> io::Result<u64> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let mut walk = Walk::new(folder.as_fd(), b"")?;
    let (mut bytes, mut seen) = (0u64, HashSet::new());
    while let Some(found) = walk.next()? {
        let stat = found.stat;
        if file_type(stat.st_mode) == FileType::Directory {
            walk.enter(found)?;
        } else if stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) {
            bytes = bytes.saturating_add(of(&stat));
        }
    }
    Ok(bytes)
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
        let room = room_of(folder.path()).unwrap();
        std::fs::File::create(path("holes")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(room_of(folder.path()).unwrap(), room);
        assert_eq!(folder_size(folder.path()).unwrap(), 1001 + (1 << 30));
    }
}
