//! How much is in a folder.

use std::{collections::HashSet, io, os::fd::AsFd, path::Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};

use super::{tree::file_type, walk::Walk};

/// What `st_blocks` counts in.
const BLOCK: u64 = 512;

/// Bytes of all files below `folder`, each once however many names it has; nothing for folders, as dockerd counts. What
/// goes away meanwhile is not counted.
pub fn folder_size(folder: &Path) -> io::Result<u64> {
    sum(folder, u64::MAX, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

/// The same in what they take of the disk: a file of holes takes nothing.
pub fn room_of(folder: &Path) -> io::Result<u64> {
    sum(folder, u64::MAX, blocks)
}

/// The same of a folder in which somebody writes meanwhile: it is enough to have seen more than `most`. A file without content counts as one
/// block, so that files alone come to an end.
pub fn room_up_to(folder: &Path, most: u64) -> io::Result<u64> {
    sum(folder, most, |stat| blocks(stat).max(BLOCK))
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}

fn sum(folder: &Path, most: u64, of: impl Fn(&Stat) -> u64) -> io::Result<u64> {
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
        if bytes > most {
            break;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_ends_the_walk_also_over_empty_files() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..100 {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(room_up_to(folder.path(), 10 * BLOCK).unwrap(), 11 * BLOCK);
        assert_eq!(room_up_to(folder.path(), u64::MAX).unwrap(), 100 * BLOCK);
    }

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
