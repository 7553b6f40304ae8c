//! An upload that is taken whole before it is used: a container's lock is not held while a client sends.

use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek, Write},
    path::Path,
};

use crate::{model::id::ContainerId, work};

/// So much is kept in memory.
const MEMORY: u64 = 1 << 20;

/// What has come of an upload.
pub(super) struct Spool<R> {
    head: Vec<u8>,
    rest: R,
}

impl<R: Read> Spool<R> {
    /// Takes as much as is kept in memory.
    pub fn begin(mut rest: R) -> io::Result<Self> {
        let mut head = Vec::new();
        rest.by_ref().take(MEMORY).read_to_end(&mut head)?;
        Ok(Self { head, rest })
    }

    /// Whether there may be more.
    pub fn is_long(&self) -> bool {
        self.head.len() as u64 == MEMORY
    }

    /// Takes the rest, into a file in `folder` that goes with what this returns.
    pub fn finish(mut self, folder: &Path) -> io::Result<Box<dyn Read + Send>> {
        if !self.is_long() {
            return Ok(Box::new(Cursor::new(self.head)));
        }
        let mut file = nameless(folder)?;
        file.write_all(&self.head)?;
        work::copy(&mut self.rest, &mut file)?;
        file.rewind()?;
        Ok(Box::new(file))
    }
}

/// A file without a name: nothing of it is left, however the daemon ends.
fn nameless(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(ContainerId::random().short());
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_uploads_come_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 10, MEMORY, 3 * MEMORY + 5] {
            let spool = Spool::begin(io::repeat(7).take(length)).unwrap();
            assert_eq!(spool.is_long(), length >= MEMORY);
            let mut whole = Vec::new();
            spool.finish(folder.path()).unwrap().read_to_end(&mut whole).unwrap();
            assert_eq!(whole.len() as u64, length);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
