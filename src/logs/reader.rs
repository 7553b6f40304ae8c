//! Reading: whole buffers of records become whole buffers of answer, many lines at once.

use std::{fs::File, io, os::unix::fs::FileExt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream as FutureStream, stream};
use tokio::{sync::watch, task::spawn_blocking};

use super::{ContainerLog, Position, Progress, record, record::Record, tail, timestamps::TimestampWriter};
use crate::model::{Result, error::Context, output::OutputStream, time::Timestamp};

/// How much of a file is read at once; an answer is about as long.
const CHUNK: usize = 256 * 1024;

/// What of a log is wanted, and how it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on until the run ends.
    pub follow: bool,
    /// No lines from before.
    pub since: Option<Timestamp>,
    /// No lines from after; ends a `follow`.
    pub until: Option<Timestamp>,
    /// Only the last lines, of both streams together; `None` for all.
    pub tail: Option<u64>,
    /// The time in front of each line.
    pub timestamps: bool,
    /// The attributes in front of each line (after the time).
    pub details: bool,
    /// Docker's 8-byte header in front of each line; without it (terminal), the bare bytes.
    pub framed: bool,
}

/// Chunks of an answer.
pub type LogStream = Pin<Box<dyn FutureStream<Item = Result<Bytes>> + Send>>;

/// What one look at the files gave.
enum Step {
    Chunk(Bytes),
    /// Nothing more for now.
    Wait,
    End,
}

pub(super) fn read(log: Arc<ContainerLog>, options: ReadOptions) -> LogStream {
    let changes = log.progress.subscribe();
    let progress = log.progress();
    let cursor = Cursor {
        is_following: options.follow && progress.is_writing,
        run: progress.run,
        progress,
        log,
        options,
        place: None,
        file: None,
        buffer: Vec::new(),
        timestamps: TimestampWriter::default(),
    };
    Box::pin(stream::unfold(Some((cursor, changes)), |state| async move {
        let (cursor, changes) = state?;
        match next(cursor, changes).await {
            Ok((chunk, state)) => Some((Ok(chunk?), state)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

type State = (Cursor, watch::Receiver<Progress>);

/// The next chunk; `None` at the end.
async fn next(mut cursor: Cursor, mut changes: watch::Receiver<Progress>) -> Result<(Option<Bytes>, Option<State>)> {
    loop {
        if cursor.is_following {
            cursor.progress = *changes.borrow_and_update();
        }
        let (returned, step) = spawn_blocking(move || {
            let step = cursor.step();
            (cursor, step)
        })
        .await
        .context("reading the log")?;
        cursor = returned;
        match step.context("reading the log")? {
            Step::Chunk(chunk) => return Ok((Some(chunk), Some((cursor, changes)))),
            Step::End => return Ok((None, None)),
            Step::Wait => {
                let changed = changes.changed();
                let in_time = match cursor.time_left() {
                    Some(left) => tokio::time::timeout(left, changed).await.is_ok(),
                    None => changed.await.is_ok(),
                };
                if !in_time {
                    return Ok((None, None));
                }
            }
        }
    }
}

struct Cursor {
    log: Arc<ContainerLog>,
    options: ReadOptions,
    /// Ends with the run that was under way when reading began.
    is_following: bool,
    run: u64,
    progress: Progress,
    /// The next record to read; `None` before the start was looked up.
    place: Option<Position>,
    file: Option<File>,
    buffer: Vec<u8>,
    timestamps: TimestampWriter,
}

impl Cursor {
    /// Reads on until there is something to answer.
    fn step(&mut self) -> io::Result<Step> {
        let mut place = match self.place {
            Some(place) => place,
            None => self.start()?,
        };
        let (end, is_open) = self.limit();
        loop {
            self.place = Some(place);
            if place >= end {
                return Ok(if is_open { Step::Wait } else { Step::End });
            }
            let limit = match self.open(place.generation)? {
                None => 0,
                Some(_) if place.generation == end.generation => end.offset,
                Some(file) => file.metadata()?.len(),
            };
            match self.convert(place.offset, limit)? {
                Converted { bytes_read: 0, .. } if place.generation < end.generation => {
                    self.file = None;
                    place = Position { generation: place.generation + 1, offset: 0 };
                }
                // Someone cut the file from outside.
                Converted { bytes_read: 0, .. } => return Ok(if is_open { Step::Wait } else { Step::End }),
                converted => {
                    place.offset += converted.bytes_read;
                    self.place = Some(place);
                    if converted.is_past_until {
                        self.place = Some(end);
                        self.is_following = false;
                        if converted.answer.is_empty() {
                            return Ok(Step::End);
                        }
                        self.progress = Progress { end, ..self.progress };
                    }
                    if !converted.answer.is_empty() {
                        return Ok(Step::Chunk(converted.answer.into()));
                    }
                }
            }
        }
    }

    /// Where this reader stops for now, and whether more may come.
    fn limit(&self) -> (Position, bool) {
        let progress = &self.progress;
        if !self.is_following {
            (progress.end, false)
        } else if progress.run == self.run {
            (progress.end, progress.is_writing)
        } else {
            (progress.ended_at, false)
        }
    }

    fn start(&self) -> io::Result<Position> {
        let end = self.progress.end;
        match self.options.tail {
            Some(lines) => tail::position(&self.log, end, lines),
            None => {
                let rotated = self.log.with_files(|| self.log.segments.rotated_numbers())?;
                let oldest = rotated.first().copied().unwrap_or(end.generation).min(end.generation);
                Ok(Position { generation: oldest, offset: 0 })
            }
        }
    }

    fn open(&mut self, generation: u64) -> io::Result<Option<&File>> {
        if self.file.is_none() {
            self.file = open(&self.log, generation)?;
        }
        Ok(self.file.as_ref())
    }

    /// Turns one buffer of records into an answer.
    fn convert(&mut self, offset: u64, limit: u64) -> io::Result<Converted> {
        let mut converted = Converted { answer: Vec::new(), bytes_read: 0, is_past_until: false };
        let Some(file) = &self.file else { return Ok(converted) };
        let wanted = usize::try_from(limit.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
        self.buffer.resize(wanted, 0);
        let mut count = 0;
        while count < wanted {
            match file.read_at(&mut self.buffer[count..], offset + count as u64)? {
                0 => break,
                read => count += read,
            }
        }
        converted.answer.reserve(count);
        let since = self.options.since.map_or(i64::MIN, Timestamp::unix_nanos);
        let until = self.options.until.map_or(i64::MAX, Timestamp::unix_nanos);
        let mut used = 0;
        while let Some((record, size)) = record::decode(&self.buffer[used..count]) {
            if record.nanos > until {
                converted.is_past_until = true;
                break;
            }
            used += size;
            if record.nanos >= since && is_wanted(self.options, record.stream) {
                write_record(&mut converted.answer, &record, self.options, &self.log.details, &mut self.timestamps);
            }
        }
        converted.bytes_read = used as u64;
        if converted.is_past_until {
            // Not zero, which would mean that nothing can be read here.
            converted.bytes_read += 1;
        }
        Ok(converted)
    }

    /// Until when a follower may wait.
    fn time_left(&self) -> Option<Duration> {
        let nanos = self.options.until?.unix_nanos().saturating_sub(Timestamp::now().unix_nanos());
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }
}

struct Converted {
    answer: Vec<u8>,
    bytes_read: u64,
    is_past_until: bool,
}

/// Opens a file by its number while none is renamed.
pub(super) fn open(log: &ContainerLog, generation: u64) -> io::Result<Option<File>> {
    log.with_files(|| {
        let published = *log.progress.borrow();
        let live = if published.run > 0 { published.end.generation } else { log.segments.live_number()? };
        log.segments.open(generation, live)
    })
}

fn is_wanted(options: ReadOptions, stream: OutputStream) -> bool {
    match stream {
        OutputStream::Stdout => options.stdout,
        OutputStream::Stderr => options.stderr,
    }
}

fn write_record(
    answer: &mut Vec<u8>,
    record: &Record<'_>,
    options: ReadOptions,
    details: &str,
    timestamps: &mut TimestampWriter,
) {
    let start = answer.len();
    if options.framed {
        answer.extend_from_slice(&[record.stream as u8, 0, 0, 0, 0, 0, 0, 0]);
    }
    let content = answer.len();
    if options.timestamps {
        timestamps.write(answer, record.nanos);
    }
    if options.details {
        answer.extend_from_slice(details.as_bytes());
        answer.push(b' ');
    }
    answer.extend_from_slice(record.line);
    if options.framed {
        let length = u32::try_from(answer.len() - content).expect("a record is shorter than 4 GiB");
        answer[start + 4..content].copy_from_slice(&length.to_be_bytes());
    }
}
