//! Towards clients: the calls of a `/grpc` connection. What belongs to buildkitd goes through as it is, but for builds, which are read
//! and changed ([`solve`]), and for blobs, of which a client sees those of its own history.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, Incoming};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

use super::{
    grpc::{Body, BodyError, Code, Status, boxed, framed, read_message},
    proxy::{self, Upstream},
    solve, wire,
};
use crate::model::Result;

/// Calls of one connection at once. A build has a handful.
const CALLS: u32 = 100;

/// Requests that are held whole at once, for all connections of a tenant, and how long one may take to come.
const HELD: usize = 4;
const HELD_LIMIT: Duration = Duration::from_secs(60);

/// Builds that were refused and whose other calls are still to come.
const REFUSED: usize = 256;

/// Blobs of the history that are remembered.
const BLOBS: usize = 16_384;

/// By which a gateway's call names its build.
const BUILD: &str = "buildkit-controlapi-buildid";

/// Services that go through.
const SERVICES: [&str; 4] = [
    "moby.buildkit.v1.Control",
    "moby.buildkit.v1.frontend.LLBBridge",
    "grpc.health.v1.Health",
    "opentelemetry.proto.collector.trace.v1.TraceService",
];

/// How a blob is called: this, and 64 digits.
const DIGEST: &[u8] = b"sha256:";
const DIGEST_BYTES: usize = DIGEST.len() + 64;

/// What is known of a tenant's builds, by all its connections.
pub(super) struct Known {
    refused: Mutex<VecDeque<(String, Status)>>,
    blobs: Mutex<HashSet<Vec<u8>>>,
    held: Semaphore,
}

impl Default for Known {
    fn default() -> Self {
        Self { refused: Mutex::default(), blobs: Mutex::default(), held: Semaphore::new(HELD) }
    }
}

/// Serves a connection.
pub(super) async fn serve<S>(stream: S, upstream: &Arc<Upstream>, known: &Arc<Known>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let to = upstream.clone();
    let known = known.clone();
    proxy::serve(stream, upstream, CALLS, move |call| {
        let (upstream, known) = (to.clone(), known.clone());
        async move { known.answer(call, &upstream).await.unwrap_or_else(Into::into) }
    })
    .await;
}

impl Known {
    async fn answer(self: &Arc<Self>, call: Request<Incoming>, upstream: &Upstream) -> Result<Response<Body>, Status> {
        let (service, method) = split(call.uri().path());
        match (service, method) {
            ("moby.buildkit.v1.Control", "Solve") => {
                let (head, message) = self.hold(call).await?;
                let edited = solve::control(&message).map_err(Status::from);
                let edited = edited.inspect_err(|status| self.refuse(&message, status))?;
                Ok(upstream.call(with(head, &edited)).await)
            }
            ("moby.buildkit.v1.frontend.LLBBridge", _) => {
                self.check(call.headers())?;
                if method != "Solve" {
                    return Ok(upstream.call(call.map(boxed)).await);
                }
                let (head, message) = self.hold(call).await?;
                Ok(upstream.call(with(head, &solve::gateway(&message)?)).await)
            }
            ("moby.buildkit.v1.Control", "ListenBuildHistory") => {
                let answer = upstream.call(call.map(boxed)).await;
                Ok(answer.map(|body| boxed(Noting { body, known: self.clone(), tail: Vec::new() })))
            }
            ("containerd.services.content.v1.Content", "Read" | "Info") => {
                let (head, message) = self.hold(call).await?;
                let digest = wire::text_of(&message, 1)?;
                if !lock(&self.blobs).contains(digest.as_bytes()) {
                    // In containerd's words.
                    return Err(Status::new(Code::NotFound, format!("content {digest}: not found")));
                }
                Ok(upstream.call(with(head, &message)).await)
            }
            (service, _) if SERVICES.contains(&service) => Ok(upstream.call(call.map(boxed)).await),
            _ => Err(Status::new(Code::Unimplemented, format!("unknown service {service}"))),
        }
    }

    /// Reads the one message of a call.
    async fn hold(&self, call: Request<Incoming>) -> Result<(http::request::Parts, Bytes), Status> {
        let (head, body) = call.into_parts();
        let read = async {
            let _place = self.held.acquire().await;
            read_message(body).await
        };
        let late = |_| Status::new(Code::Unavailable, "the request does not come to its end");
        Ok((head, tokio::time::timeout(HELD_LIMIT, read).await.map_err(late)??))
    }

    /// Remembers a build that was refused: buildkitd would let its other calls wait for it.
    fn refuse(&self, message: &[u8], status: &Status) {
        let Ok(build) = solve::reference(message) else { return };
        let mut refused = lock(&self.refused);
        if refused.len() == REFUSED {
            refused.pop_front();
        }
        refused.push_back((build, status.clone()));
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let build = headers.get(BUILD).and_then(|build| build.to_str().ok()).unwrap_or_default();
        let refused = lock(&self.refused);
        let found = refused.iter().find(|(refused, _)| refused == build);
        found.map_or(Ok(()), |(_, status)| Err(status.clone()))
    }

    /// Remembers the blobs that an answer names.
    fn note(&self, bytes: &[u8]) {
        let mut blobs = lock(&self.blobs);
        for at in memchr::memmem::find_iter(bytes, DIGEST) {
            let Some(digest) = bytes.get(at..at + DIGEST_BYTES) else { return };
            if digest[DIGEST.len()..].iter().all(u8::is_ascii_hexdigit) {
                if blobs.len() == BLOBS {
                    blobs.clear();
                }
                blobs.insert(digest.to_owned());
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Service and method of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default()
}

/// A call with another message.
pub(super) fn with(mut head: http::request::Parts, message: &[u8]) -> Request<Body> {
    head.headers.remove(http::header::CONTENT_LENGTH);
    Request::from_parts(head, boxed(Full::new(framed(message))))
}

/// A body that is read as it goes by.
struct Noting {
    body: Body,
    known: Arc<Known>,
    /// The end of what went by, in which a digest may have begun.
    tail: Vec<u8>,
}

impl HttpBody for Noting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            let this = &mut *self;
            this.tail.extend_from_slice(bytes);
            this.known.note(&this.tail);
            let begin = this.tail.len().saturating_sub(DIGEST_BYTES - 1);
            this.tail.drain(..begin);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn blobs_that_an_answer_names_are_known_however_it_comes() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let text = format!("….{digest}.sha256:short.{}", &digest[..70]);
        for size in [1, 7, 64, 1000] {
            let known = Arc::new(Known::default());
            let chunks: Vec<_> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let frames = chunks.into_iter().map(|chunk| Ok::<_, BodyError>(Frame::data(chunk)));
            let body = boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames)));
            let read = Noting { body, known: known.clone(), tail: Vec::new() }.collect().await.unwrap().to_bytes();
            assert_eq!(read, text.as_bytes());
            assert_eq!(lock(&known.blobs).iter().collect::<Vec<_>>(), [digest.as_bytes()]);
        }
    }

    #[test]
    fn calls_of_a_refused_build_end_with_its_reason() {
        let known = Known::default();
        let (mut message, status) = (Vec::new(), Status::new(Code::PermissionDenied, "no"));
        wire::put(&mut message, 1, b"build1");
        known.refuse(&message, &status);
        let of = |build: &str| HeaderMap::from_iter([(BUILD.parse().unwrap(), build.parse().unwrap())]);
        assert_eq!(known.check(&of("build1")), Err(status));
        assert_eq!(known.check(&of("build2")), Ok(()));
        for n in 0..REFUSED {
            let mut message = Vec::new();
            wire::put(&mut message, 1, n.to_string().as_bytes());
            known.refuse(&message, &Status::new(Code::PermissionDenied, "no"));
        }
        assert_eq!(known.check(&of("build1")), Ok(()), "the oldest is forgotten");
    }
}
