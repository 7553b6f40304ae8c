//! Steps of long work: each looks whether the work is still wanted, and whether the disk has room left.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, StatVfs},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{Doing, Why, doing};
use crate::model::{Error, Result};

/// Bytes between two looks.
const STEP: u64 = 8 << 20;
/// What a request leaves free of a disk: containers that run, records and logs want it too.
const RESERVE: u64 = 256 << 20;
/// Of small disks it is less: the whole divided by this.
const RESERVE_SHARE: u64 = 32;

thread_local! {
    /// Bytes that this thread has written since the last look at a disk: many small files fill one as well.
    static UNSEEN: Cell<u64> = const { Cell::new(0) };
}

/// An error if the work that this thread does is to end. On other threads it never is.
pub fn check() -> io::Result<()> {
    doing().map_or(Ok(()), |doing| doing.stop.check())
}

/// As [`io::copy`] with a file as its end, as long as the work is wanted and the disk has room.
pub fn copy(from: &mut impl Read, to: &mut (impl Write + MaybeFile)) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        check()?;
        let step = io::copy(&mut from.by_ref().take(STEP), to)?;
        copied += step;
        if let Some(file) = to.file() {
            let unseen = UNSEEN.get() + step;
            UNSEEN.set(unseen);
            if unseen >= STEP {
                UNSEEN.set(0);
                Room::of(file)?.check()?;
            }
        }
        if step < STEP {
            return Ok(copied);
        }
    }
}

/// Sends a piece to whom it is for; an error if that one has left, takes nothing for too long, or the work is to end.
pub fn send<T>(sender: &mpsc::Sender<T>, piece: T) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let Some(Doing { stop, patience, handle }) = doing() else {
        return sender.blocking_send(piece).map_err(|_| gone());
    };
    handle.block_on(async {
        tokio::select! {
            biased;
            _ = stop.told() => Err(gone()),
            sent = sender.send(piece) => sent.map_err(|_| gone()),
            () = patience.end() => {
                stop.end(Why::Idle);
                Err(gone())
            }
        }
    })
}

/// Where bytes go; a file is on a disk.
pub trait MaybeFile {
    /// The file, if it is one.
    fn file(&self) -> Option<BorrowedFd<'_>>;
}

impl MaybeFile for std::fs::File {
    fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl MaybeFile for &std::fs::File {
    fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl MaybeFile for io::Sink {
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl MaybeFile for sha2::Sha256 {
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// What a disk has left.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: u64,
    whole: u64,
}

impl Room {
    /// On the disk of a file.
    fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(rustix::fs::fstatvfs(file)?))
    }

    /// On the disk of a folder.
    fn at(folder: &Path) -> io::Result<Self> {
        Self::of(rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The error of a full disk, if no more may be written.
    fn check(self) -> io::Result<()> {
        match self.free < RESERVE.min(self.whole / RESERVE_SHARE) {
            true => Err(Errno::NOSPC.into()),
            false => Ok(()),
        }
    }
}

impl From<StatVfs> for Room {
    fn from(stat: StatVfs) -> Self {
        Self { free: stat.f_bavail.saturating_mul(stat.f_frsize), whole: stat.f_blocks.saturating_mul(stat.f_frsize) }
    }
}

/// The disk below a folder, for who writes there through somebody else.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    unseen: u64,
}

impl Disk {
    /// The one that `folder` is on.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), unseen: 0 }
    }

    /// So many bytes are to be written next: the error of a full disk if there is no room for more.
    pub fn step(&mut self, bytes: usize) -> Result<()> {
        self.unseen += bytes as u64;
        if self.unseen < STEP {
            return Ok(());
        }
        self.unseen = 0;
        match Room::at(&self.folder).and_then(Room::check) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(Error::no_space_left(&self.folder)),
            // Of a disk that nobody can ask nothing is known.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_disk_stays_free() {
        let room = |free, whole| Room { free, whole }.check().is_ok();
        assert!(room(300 << 20, 100 << 30) && !room(200 << 20, 100 << 30));
        assert!(room(3 << 20, 64 << 20) && !room(1 << 20, 64 << 20));
    }
}
