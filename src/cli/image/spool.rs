//! A layer while it is fetched: a file without a name, on the disk where its files go.

use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
};

use async_trait::async_trait;
use bytes::Bytes;
use ringer::{
    model::{Result, error::Context, image::Descriptor},
    registry::{BlobSink, Proof},
};
use rustix::fs::{Mode, OFlags};

/// What has come so far.
pub struct Spool {
    file: File,
    proof: Proof,
}

impl Spool {
    /// An empty one.
    pub fn new(folder: &Path) -> Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR);
        let file = file.context(format!("making a file in {}", folder.display()))?;
        Ok(Self { file: file.into(), proof: Proof::default() })
    }

    /// The file, if it is what was meant.
    pub fn verified(self, blob: &Descriptor) -> Result<File> {
        self.proof.finish(blob)?;
        Ok(self.file)
    }
}

#[async_trait]
impl BlobSink for Spool {
    fn offset(&self) -> u64 {
        self.proof.offset()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.file.write_all(&bytes).context("keeping a layer")?;
        self.proof.write(bytes).await
    }

    async fn truncate(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).context("keeping a layer")?;
        self.proof.truncate().await
    }
}
