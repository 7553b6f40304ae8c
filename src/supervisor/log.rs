//! The logs of runners, which outlive them.

use std::{io::SeekFrom, path::PathBuf};

use futures_util::StreamExt;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufWriter},
};
use tracing::warn;

use crate::{
    logs::LogStream,
    model::{Result, error::Context},
};

/// Of one runner, the most that is kept.
const LONGEST: usize = 64 << 20;

/// What its end is.
const TAIL: u64 = 16 << 10;

/// The longest line that is read along.
const LINE: usize = 4096;

/// Writes a log into a file until it ends, and has its lines read along. What is in the way is replaced.
pub async fn keep(path: PathBuf, log: LogStream, reads: impl Fn(&str)) {
    if let Err(error) = write(&path, log, Lines { begun: Vec::new(), reads }).await {
        warn!("keeping the log {}: {}", path.display(), error.chain());
    }
}

/// The end of a log, as far as it is text.
pub async fn end_of(path: PathBuf) -> Result<String> {
    let doing = || format!("reading {}", path.display());
    let mut file = File::open(&path).await.context(doing())?;
    let length = file.metadata().await.context(doing())?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).await.context(doing())?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text).await.context(doing())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Puts pieces of a log together to lines. Of a long one the beginning is read.
struct Lines<R> {
    begun: Vec<u8>,
    reads: R,
}

impl<R: Fn(&str)> Lines<R> {
    fn take(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            let room = LINE - self.begun.len();
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                (self.reads)(String::from_utf8_lossy(&self.begun).trim_end());
                self.begun.clear();
            }
        }
    }
}

async fn write(path: &PathBuf, mut log: LogStream, mut lines: Lines<impl Fn(&str)>) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut file = BufWriter::new(File::create(path).await.context(doing())?);
    let mut written = 0;
    while let Some(piece) = log.next().await {
        let piece = piece?;
        lines.take(&piece);
        if written > LONGEST {
            continue;
        }
        written += piece.len();
        let kept = if written > LONGEST { &b"\n(the rest is not kept)\n"[..] } else { &piece };
        file.write_all(kept).await.context(doing())?;
        // Somebody may be reading along.
        file.flush().await.context(doing())?;
    }
    file.flush().await.context(doing())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn lines_are_put_together_and_bounded() {
        let heard = RefCell::new(Vec::new());
        let mut lines = Lines { begun: Vec::new(), reads: |line: &str| heard.borrow_mut().push(line.to_owned()) };
        lines.take(b"one\ntw");
        lines.take(b"o\n");
        lines.take(&[b'x'; 2 * LINE]);
        lines.take(b"y\nlast");
        assert_eq!(heard.borrow()[..2], ["one", "two"]);
        assert_eq!((heard.borrow().len(), heard.borrow()[2].len()), (3, LINE));
    }
}
