//! How much is in a folder.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    descent::Descent,
    tree::{each_name, file_type, is_gone},
};

/// What `st_blocks` counts in.
const BLOCK: u64 = 512;

/// Bytes of all files below `folder`, each once however many names it has; nothing for folders, as dockerd counts. What
/// goes away meanwhile is not counted.
pub fn folder_size(folder: &Path) -> io::Result<u64> {
    let length = |stat: &Stat| u64::try_from(stat.st_size).unwrap_or(0);
    Sum::new(u64::MAX, 0, |stat: &Stat| if is_folder(stat) { 0 } else { length(stat) }).of(folder)
}

/// The same in what they take of the disk: a file of holes takes nothing.
pub fn room_of(folder: &Path) -> io::Result<u64> {
    Sum::new(u64::MAX, 0, |stat: &Stat| if is_folder(stat) { 0 } else { blocks(stat) }).of(folder)
}

/// What a folder takes of the disk in which somebody writes meanwhile, with all folders and itself: it is enough to have seen more
/// than `most`. Each name counts as one block at least, also a further one of the same file, so that names alone come to an end.
pub fn room_up_to(folder: &Path, most: u64) -> io::Result<u64> {
    Sum::new(most, BLOCK, blocks).of(folder)
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}

fn is_folder(stat: &Stat) -> bool {
    file_type(stat.st_mode) == FileType::Directory
}

/// A walk that adds up. Of what is in a folder it keeps the names of folders alone: there may be very many files.
struct Sum<F> {
    bytes: u64,
    /// The walk ends when there are more.
    most: u64,
    /// What a name counts at least.
    least: u64,
    /// What a file or a folder takes.
    room: F,
    /// Files of several names that were counted.
    seen: HashSet<(u64, u64)>,
}

impl<F: Fn(&Stat) -> u64> Sum<F> {
    fn new(most: u64, least: u64, room: F) -> Self {
        Self { bytes: 0, most, least, room, seen: HashSet::new() }
    }

    fn of(mut self, folder: &Path) -> io::Result<u64> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        self.add(&rustix::fs::fstat(&folder)?);
        let inner = self.add_content(folder.as_fd())?;
        let mut way = Descent::new(folder, inner)?;
        while !self.is_over() {
            if let Some(name) = way.known().pop() {
                self.add_inner(&mut way, &name)?;
            } else if matches!(way.leave(), Ok(None)) {
                break;
            }
            // The rest of folders that were moved is left out.
        }
        Ok(self.bytes)
    }

    fn is_over(&self) -> bool {
        self.bytes > self.most
    }

    fn add_inner(&mut self, way: &mut Descent<Vec<CString>>, name: &CStr) -> io::Result<()> {
        match way.enter(name, Vec::new()) {
            Err(error) if is_no_folder(&error) => return Ok(()),
            entered => entered?,
        }
        match self.add_content(way.here()) {
            Err(error) if is_gone(&error) => {}
            inner => *way.known() = inner?,
        }
        Ok(())
    }

    /// Adds all that is in a folder, and answers which folders are.
    fn add_content(&mut self, folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
        let mut inner = Vec::new();
        each_name(folder, |name| {
            if self.is_over() {
                return Ok(false);
            }
            match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    self.add(&stat);
                    inner.extend(is_folder(&stat).then(|| name.to_owned()));
                }
                Err(Errno::NOENT | Errno::STALE) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(true)
        })?;
        Ok(inner)
    }

    fn add(&mut self, stat: &Stat) {
        let has_names = !is_folder(stat) && stat.st_nlink > 1;
        let is_counted = has_names && !self.seen.insert((stat.st_dev, stat.st_ino));
        let room = if is_counted { 0 } else { (self.room)(stat) };
        self.bytes = self.bytes.saturating_add(room.max(self.least));
    }
}

/// Whether what was a folder went away, or something else has its name by now.
fn is_no_folder(error: &io::Error) -> bool {
    is_gone(error) || matches!(Errno::from_io_error(error), Some(Errno::NOTDIR | Errno::LOOP | Errno::XDEV))
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
        let own = room_up_to(folder.path(), 0).unwrap();
        assert_eq!(room_up_to(folder.path(), own + 10 * BLOCK).unwrap(), own + 11 * BLOCK);
        assert_eq!(room_up_to(folder.path(), u64::MAX).unwrap(), own + 100 * BLOCK);
    }

    #[test]
    fn under_a_limit_folders_and_further_names_are_not_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: String| folder.path().join(name);
        std::fs::write(path("file".to_owned()), [1; 100_000]).unwrap();
        let before = room_up_to(folder.path(), u64::MAX).unwrap();
        for number in 0..50 {
            std::fs::hard_link(path("file".to_owned()), path(format!("link{number}"))).unwrap();
            std::fs::create_dir(path(format!("folder{number}"))).unwrap();
        }
        let room = room_up_to(folder.path(), u64::MAX).unwrap();
        assert!((before + 100 * BLOCK..before + 50 * 100_000).contains(&room), "{before} {room}");
        let most = before + 20 * BLOCK;
        assert!(room_up_to(folder.path(), most).unwrap() > most);
        assert_eq!(folder_size(folder.path()).unwrap(), 100_000);
    }

    #[test]
    fn what_no_path_can_name_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut way = Descent::new(rustix::fs::open(folder.path(), flags, Mode::empty()).unwrap(), ()).unwrap();
        let name = CString::new(vec![b'd'; 200]).unwrap();
        for _ in 0..50 {
            rustix::fs::mkdirat(way.here(), &name, Mode::RWXU).unwrap();
            way.enter(&name, ()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(way.here(), c"file", flags, Mode::RUSR).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1 << 20).unwrap();
        assert!(room_up_to(folder.path(), u64::MAX).unwrap() > 1 << 20);
        assert_eq!(folder_size(folder.path()).unwrap(), 1 << 20);
        way.back_to(0);
        crate::rootfs::tree::remove_all(way.here(), &name).unwrap();
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
