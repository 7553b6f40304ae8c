//! Lines in a file that is rotated, written by a thread of their own: a slow disk holds no call up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use serde::Serialize;

use crate::model::limits::{AUDIT_FILE, AUDIT_FILES};

/// Lines that wait for the disk.
const WAITING: usize = 4096;

/// Where lines go.
pub(super) struct Lines {
    sender: Option<SyncSender<String>>,
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = LogFile::open(path)?;
        let (sender, lines) = mpsc::sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = thread::Builder::new().name("audit".to_owned()).spawn({
            let lost = lost.clone();
            move || write(file, &lines, &lost)
        })?;
        Ok(Self { sender: Some(sender), lost, writer: Some(writer) })
    }

    /// Writes a line. One for which there is no room any more is counted.
    pub(super) fn write(&self, entry: &impl Serialize) {
        let line = serde_json::to_string(entry).ok();
        let sent = line.zip(self.sender.as_ref()).map(|(line, sender)| sender.try_send(line));
        if !matches!(sent, Some(Ok(()))) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Lines {
    /// What waits is written before it is gone.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
    }
}

fn write(mut file: LogFile, lines: &Receiver<String>, lost: &AtomicU64) {
    for line in lines {
        let missing = lost.swap(0, Ordering::Relaxed);
        let told = if missing > 0 { file.add(&format!("{{\"lost\":{missing}}}")) } else { Ok(()) };
        if let Err(error) = told.and_then(|()| file.add(&line)) {
            lost.fetch_add(missing + 1, Ordering::Relaxed);
            tracing::error!("writing {}: {error}", file.path.display());
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    most: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, most: AUDIT_FILE })
    }

    fn add(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.most {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.size += length;
        Ok(())
    }

    /// `audit.log` becomes `audit.log.1`, that `audit.log.2`, the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..AUDIT_FILES).rev() {
            let older = match number {
                1 => self.path.clone(),
                number => self.numbered(number - 1),
            };
            match fs::rename(older, self.numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self = Self { most: self.most, ..Self::open(&self.path)? };
        Ok(())
    }

    fn numbered(&self, number: u64) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_rotated_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut file = LogFile { most: 10, ..LogFile::open(&path).unwrap() };
        for number in 0..AUDIT_FILES + 2 {
            file.add(&format!("line {number}")).unwrap();
        }
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(text("audit.log").unwrap(), format!("line {}\n", AUDIT_FILES + 1));
        assert_eq!(text("audit.log.1").unwrap(), format!("line {AUDIT_FILES}\n"));
        assert_eq!(text(&format!("audit.log.{}", AUDIT_FILES - 1)).unwrap(), "line 2\n");
        assert!(text(&format!("audit.log.{AUDIT_FILES}")).is_none());
        // What is there is gone on with.
        drop(file);
        LogFile::open(&path).unwrap().add("more").unwrap();
        assert!(text("audit.log").unwrap().ends_with("more\n"));
    }

    #[test]
    fn what_waits_is_written_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let lines = Lines::open(&path).unwrap();
        for number in 0..100 {
            lines.write(&number);
        }
        drop(lines);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 100);
    }
}
