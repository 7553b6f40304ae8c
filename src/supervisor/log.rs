//! The logs of runners, which outlive them. Of a very long one the beginning and the end are kept.

use std::{collections::VecDeque, io::SeekFrom, path::PathBuf};

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

/// Of one runner's log, the most that is kept of its beginning, and of its end where there is more: that tells how it ended.
const BEGINNING: usize = 64 << 20;
const END: usize = 256 << 10;

/// What its end is.
const TAIL: u64 = 16 << 10;

/// The longest line that is read along.
const LINE: usize = 4096;

/// Writes a log into a file until it ends, and has its lines read along. What is in the way is replaced.
pub async fn keep(path: PathBuf, log: LogStream, reads: impl Fn(&str)) {
    if let Err(error) = write(&path, log, Lines { begun: Vec::new(), reads }, BEGINNING).await {
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

/// The end of what comes.
#[derive(Default)]
struct End {
    bytes: VecDeque<u8>,
    left_out: usize,
}

impl End {
    fn take(&mut self, piece: &[u8]) {
        self.bytes.extend(piece);
        let too_many = self.bytes.len().saturating_sub(END);
        self.bytes.drain(..too_many);
        self.left_out += too_many;
    }

    /// From the beginning of a line, behind a word on what is missing.
    fn into_text(mut self) -> Vec<u8> {
        if self.left_out > 0 {
            let line = self.bytes.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            self.bytes.drain(..line);
            self.left_out += line;
        }
        let missing =
            if self.left_out > 0 { format!("\n({} bytes are not kept)\n", self.left_out) } else { String::new() };
        missing.into_bytes().into_iter().chain(self.bytes).collect()
    }
}

async fn write(path: &PathBuf, mut log: LogStream, mut lines: Lines<impl Fn(&str)>, beginning: usize) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut file = BufWriter::new(File::create(path).await.context(doing())?);
    let (mut room, mut end) = (beginning, End::default());
    let mut came = Ok(());
    while let Some(piece) = log.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                came = Err(error);
                break;
            }
        };
        lines.take(&piece);
        let (first, rest) = piece.split_at(piece.len().min(room));
        room -= first.len();
        end.take(rest);
        if !first.is_empty() {
            file.write_all(first).await.context(doing())?;
            // Somebody may be reading along.
            file.flush().await.context(doing())?;
        }
    }
    file.write_all(&end.into_text()).await.context(doing())?;
    file.flush().await.context(doing())?;
    came
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use bytes::Bytes;

    use super::*;
    use crate::model::Error;

    #[tokio::test]
    async fn of_a_long_log_the_beginning_and_the_end_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let kept = async |count: usize| {
            let pieces = (0..count).map(|number| Ok(Bytes::from(format!("line {number:05}\n"))));
            let lines = Lines { begun: Vec::new(), reads: |_: &str| {} };
            write(&path, Box::pin(futures_util::stream::iter(pieces)), lines, 20).await.unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(kept(3).await, "line 00000\nline 00001\nline 00002\n");
        let many = END / "line 00000\n".len() + 10;
        let text = kept(many).await;
        assert!(text.starts_with("line 00000\nline 0000\n("), "{}", &text[..60]);
        let (missing, end) = text.split_once(" bytes are not kept)\n").unwrap();
        assert!(end.starts_with("line ") && end.ends_with(&format!("line {:05}\n", many - 1)), "{}", &end[..60]);
        let missing: usize = missing.rsplit('(').next().unwrap().parse().unwrap();
        assert_eq!(20 + missing + end.len(), many * "line 00000\n".len());
    }

    #[tokio::test]
    async fn of_a_log_that_breaks_off_the_end_is_kept_and_the_error_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let pieces = [Ok("beginning\n"), Ok("last\n"), Err(Error::system("it broke off")), Ok("never\n")];
        let pieces = pieces.into_iter().map(|piece| piece.map(Bytes::from));
        let lines = Lines { begun: Vec::new(), reads: |_: &str| {} };
        let came = write(&path, Box::pin(futures_util::stream::iter(pieces)), lines, "beginning\n".len()).await;
        assert_eq!(came.unwrap_err().message(), "it broke off");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "beginning\nlast\n");
    }

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
