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

/// Writes a log into a file until it ends. What is in the way is replaced.
pub async fn keep(path: PathBuf, log: LogStream) {
    if let Err(error) = write(&path, log).await {
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

async fn write(path: &PathBuf, mut log: LogStream) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut file = BufWriter::new(File::create(path).await.context(doing())?);
    let mut written = 0;
    while let Some(piece) = log.next().await {
        let piece = piece?;
        written += piece.len();
        if written > LONGEST {
            file.write_all(b"\n(the rest is not kept)\n").await.context(doing())?;
            break;
        }
        file.write_all(&piece).await.context(doing())?;
        // Somebody may be reading along.
        file.flush().await.context(doing())?;
    }
    file.flush().await.context(doing())
}
