//! Blobs that buildkitd writes. containerd gives a blob of any of its namespaces, which is another tenant's, to whoever names its digest
//! before the first byte: so a digest that the builder does not have yet is kept back until its bytes have come.

use bytes::{BufMut, Bytes, BytesMut};
use containerd_client::services::v1::{InfoRequest, WriteAction, WriteContentRequest};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use prost::Message;

use super::{
    facade::NAMESPACE,
    grpc::{self, Body, BodyError, CONTENT_TYPE, Code, Frames, Status, boxed, framed},
    proxy::Upstream,
};

/// Passes a `Content/Write` on. Its first message names the blob, all others go through as they are: a digest that comes later is
/// compared with what was written.
pub(super) async fn write<B>(call: Request<B>, upstream: &Upstream) -> Result<Response<Body>, Status>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static,
{
    let (head, mut body) = call.into_parts();
    let (first, rest) = first_message(&mut body).await?;
    let mut first =
        WriteContentRequest::decode(first).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    // All clients ask first how much is there.
    if first.action() == WriteAction::Commit {
        return Err(Status::new(Code::InvalidArgument, "a blob is written before it is committed"));
    }
    if !first.expected.is_empty() && !has(upstream, &head.headers, &first.expected).await {
        first.expected.clear();
    }
    let mut begin = BytesMut::from(framed(&first.encode_to_vec()));
    begin.put(rest);
    let begin = stream::once(async { Ok::<_, BodyError>(Frame::data(begin.freeze())) });
    let body = begin.chain(BodyStream::new(body).map(|frame| frame.map_err(Into::into)));
    Ok(upstream.call(Request::from_parts(head, boxed(StreamBody::new(body)))).await)
}

/// The first message of a stream, and what came with it of the next ones.
async fn first_message<B>(body: &mut B) -> Result<(Bytes, Bytes), Status>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let mut frames = Frames::default();
    loop {
        if let Some(first) = frames.next()? {
            return Ok((first, frames.rest()));
        }
        match body.frame().await {
            Some(Ok(frame)) => frames.push(frame.data_ref().map(Bytes::as_ref).unwrap_or_default()),
            Some(Err(_)) | None => return Err(Status::new(Code::InvalidArgument, "the message breaks off")),
        }
    }
}

/// Whether the builder has a blob already.
async fn has(upstream: &Upstream, headers: &HeaderMap, digest: &str) -> bool {
    let asked = InfoRequest { digest: digest.to_owned() };
    let mut request = Request::post("/containerd.services.content.v1.Content/Info")
        .header(header::CONTENT_TYPE, CONTENT_TYPE)
        .header("te", "trailers")
        .body(boxed(Full::new(framed(&asked.encode_to_vec()))))
        .expect("a path of ours");
    request
        .headers_mut()
        .extend(headers.get(NAMESPACE).map(|name| (http::HeaderName::from_static(NAMESPACE), name.clone())));
    grpc::unary(upstream.call(request).await).await.is_ok()
}
