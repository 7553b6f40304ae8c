//! The logs of runners, which outlive them.

use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
};
use tracing::warn;

use crate::{
    logs::LogStream,
    model::{Result, error::Context},
};

/// Of one runner, the most that is kept.
const LONGEST: usize = 64 << 20;

/// Writes a log into a file until it ends. What is in the way is replaced.
pub async fn keep(path: PathBuf, log: LogStream) {
    if let Err(error) = write(&path, log).await {
        warn!("keeping the log {}: {}", path.display(), error.chain());
    }
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
