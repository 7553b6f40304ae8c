//! A containerd that has stopped answering is found out long before the limits of its slow calls are over.
//!
//! Those limits ([`super::limits`]) let a busy disk or a slow OCI runtime work; a containerd that hangs says nothing to
//! anybody. Whoever waits for long therefore asks it for its version now and then, which needs no database, no disk and no
//! shim. gRPC's own keepalive would do the same, but containerd's server takes a ping within five minutes of the last for an attack.

use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use containerd_client::{
    services::v1::version_client::VersionClient,
    tonic::{Status, body::Body, client::GrpcService, codegen::http, transport::Channel},
};
use futures_util::future::BoxFuture;
use tower::Service;

use super::limits::ANSWER;

/// When it is asked for by a call that follows on one that was in vain.
const SOON: Duration = Duration::from_secs(1);

/// A channel whose calls end when containerd says nothing any more. Clones share what is known of it.
#[derive(Clone, Debug)]
pub struct Watched {
    channel: Channel,
    is_silent: Arc<AtomicBool>,
}

impl Watched {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, is_silent: Arc::default() }
    }

    /// Ends when containerd is found silent.
    async fn until_silent(&self) {
        loop {
            let pause = if self.is_silent.load(Ordering::Relaxed) { SOON } else { ANSWER };
            tokio::time::sleep(pause).await;
            let mut version = VersionClient::new(self.channel.clone());
            let is_silent = tokio::time::timeout(ANSWER, version.version(())).await.is_err();
            self.is_silent.store(is_silent, Ordering::Relaxed);
            if is_silent {
                return;
            }
        }
    }
}

impl Service<http::Request<Body>> for Watched {
    type Response = http::Response<Body>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        GrpcService::poll_ready(&mut self.channel, context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // A stream whose first word comes late is none of this: nobody waits for it with a limit.
        let has_limit = request.headers().contains_key("grpc-timeout");
        let answer = GrpcService::call(&mut self.channel, request);
        if !has_limit {
            return Box::pin(async move { answer.await.map_err(Into::into) });
        }
        let watched = self.clone();
        Box::pin(async move {
            tokio::select! {
                answer = answer => {
                    if answer.is_ok() {
                        watched.is_silent.store(false, Ordering::Relaxed);
                    }
                    answer.map_err(Into::into)
                }
                () = watched.until_silent() => Err(Status::deadline_exceeded("context deadline exceeded").into()),
            }
        })
    }
}
