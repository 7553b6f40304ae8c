//! Layers: streamed into a sink, taken up again where a connection broke.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE},
};
use tracing::debug;

use crate::{
    model::{Error, Result, image::Descriptor},
    registry::{failure::Failure, session::Session},
};

/// Failures in a row, without a byte between them, after which a download is given up; dockerd's number.
const ATTEMPTS: u32 = 5;

/// Where a download goes.
#[async_trait]
pub trait BlobSink: Send {
    /// Bytes that are there already.
    fn offset(&self) -> u64;

    /// Appends.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Throws away what is there.
    async fn truncate(&mut self) -> Result<()>;
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes are there.
    Downloaded(u64),
    /// The connection broke; so many seconds until the next try.
    Retrying(u64),
}

enum Broken {
    /// The registry's side.
    Remote(Failure),
    /// Our side: the store is full, or gone.
    Local(Error),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Remote(failure)
    }
}

impl Session {
    /// Fetches a blob into `sink`, going on at the sink's offset. The digest is the sink's to check.
    pub async fn download(
        &self,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<()> {
        let mut failures = 0;
        loop {
            let before = sink.offset();
            let failure = match self.attempt(blob, sink, report).await {
                Ok(()) => return Ok(()),
                Err(Broken::Local(error)) => return Err(error),
                Err(Broken::Remote(failure)) => failure,
            };
            debug!(blob.digest = %blob.digest, "download of {} broke at {}: {}", blob.digest, sink.offset(), failure.text());
            failures = if sink.offset() > before { 0 } else { failures + 1 };
            if !failure.is_passing() || failures >= ATTEMPTS {
                return Err(failure.of_pull(&self.reference));
            }
            self.wait_before_retry(failures, report).await;
        }
    }

    /// A connection that brought something is taken up at once, another after a growing while.
    async fn wait_before_retry(&self, failures: u32, report: &mut (dyn FnMut(Progress) + Send)) {
        let mut left = self.retry_delay * failures;
        while !left.is_zero() {
            report(Progress::Retrying(left.as_secs().max(1)));
            let step = left.min(Duration::from_secs(1));
            tokio::time::sleep(step).await;
            left -= step;
        }
    }

    async fn attempt(
        &self,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), Broken> {
        if sink.offset() > blob.size {
            sink.truncate().await.map_err(Broken::Local)?;
        }
        if sink.offset() == blob.size && blob.size > 0 {
            return Ok(());
        }
        let mut answer = self.open_blob(blob, sink).await?;
        loop {
            let chunk = match answer.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => {
                    let url = self.url(&self.blob_path(blob))?;
                    return Err(Failure::transport(&Method::GET, &url, &error).await.into());
                }
            };
            if sink.offset() + chunk.len() as u64 > blob.size {
                let text = format!("blob {} is larger than the {} bytes its manifest says", blob.digest, blob.size);
                return Err(Failure::Other(text).into());
            }
            sink.write(chunk).await.map_err(Broken::Local)?;
            report(Progress::Downloaded(sink.offset()));
        }
        if sink.offset() < blob.size {
            return Err(self.broken_off(blob)?.into());
        }
        Ok(())
    }

    fn broken_off(&self, blob: &Descriptor) -> Result<Failure, Failure> {
        let url = self.url(&self.blob_path(blob))?;
        let line = crate::registry::failure::RequestLine::new(&Method::GET, url.as_str());
        Ok(Failure::Transport(line, "unexpected EOF".to_owned()))
    }

    /// Asks for what is missing. A server that cannot do ranges sends all of it, and the sink starts again.
    async fn open_blob(&self, blob: &Descriptor, sink: &mut dyn BlobSink) -> Result<Response, Broken> {
        let offset = sink.offset();
        if offset == 0 {
            return Ok(self.request(Method::GET, &self.blob_path(blob), HeaderMap::new()).await?);
        }
        let range = HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are valid in a header");
        let answer = self.request(Method::GET, &self.blob_path(blob), HeaderMap::from_iter([(RANGE, range)])).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&answer, offset) => Ok(answer),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                sink.truncate().await.map_err(Broken::Local)?;
                Ok(self.request(Method::GET, &self.blob_path(blob), HeaderMap::new()).await?)
            }
            _ => {
                sink.truncate().await.map_err(Broken::Local)?;
                Ok(answer)
            }
        }
    }
}

/// `Content-Range: bytes 100-199/200`
fn starts_at(answer: &Response, offset: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
    let start = range.trim_start_matches("bytes").trim_start().split('-').next().unwrap_or_default();
    start.parse() == Ok(offset)
}
