//! Writing: output comes in chunks as the pump reads them, goes out as records, one per line.

use std::{fs::File, io::Write, sync::Arc, time::SystemTime};

use tracing::warn;

use super::{
    ContainerLog, Driver, Position, Progress, Settings, record,
    unfinished::{Pending, Unfinished},
};
use crate::model::{Result, error::Context, output::OutputStream};

/// Content of a line up to which it is one record, as dockerd's copier has it.
const LONGEST_CONTENT: usize = record::MAX_LINE - 1;

/// Takes the output of one run of a container.
///
/// Every chunk goes to the file with one system call, so a reader that follows sees a line at once and a busy
/// container still costs few calls. A line is held back until its line feed comes, at most 16 KiB of it, and kept beside the log
/// until then, in case the daemon dies.
/// A disk that is full or fails loses what could not be written, with one warning; the container goes on.
#[derive(Debug)]
pub struct Writer {
    log: Arc<ContainerLog>,
    settings: Settings,
    /// `None` with the driver `none`.
    file: Option<File>,
    end: Position,
    buffer: Vec<u8>,
    stdout: Pending,
    stderr: Pending,
    unfinished: Unfinished,
    has_warned: bool,
}

impl Writer {
    pub(super) fn open(log: Arc<ContainerLog>, settings: Settings) -> Result<Self> {
        let (file, end) = match settings.driver {
            Driver::None => (None, Position::default()),
            Driver::JsonFile | Driver::Local => {
                let (file, end) =
                    log.with_files(|| log.segments.open_live()).context("failed to initialize logging driver")?;
                (Some(file), end)
            }
        };
        let mut unfinished = log.unfinished();
        let [stdout, stderr] = if file.is_some() { unfinished.load(end.offset) } else { Default::default() };
        log.progress.send_modify(|progress| {
            *progress = Progress { end, run: progress.run + 1, is_writing: true, ended_at: progress.ended_at };
        });
        Ok(Self { log, settings, file, end, buffer: Vec::new(), stdout, stderr, unfinished, has_warned: false })
    }

    /// Takes what was read from an output.
    pub fn write(&mut self, stream: OutputStream, chunk: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let now = now();
        let mut rest = chunk;
        while let Some(feed) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(feed + 1);
            self.put_line(stream, now, line);
            rest = after;
        }
        if !rest.is_empty() {
            self.hold(stream, now, rest);
        }
        self.flush();
        if let Err(error) = self.unfinished.save(self.end.offset, [&self.stdout, &self.stderr]) {
            self.warn("keeping what is no whole line beside", &error);
        }
    }

    /// Ends the run: writes what waits for a line feed, and lets readers that follow come to their end.
    pub fn finish(self) {}

    /// Adds the end of a line, with its line feed.
    fn put_line(&mut self, stream: OutputStream, now: i64, line: &[u8]) {
        let (content, feed) = line.split_at(line.len() - 1);
        let content = if self.pending(stream).bytes.len() + content.len() >= LONGEST_CONTENT {
            self.hold(stream, now, content);
            feed
        } else {
            line
        };
        let mut pending = std::mem::take(self.pending(stream));
        self.put(stream, pending.part_of.unwrap_or(now), &pending.bytes, content);
        pending.bytes.clear();
        self.pending(stream).bytes = pending.bytes;
    }

    /// Keeps a line's beginning, and writes parts of it as soon as they are as long as a record may be.
    fn hold(&mut self, stream: OutputStream, now: i64, mut content: &[u8]) {
        let mut pending = std::mem::take(self.pending(stream));
        while pending.bytes.len() + content.len() >= LONGEST_CONTENT {
            let (part, rest) = content.split_at(LONGEST_CONTENT - pending.bytes.len());
            let time = *pending.part_of.get_or_insert(now);
            self.put(stream, time, &pending.bytes, part);
            pending.bytes.clear();
            content = rest;
        }
        pending.bytes.extend_from_slice(content);
        *self.pending(stream) = pending;
    }

    /// Adds a record, in a new file if this one is full.
    fn put(&mut self, stream: OutputStream, nanos: i64, head: &[u8], tail: &[u8]) {
        if self.settings.max_size.is_some_and(|max| self.end.offset + self.buffer.len() as u64 >= max) {
            self.flush();
            self.rotate();
        }
        record::encode(&mut self.buffer, stream, nanos, head, tail);
    }

    fn pending(&mut self, stream: OutputStream) -> &mut Pending {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Hands the buffer to the kernel and tells readers.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(&self.buffer) {
            Ok(()) => {
                self.end.offset += self.buffer.len() as u64;
                self.publish();
            }
            Err(error) => {
                // A record must not start in the middle of another. If this fails too, readers stop at the torn one.
                let _ = file.set_len(self.end.offset);
                self.warn("writing", &error);
            }
        }
        self.buffer.clear();
    }

    fn rotate(&mut self) {
        let log = Arc::clone(&self.log);
        let rotated = log.with_files(|| {
            let file = log.segments.rotate(self.end.generation, self.settings.max_files - 1)?;
            self.end = Position { generation: self.end.generation + 1, offset: 0 };
            self.publish();
            Ok(file)
        });
        match rotated {
            Ok(file) => self.file = Some(file),
            Err(error) => self.warn("rotating", &error),
        }
    }

    fn publish(&self) {
        self.log.progress.send_modify(|progress| progress.end = self.end);
    }

    fn warn(&mut self, what: &str, error: &std::io::Error) {
        if !self.has_warned {
            let path = self.log.segments.live();
            warn!(log.path = %path.display(), "{what} the log {} failed, output is lost: {error}", path.display());
            self.has_warned = true;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let now = now();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let pending = std::mem::take(self.pending(stream));
            if !pending.bytes.is_empty() {
                self.put(stream, pending.part_of.unwrap_or(now), &pending.bytes, b"");
            }
        }
        self.flush();
        self.unfinished.remove();
        self.log.progress.send_modify(|progress| {
            progress.is_writing = false;
            progress.ended_at = progress.end;
        });
    }
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)
}
