//! The files of a log: the live one and those that were rotated away.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{Position, record};

const LIVE: &str = "container.log";
const UNFINISHED: &str = "unfinished";

/// Names and numbers of a log's files. The live file's number is one more than the greatest of the others'.
#[derive(Debug)]
pub struct Segments {
    dir: PathBuf,
}

impl Segments {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where they all are.
    pub fn folder(&self) -> &Path {
        &self.dir
    }

    /// The file that is written.
    pub fn live(&self) -> PathBuf {
        self.dir.join(LIVE)
    }

    /// Where beginnings of lines wait for the rest.
    pub fn unfinished(&self) -> PathBuf {
        self.dir.join(UNFINISHED)
    }

    /// A file that was written.
    pub fn rotated(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("{LIVE}.{generation}"))
    }

    /// Numbers of the rotated files, oldest first.
    pub fn rotated_numbers(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let number: Option<u64> =
                name.to_str().and_then(|name| name.strip_prefix(LIVE)?.strip_prefix('.')?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The live file's number.
    pub fn live_number(&self) -> io::Result<u64> {
        Ok(self.rotated_numbers()?.last().map_or(1, |last| last + 1))
    }

    /// Where the last whole record ends; the start if nothing was written.
    pub fn end(&self) -> io::Result<Position> {
        let generation = self.live_number()?;
        let offset = match File::open(self.live()) {
            Ok(file) => record::whole_length(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Position { generation, offset })
    }

    /// Opens the live file for appending and cuts a torn record off its end.
    pub fn open_live(&self) -> io::Result<(File, Position)> {
        fs::create_dir_all(&self.dir)?;
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(self.live())?;
        let offset = record::whole_length(&file)?;
        if offset < file.metadata()?.len() {
            file.set_len(offset)?;
        }
        Ok((file, Position { generation: self.live_number()?, offset }))
    }

    /// Puts the live file, number `generation`, aside and opens the next. Of the files put aside the newest
    /// `keep` stay.
    pub fn rotate(&self, generation: u64, keep: u64) -> io::Result<File> {
        let put_aside =
            if keep == 0 { fs::remove_file(self.live()) } else { fs::rename(self.live(), self.rotated(generation)) };
        match put_aside {
            // An earlier attempt came this far and no further.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        for number in self.rotated_numbers()? {
            if number + keep <= generation {
                fs::remove_file(self.rotated(number))?;
            }
        }
        OpenOptions::new().read(true).append(true).create_new(true).mode(0o640).open(self.live())
    }

    /// Opens a file for reading, `live` being the live file's number; `None` if it was removed.
    pub fn open(&self, generation: u64, live: u64) -> io::Result<Option<File>> {
        let path = if generation == live { self.live() } else { self.rotated(generation) };
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
