//! Blobs in containerd's content store.

use std::{collections::HashMap, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use containerd_client::{
    services::v1::{
        AbortRequest, Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
        WriteContentResponse,
    },
    tonic::{Code, Status, Streaming},
};
use futures_util::{StreamExt, TryStreamExt};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};

use super::{Client, from_status};
use crate::{
    backend::images::{BlobInfo, BlobReader, BlobWriter},
    model::{Error, ErrorKind, Result, error::Context, image::Descriptor, reference::Digest},
};

/// Bytes of one message. Network chunks are small, and each message costs a round trip.
const MESSAGE: usize = 1 << 20;

/// containerd closes an ingest a moment after its writer went away.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Looks a blob up.
pub(super) async fn info(client: &Client, digest: &Digest) -> Result<Option<BlobInfo>> {
    match client.content().info(InfoRequest { digest: digest.to_string() }).await {
        Ok(answer) => Ok(answer.into_inner().info.map(|info| BlobInfo {
            digest: digest.clone(),
            size: u64::try_from(info.size).unwrap_or_default(),
            labels: info.labels,
        })),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(from_status(status)),
    }
}

/// Opens a blob for reading.
pub(super) async fn read(client: &Client, digest: &Digest, offset: u64) -> Result<BlobReader> {
    let offset = i64::try_from(offset).map_err(|_| Error::invalid(format!("offset {offset} is too large")))?;
    let request = ReadContentRequest { digest: digest.to_string(), offset, size: 0 };
    let answer = client.content().read(request).await.map_err(from_status)?;
    let chunks = answer.into_inner().map_ok(|part| Bytes::from(part.data)).map_err(std::io::Error::other);
    Ok(Box::pin(StreamReader::new(chunks)))
}

/// Sets labels and leaves the others.
pub(super) async fn label(client: &Client, digest: &Digest, labels: HashMap<String, String>) -> Result<()> {
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let request = UpdateRequest {
        info: Some(Info { digest: digest.to_string(), labels, ..Info::default() }),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    client.content().update(request).await.map_err(from_status)?;
    Ok(())
}

/// Gives a blob of one namespace to another, where the lease in `to` keeps it. Whether the first one has it.
pub(super) async fn give(from: &Client, to: &Client, blob: &Descriptor) -> Result<bool> {
    let Some(info) = info(from, &blob.digest).await? else { return Ok(false) };
    let blob = Descriptor { size: info.size, ..blob.clone() };
    let digest = blob.digest.clone();
    let wanted = Wanted::Blob { blob: Box::new(blob), source: String::new() };
    let Some(mut writer) = Writer::open_as(to.clone(), wanted, true).await? else {
        return Ok(true);
    };
    // containerd takes it as it is, unless it was told to keep namespaces apart.
    if writer.offset() < info.size {
        let mut bytes = ReaderStream::with_capacity(read(from, &digest, writer.offset()).await?, MESSAGE);
        while let Some(part) = bytes.next().await {
            writer.write(part.context(format!("reading {digest}"))?).await?;
        }
    }
    Box::new(writer).commit(HashMap::new()).await?;
    Ok(true)
}

/// What a writer is for.
pub(super) enum Wanted {
    /// A blob whose digest is known.
    Blob {
        /// It.
        blob: Box<Descriptor>,
        /// Who sends it: what others have sent of it lies elsewhere. Empty for the daemon itself.
        source: String,
    },
    /// A blob whose digest shows at its end.
    Anything,
}

impl Wanted {
    fn total(&self) -> i64 {
        match self {
            Self::Blob { blob, .. } => i64::try_from(blob.size).unwrap_or_default(),
            Self::Anything => 0,
        }
    }

    fn digest(&self) -> String {
        match self {
            Self::Blob { blob, .. } => blob.digest.to_string(),
            Self::Anything => String::new(),
        }
    }
}

/// An ingest: one stream of messages to containerd, each of which it answers.
pub(super) struct Writer {
    client: Client,
    wanted: Wanted,
    reference: String,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Pin<Box<Streaming<WriteContentResponse>>>,
    /// What containerd has confirmed.
    written: u64,
    buffer: BytesMut,
    /// The ingest is committed or gone already.
    finished: bool,
}

/// An ingest that nobody can go on with takes no room: its client has left, or its bytes could not be stored.
impl Drop for Writer {
    fn drop(&mut self) {
        if self.finished || matches!(self.wanted, Wanted::Blob { .. }) {
            return;
        }
        self.requests = mpsc::channel(1).0;
        let (client, reference) = (self.client.clone(), self.reference.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = abort(&client, &reference).await {
                    tracing::warn!("dropping the ingest {reference}: {error}");
                }
            });
        }
    }
}

async fn abort(client: &Client, reference: &str) -> Result<()> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match client.content().abort(AbortRequest { r#ref: reference.to_owned() }).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) if is_in_use(&status) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(status) => return Err(from_status(status)),
        }
    }
}

impl Writer {
    /// Opens an ingest, or finds it where an earlier writer left it. `None` if the blob is there; the lease in
    /// `client` then keeps it.
    pub(super) async fn open(client: Client, wanted: Wanted) -> Result<Option<Self>> {
        // containerd gives a blob of any of its namespaces to whoever names its digest. Here the bytes have to come.
        let is_named = match &wanted {
            Wanted::Blob { blob, .. } => info(&client, &blob.digest).await?.is_some(),
            Wanted::Anything => false,
        };
        Self::open_as(client, wanted, is_named).await
    }

    /// The same, with the digest named at once or not before its end.
    async fn open_as(client: Client, wanted: Wanted, is_named: bool) -> Result<Option<Self>> {
        let reference = match &wanted {
            Wanted::Blob { blob, source } if source.is_empty() => format!("ringer-{}", blob.digest),
            Wanted::Blob { blob, source } => format!("ringer-{}-of-{source}", blob.digest),
            Wanted::Anything => format!("ringer-new-{}", crate::model::id::ContainerId::random()),
        };
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match connect(&client, &wanted, &reference, is_named).await {
                Ok((requests, answers, written)) => {
                    let buffer = BytesMut::new();
                    let finished = false;
                    return Ok(Some(Self { client, wanted, reference, requests, answers, written, buffer, finished }));
                }
                Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
                Err(status) if is_locked(&status) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(status) => return Err(from_status(status)),
            }
        }
    }

    async fn send(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        // A closed channel means that the stream has ended; why, the answer tells.
        let _ended = self.requests.send(request).await;
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::aborted("containerd ended the upload"))
    }

    fn request(&self, action: WriteAction, data: Vec<u8>) -> WriteContentRequest {
        WriteContentRequest {
            action: action.into(),
            r#ref: self.reference.clone(),
            total: self.wanted.total(),
            expected: self.wanted.digest(),
            offset: i64::try_from(self.written).unwrap_or(i64::MAX),
            data,
            labels: HashMap::new(),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        while !self.buffer.is_empty() {
            let part = self.buffer.split_to(self.buffer.len().min(MESSAGE));
            let length = part.len() as u64;
            let request = self.request(WriteAction::Write, part.to_vec());
            if let Err(status) = self.send(request).await {
                let error = write_error(status, &self.wanted);
                if error.kind() != ErrorKind::Unavailable {
                    // A full disk: what is there of it must not keep others from theirs.
                    self.throw_away().await;
                }
                return Err(error);
            }
            self.written += length;
        }
        Ok(())
    }

    /// Removes what is there of an ingest, whose writer must be gone for that: containerd trips over files that it still
    /// writes itself.
    async fn abort(&mut self) -> Result<()> {
        self.requests = mpsc::channel(1).0;
        abort(&self.client, &self.reference).await
    }

    /// After a failure, which is what is to be told. What cannot be removed goes with its lease.
    async fn throw_away(&mut self) {
        if let Err(error) = self.abort().await {
            tracing::debug!("dropping the ingest {}: {}", self.reference, error.chain());
        }
    }
}

#[async_trait]
impl BlobWriter for Writer {
    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() >= MESSAGE { self.flush().await } else { Ok(()) }
    }

    async fn truncate(&mut self) -> Result<()> {
        // An ingest cannot be cut, only thrown away.
        self.abort().await?;
        self.finished = true;
        let wanted = std::mem::replace(&mut self.wanted, Wanted::Anything);
        match Self::open(self.client.clone(), wanted).await? {
            Some(fresh) => *self = fresh,
            None => return Err(Error::conflict("the blob was written by somebody else meanwhile")),
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, labels: HashMap<String, String>) -> Result<Digest> {
        self.flush().await?;
        let total = i64::try_from(self.written).unwrap_or(i64::MAX);
        let request = WriteContentRequest { labels, total, ..self.request(WriteAction::Commit, Vec::new()) };
        match self.send(request).await {
            Ok(answer) => {
                self.finished = true;
                answer.digest.parse()
            }
            // Somebody was first. Its lease is not ours, so ask once more under ours.
            Err(status) if status.code() == Code::AlreadyExists => existing(&self.client, &self.wanted, &status).await,
            Err(status) => {
                let error = write_error(status, &self.wanted);
                self.throw_away().await;
                Err(error)
            }
        }
    }
}

type Upload = (mpsc::Sender<WriteContentRequest>, Pin<Box<Streaming<WriteContentResponse>>>, u64);

/// Starts the stream and asks how much is there.
async fn connect(client: &Client, wanted: &Wanted, reference: &str, is_named: bool) -> Result<Upload, Status> {
    let (requests, stream) = mpsc::channel(1);
    let first = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: reference.to_owned(),
        total: wanted.total(),
        expected: if is_named { wanted.digest() } else { String::new() },
        ..WriteContentRequest::default()
    };
    let _fits = requests.try_send(first);
    let mut answers = Box::pin(client.content().write(ReceiverStream::new(stream)).await?.into_inner());
    let answer = answers.message().await?.ok_or_else(|| Status::aborted("containerd ended the upload"))?;
    Ok((requests, answers, u64::try_from(answer.offset).unwrap_or_default()))
}

/// The digest of a blob that was there before ours was complete.
async fn existing(client: &Client, wanted: &Wanted, status: &Status) -> Result<Digest> {
    let digest = match wanted {
        Wanted::Blob { blob, .. } => blob.digest.clone(),
        // containerd says `content sha256:…: already exists`.
        Wanted::Anything => {
            let found = status.message().split([' ', '"']).find_map(|word| word.trim_end_matches(':').parse().ok());
            found.ok_or_else(|| Error::system(status.message()))?
        }
    };
    let size = info(client, &digest).await?.map_or(0, |info| info.size);
    let descriptor = Descriptor { digest: digest.clone(), size, ..Descriptor::of("", b"") };
    let wanted = Wanted::Blob { blob: Box::new(descriptor), source: String::new() };
    match connect(client, &wanted, &format!("ringer-{digest}"), true).await {
        Err(status) if status.code() == Code::AlreadyExists => Ok(digest),
        Err(status) => Err(from_status(status)),
        Ok(_) => Err(Error::conflict(format!("blob {digest} was removed while it was being written"))),
    }
}

/// containerd removes an ingest's folder although its own writer, which has just been ended, puts files there.
fn is_in_use(status: &Status) -> bool {
    is_locked(status) || status.message().contains("directory not empty")
}

fn is_locked(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("locked")
}

/// containerd says `FailedPrecondition` of a digest or a size that is not as announced.
fn write_error(status: Status, wanted: &Wanted) -> Error {
    match wanted {
        Wanted::Blob { blob, .. } if matches!(status.code(), Code::FailedPrecondition | Code::OutOfRange) => {
            tracing::debug!(blob.digest = %blob.digest, "containerd refused {}: {}", blob.digest, status.message());
            Error::blob_verification_failed(blob.digest.as_str())
        }
        _ => from_status(status).context("writing into the content store"),
    }
}
