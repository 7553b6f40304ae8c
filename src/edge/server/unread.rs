//! Bodies that a handler does not read to their end. Closing the connection then, as hyper does, breaks a client that
//! still sends: Go's gives up with "broken pipe" and never reads the answer. So the rest is read and forgotten for a
//! while; a client that has read the answer stops sending. dockerd gains the same by closing late.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

/// How long the next piece of what nobody wants may be waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a client may go on sending such pieces: on a busy machine a large body takes its time.
const LONGEST: Duration = Duration::from_secs(20);

/// A request's body.
struct Unread {
    incoming: Option<Incoming>,
    /// Whether the client sends it: one that waits for `100 Continue` does not before somebody reads.
    is_sent: bool,
    /// Where the rest is read: who drops the body may be a thread that only works on it.
    runtime: Handle,
}

/// The request as handlers get it.
pub(super) fn watch(request: Request<Incoming>) -> Request<Body> {
    let is_sent = !request.headers().contains_key(header::EXPECT);
    let runtime = Handle::current();
    request.map(|incoming| Body::new(Unread { incoming: Some(incoming), is_sent, runtime }))
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_sent = true;
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(mut rest) = self.incoming.take().filter(|rest| self.is_sent && !rest.is_end_stream()) else {
            return;
        };
        self.runtime.spawn(async move {
            let forget = async { while let Ok(Some(Ok(_))) = tokio::time::timeout(PATIENCE, rest.frame()).await {} };
            let _enough = tokio::time::timeout(LONGEST, forget).await;
        });
    }
}
