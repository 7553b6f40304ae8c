//! `POST /session`: a connection whose other end serves. buildkitd takes it as one call, `Control/Session`, whose messages are the
//! bytes of that connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt, channel::Channel};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    grpc::{BodyError, CONTENT_TYPE, Frames, boxed, framed},
    proxy::Upstream,
    wire,
};
use crate::model::{Error, Result};

/// Bytes of the connection in one message.
const CHUNK: usize = 32 << 10;

/// How headers begin that say whose session it is and what it serves.
const PREFIX: &str = "x-docker-expose-session-";

/// The field of a message that holds bytes.
const DATA: u32 = 1;

/// Carries bytes both ways until one end is gone.
pub(super) async fn carry<S>(stream: S, headers: &HeaderMap, upstream: &Upstream) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut sender, body) = Channel::<Bytes, BodyError>::new(1);
    let mut request = Request::post("/moby.buildkit.v1.Control/Session").body(boxed(body)).expect("a constant");
    // With all their values: what the client serves is one header for each method.
    let session = headers.iter().filter(|(name, _)| name.as_str().starts_with(PREFIX));
    request.headers_mut().extend(session.map(|(name, value)| (name.clone(), value.clone())));
    request.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    request.headers_mut().insert(HeaderName::from_static("te"), HeaderValue::from_static("trailers"));
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let up = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            match from_client.read(&mut chunk).await {
                // Dropping the body ends the call's one side, and with it the session.
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    let mut message = Vec::with_capacity(read + 8);
                    wire::put(&mut message, DATA, &chunk[..read]);
                    if sender.send_data(framed(&message)).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let down = async {
        let response = upstream.call(request).await;
        if let Some(message) = response.headers().get("grpc-message") {
            return Err(Error::unavailable(format!("the session was refused: {message:?}")));
        }
        let (mut body, mut frames) = (response.into_body(), Frames::default());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::unavailable(format!("the session broke off: {error}")))?;
            let Some(bytes) = frame.data_ref() else { continue };
            frames.push(bytes);
            while let Some(message) = frames.next().map_err(|_| Error::invalid("a message that is none"))? {
                for field in wire::fields(&message) {
                    let field = field?;
                    if let (DATA, Some(content)) = (field.number, field.content)
                        && to_client.write_all(content).await.is_err()
                    {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        () = up => Ok(()),
        ended = down => ended,
    }
}
