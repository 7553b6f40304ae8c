//! Whether what is downloaded is what was meant.

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::BlobSink;
use crate::model::{Error, Result, image::Descriptor, reference::Digest};

/// Takes a blob to compare it, and keeps nothing of it.
#[derive(Default)]
pub struct Proof {
    hash: Sha256,
    bytes: u64,
}

impl Proof {
    /// Whether it was that blob.
    pub fn finish(self, blob: &Descriptor) -> Result<()> {
        match Digest::from_sha256(&self.hash.finalize()) == blob.digest {
            true => Ok(()),
            false => Err(Error::blob_verification_failed(blob.digest.as_str())),
        }
    }
}

#[async_trait]
impl BlobSink for Proof {
    fn offset(&self) -> u64 {
        self.bytes
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.hash.update(&bytes);
        Ok(())
    }

    async fn truncate(&mut self) -> Result<()> {
        *self = Self::default();
        Ok(())
    }
}
