//! A layer while it is fetched: a file without a name, on the disk where its files go.

use std::{
    fs::File,
    io::{self, Seek, Write},
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
}

impl Spool {
    /// An empty one.
    pub fn new(folder: &Path) -> Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR);
        let file = file.context(format!("making a file in {}", folder.display()))?;
        Ok(Self { file: file.into(), offset: 0 })
    }

    /// The file, if it is what was meant.
    pub fn verified(mut self, blob: &Descriptor) -> Result<File> {
        let reading = || format!("reading layer {}", blob.digest);
        let mut sum = Sha256::new();
        self.file.rewind().context(reading())?;
        io::copy(&mut self.file, &mut sum).context(reading())?;
        match Digest::from_sha256(&sum.finalize()) == blob.digest {
            true => Ok(self.file),
            false => Err(Error::system(format!("filesystem layer verification failed for digest {}", blob.digest))),
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
        Ok(())
    }

    async fn truncate(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).context("keeping a layer")?;
        self.offset = 0;
        Ok(())
    }
}
