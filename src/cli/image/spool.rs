//! A layer while it is fetched: a file without a name, on the disk where its files go.

use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
};

use async_trait::async_trait;
use bytes::Bytes;
use ringer::{
    model::{Error, Result, error::Context, image::Descriptor, reference::Digest},
    registry::BlobSink,
};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

/// What has come so far.
pub struct Spool {
    file: File,
    offset: u64,
    sum: Sha256,
}

impl Spool {
    /// An empty one.
    pub fn new(folder: &Path) -> Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR);
        let file = file.context(format!("making a file in {}", folder.display()))?;
        Ok(Self { file: file.into(), offset: 0, sum: Sha256::new() })
    }

    /// The file, if it is what was meant.
    pub fn verified(self, blob: &Descriptor) -> Result<File> {
        match Digest::from_sha256(&self.sum.finalize()) == blob.digest {
            true => Ok(self.file),
            false => Err(Error::blob_verification_failed(blob.digest.as_str())),
        }
    }
}

#[async_trait]
impl BlobSink for Spool {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.file.write_all(&bytes).context("keeping a layer")?;
        self.offset += bytes.len() as u64;
        self.sum.update(&bytes);
        Ok(())
    }

    async fn truncate(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).context("keeping a layer")?;
        (self.offset, self.sum) = (0, Sha256::new());
        Ok(())
    }
}
