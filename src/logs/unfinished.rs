//! Beginnings of lines that wait for their line feed: they lie beside the log, so that a daemon that is killed does not take them along.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
};

use super::record::MAX_LINE;

/// A line's beginning.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// What was written of it since its last part went out.
    pub bytes: Vec<u8>,
    /// Set after a part of a long line went out: its other parts carry the same time.
    pub part_of: Option<i64>,
}

/// The file of one log. It says where the log ended when it was written, in front and at its end: one that says something else was
/// torn, or what it holds is in the log meanwhile.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    file: Option<File>,
    /// Whether it holds anything.
    is_saved: bool,
}

impl Unfinished {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, is_saved: false }
    }

    /// What the last daemon left, if the log still ends at `end`.
    pub fn load(&mut self, end: u64) -> [Pending; 2] {
        let found = File::open(&self.path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(4 * MAX_LINE as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let found = found.ok().and_then(|bytes| decode(&bytes, end));
        self.is_saved = found.is_some();
        found.unwrap_or_default()
    }

    /// Keeps what waits while the log ends at `end`.
    pub fn save(&mut self, end: u64, pending: [&Pending; 2]) -> io::Result<()> {
        let is_empty = pending.iter().all(|pending| pending.bytes.is_empty());
        if is_empty && !self.is_saved {
            return Ok(());
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(&self.path)?,
        };
        let file = self.file.insert(file);
        self.is_saved = !is_empty;
        file.write_all_at(&encode(end, pending), 0)
    }

    /// The run has ended, and everything is in the log.
    pub fn remove(&mut self) {
        if self.is_saved || self.file.take().is_some() {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

fn encode(end: u64, pending: [&Pending; 2]) -> Vec<u8> {
    let mut bytes = end.to_le_bytes().to_vec();
    for Pending { bytes: line, part_of } in pending {
        bytes.push(u8::from(part_of.is_some()));
        bytes.extend(part_of.unwrap_or_default().to_le_bytes());
        bytes.extend((line.len() as u64).to_le_bytes());
        bytes.extend(line);
    }
    bytes.extend(end.to_le_bytes());
    bytes
}

fn decode(mut bytes: &[u8], end: u64) -> Option<[Pending; 2]> {
    let bytes = &mut bytes;
    let number = |bytes: &mut &[u8]| bytes.split_off(..8).and_then(|bytes| bytes.try_into().ok());
    let is_of_this_end = |bytes: &mut &[u8]| number(bytes).map(u64::from_le_bytes) == Some(end);
    let line = |bytes: &mut &[u8]| {
        let is_part = *bytes.split_off_first()? == 1;
        let time = i64::from_le_bytes(number(bytes)?);
        let length = usize::try_from(u64::from_le_bytes(number(bytes)?)).ok()?;
        Some(Pending { bytes: bytes.split_off(..length)?.to_vec(), part_of: is_part.then_some(time) })
    };
    if !is_of_this_end(bytes) {
        return None;
    }
    let pending = [line(bytes)?, line(bytes)?];
    is_of_this_end(bytes).then_some(pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(text: &str, part_of: Option<i64>) -> Pending {
        Pending { bytes: text.as_bytes().to_vec(), part_of }
    }

    #[test]
    fn what_is_kept_comes_back_while_the_log_ends_where_it_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unfinished");
        let of_dead = &mut Unfinished::new(path.clone());
        of_dead.save(7, [&pending("", None), &pending("", None)]).unwrap();
        assert!(!path.exists(), "nothing waits");
        of_dead.save(7, [&pending("a long beginning", None), &pending("", None)]).unwrap();
        of_dead.save(9, [&pending("out", Some(-3)), &pending("err", None)]).unwrap();
        assert_eq!(Unfinished::new(path.clone()).load(9), [pending("out", Some(-3)), pending("err", None)]);
        assert_eq!(Unfinished::new(path.clone()).load(7), <[Pending; 2]>::default());
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(30).unwrap();
        assert_eq!(Unfinished::new(path.clone()).load(9), <[Pending; 2]>::default(), "it is torn");
        of_dead.save(9, [&pending("", None), &pending("", None)]).unwrap();
        assert_eq!(Unfinished::new(path.clone()).load(9), <[Pending; 2]>::default());
        of_dead.remove();
        assert!(!path.exists());
    }
}
