//! Towards clients: the calls of a `/grpc` connection. What belongs to buildkitd goes through as it is, but for builds, which are read
//! and changed ([`solve`]).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

use super::{
    grpc::{self, Body, Code, Status, boxed, framed, read_message},
    proxy::{self, Upstream},
    results::Results,
    solve,
};
use crate::{
    backend::builds::{Asked, BuildTenant, Told},
    model::{ErrorKind, Result, policy::Key},
};

/// Calls of one connection at once. A build has a handful.
const CALLS: u32 = 100;

/// Requests that are held whole at once, for all connections of a tenant, and how long one may take to come.
const HELD: usize = 4;
const HELD_LIMIT: Duration = Duration::from_secs(60);

/// Builds that were refused and whose other calls are still to come.
const REFUSED: usize = 256;

/// By which a gateway's call names its build.
const BUILD: &str = "buildkit-controlapi-buildid";

/// Services that go through.
const SERVICES: [&str; 4] = [
    "moby.buildkit.v1.Control",
    "moby.buildkit.v1.frontend.LLBBridge",
    "grpc.health.v1.Health",
    "opentelemetry.proto.collector.trace.v1.TraceService",
];

/// What is known of a tenant's builds, by all its connections.
pub(super) struct Known {
    rules: Arc<dyn BuildTenant>,
    pub(super) results: Arc<Results>,
    refused: Mutex<VecDeque<(String, Status)>>,
    held: Semaphore,
}

/// Serves a connection.
pub(super) async fn serve<S>(stream: S, upstream: &Arc<Upstream>, known: &Arc<Known>, told: Told)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let to = upstream.clone();
    let known = known.clone();
    proxy::serve(stream, upstream, CALLS, move |call| {
        let (upstream, known, told) = (to.clone(), known.clone(), told.clone());
        async move { known.answer(call, &upstream, &told).await.unwrap_or_else(Into::into) }
    })
    .await;
}

impl Known {
    pub(super) fn of(tenant: Arc<dyn BuildTenant>) -> Self {
        Self {
            results: Arc::new(Results::of(tenant.clone())),
            rules: tenant,
            refused: Mutex::default(),
            held: Semaphore::new(HELD),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        call: Request<Incoming>,
        upstream: &Upstream,
        told: &Told,
    ) -> Result<Response<Body>, Status> {
        let (service, method) = split(call.uri().path());
        match (service, method) {
            ("moby.buildkit.v1.Control", "Solve") => {
                let (head, message) = self.hold(call).await?;
                self.build(head, &message, upstream, told).await
            }
            ("moby.buildkit.v1.frontend.LLBBridge", _) => {
                self.check(call.headers())?;
                if method != "Solve" {
                    return Ok(upstream.call(call.map(boxed)).await);
                }
                let (head, message) = self.hold(call).await?;
                Ok(upstream.call(with(head, &solve::gateway(&message)?)).await)
            }
            // Of the history: what buildkitd has is its tenant's alone.
            ("containerd.services.content.v1.Content", "Read" | "Info") => Ok(upstream.call(call.map(boxed)).await),
            (service, _) if SERVICES.contains(&service) => Ok(upstream.call(call.map(boxed)).await),
            _ => Err(Status::new(Code::Unimplemented, format!("unknown service {service}"))),
        }
    }

    /// A build, which is answered when it has ended. It is told of then, also if its client has left.
    async fn build(
        &self,
        head: http::request::Parts,
        message: &[u8],
        upstream: &Upstream,
        told: &Told,
    ) -> Result<Response<Body>, Status> {
        let mut telling = Telling::of(solve::names(message)?, told);
        let edited = solve::control(message, self.rules.as_ref()).map_err(|error| {
            telling.failed(Some(error.kind()), error.refused_by());
            let status = Status::from(error);
            self.refuse(message, &status);
            status
        })?;
        let _building = self.results.begin(Some(told));
        let answer = upstream.call(with(head, &edited)).await;
        let settled = self.results.settle().await;
        let has_failed = settled.is_err() || grpc::has_failed(&answer);
        telling.failed(has_failed.then_some(ErrorKind::System), None);
        settled?;
        Ok(answer)
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
}

/// Tells of a build when it is dropped.
struct Telling<'a> {
    asked: Asked,
    told: &'a Told,
}

impl<'a> Telling<'a> {
    /// Of one whose client leaves, unless something else is said.
    fn of(names: String, told: &'a Told) -> Self {
        let failed = Some(ErrorKind::Unavailable);
        Self { asked: Asked { is_step: false, names, begun: Instant::now(), failed, refused_by: None }, told }
    }

    fn failed(&mut self, failed: Option<ErrorKind>, refused_by: Option<Key>) {
        (self.asked.failed, self.asked.refused_by) = (failed, refused_by);
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        (self.told)(self.asked.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::{steps::tests::Tenant as Nobody, wire};

    #[test]
    fn calls_of_a_refused_build_end_with_its_reason() {
        let known = Known::of(Arc::new(Nobody::default()));
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
