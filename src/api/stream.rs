//! Bodies that go on: frames of multiplexed output and lines of JSON. The head of such an answer is sent at once,
//! since Go's client waits for it before it goes on. A stream ends when its client is gone.

use std::{convert::Infallible, pin::Pin};

use axum::{body::Body, extract::FromRequestParts, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use serde::Serialize;

use super::{compat::ApiVersion, extract::ClientGone};
use crate::model::Error;

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Output {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the daemon in mid-stream.
    SystemError = 3,
}

/// Head of a frame of the multiplexed format (moby's stdcopy): the output's number and the length of what follows.
pub fn frame_head(output: Output, length: usize) -> [u8; 8] {
    let length = u32::try_from(length).expect("frames are cut below 4 GiB");
    let [a, b, c, d] = length.to_be_bytes();
    [output as u8, 0, 0, 0, a, b, c, d]
}

/// A whole frame.
pub fn frame(output: Output, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_slice(&frame_head(output, bytes.len()));
    frame.put_slice(bytes);
    frame.freeze()
}

/// Content type of a stream of output in answer to `GET`: logs.
pub fn output_content_type(version: ApiVersion, tty: bool) -> HeaderValue {
    HeaderValue::from_static(if !tty && version.names_multiplexed_streams() {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    })
}

/// 200 with a body of bytes as they come. An error in the stream breaks the connection off, so that the
/// client does not take the part for the whole.
pub fn bytes<S>(content_type: HeaderValue, gone: ClientGone, stream: S) -> Response
where
    S: Stream<Item = Result<Bytes, Error>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(until_gone(gone, stream)));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The framing of JSON messages. `application/json` is what dockerd calls objects one after the other since ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JsonFraming {
    /// `application/json`.
    Plain,
    /// `application/json` with the carriage return of the progress of pull, push, load and build.
    Progress,
    /// `application/jsonl`.
    Lines,
    /// `application/x-ndjson`.
    Ndjson,
    /// `application/json-seq`, RFC 7464: a record separator before each object.
    Sequence,
}

impl JsonFraming {
    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Plain | Self::Progress => "application/json",
            Self::Lines => "application/jsonl",
            Self::Ndjson => "application/x-ndjson",
            Self::Sequence => "application/json-seq",
        })
    }

    /// The first streaming type of the header; Docker's client names its favourite first.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
        let mut types = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
        types.find_map(|name| match name.to_ascii_lowercase().as_str() {
            "application/jsonl" => Some(Self::Lines),
            "application/x-ndjson" => Some(Self::Ndjson),
            "application/json-seq" => Some(Self::Sequence),
            _ => None,
        })
    }

    fn encode<T: Serialize>(self, message: &T) -> Result<Bytes, serde_json::Error> {
        let mut line = Vec::with_capacity(256);
        if self == Self::Sequence {
            line.push(0x1e);
        }
        serde_json::to_writer(&mut line, message)?;
        line.extend_from_slice(if self == Self::Progress { b"\r\n" } else { b"\n" });
        Ok(line.into())
    }
}

/// A stream of JSON objects for this client: what it accepts, and how to notice that it left.
#[derive(Clone, Debug)]
pub struct JsonStream {
    accepted: Option<JsonFraming>,
    version: ApiVersion,
    gone: ClientGone,
}

impl<S: Sync> FromRequestParts<S> for JsonStream {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            accepted: JsonFraming::accepted(&parts.headers),
            version: parts.extensions.get().copied().unwrap_or(ApiVersion::NEWEST),
            gone: parts.extensions.get().cloned().unwrap_or_default(),
        })
    }
}

impl JsonStream {
    /// For progress (pull, push, load, build): always `application/json`, lines end as dockerd's do. An error
    /// becomes the last message: `{"errorDetail":{"message":…},"error":…}`.
    pub fn progress<T, S>(self, messages: S) -> Response
    where
        T: Serialize + Send,
        S: Stream<Item = Result<T, Error>> + Send + 'static,
    {
        self.respond(JsonFraming::Progress, messages)
    }

    /// For `stats`, objects one after the other, without a type as dockerd sends them.
    pub fn objects<T, S>(self, messages: S) -> Response
    where
        T: Serialize + Send,
        S: Stream<Item = Result<T, Error>> + Send + 'static,
    {
        let mut response = self.respond(JsonFraming::Plain, messages);
        response.headers_mut().remove(header::CONTENT_TYPE);
        response
    }

    /// For `events`, framed as the client accepts it.
    pub fn negotiated<T, S>(self, messages: S) -> Response
    where
        T: Serialize + Send,
        S: Stream<Item = Result<T, Error>> + Send + 'static,
    {
        let usual = if self.version.calls_events_lines() { JsonFraming::Lines } else { JsonFraming::Plain };
        let framing = self.accepted.unwrap_or(usual);
        self.respond(framing, messages)
    }

    fn respond<T, S>(self, framing: JsonFraming, messages: S) -> Response
    where
        T: Serialize + Send,
        S: Stream<Item = Result<T, Error>> + Send + 'static,
    {
        let lines = messages.map(move |message| match message {
            Ok(message) => framing.encode(&message),
            Err(error) => framing.encode(&StreamError::from(&error)),
        });
        let mut response = Response::new(Body::from_stream(until_gone(self.gone, lines)));
        response.headers_mut().insert(header::CONTENT_TYPE, framing.content_type());
        response
    }
}

/// What stands in a stream of progress when the work fails after the head has been sent.
#[derive(Debug, Serialize)]
pub struct StreamError {
    #[serde(rename = "errorDetail")]
    detail: ErrorDetail,
    error: String,
}

#[derive(Debug, Serialize)]
struct ErrorDetail {
    message: String,
}

impl From<&Error> for StreamError {
    fn from(error: &Error) -> Self {
        let message = error.chain();
        Self { detail: ErrorDetail { message: message.clone() }, error: message }
    }
}

fn until_gone<S: Stream + Send + 'static>(
    ClientGone(gone): ClientGone,
    stream: S,
) -> Pin<Box<dyn Stream<Item = S::Item> + Send>> {
    Box::pin(stream.take_until(gone.cancelled_owned()))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn frames_carry_output_and_length() {
        assert_eq!(frame(Output::Stderr, b"hi"), Bytes::from_static(b"\x02\0\0\0\0\0\0\x02hi"));
    }

    async fn stream(accept: &str) -> JsonStream {
        let (mut parts, ()) = Request::get("/").header(header::ACCEPT, accept).body(()).unwrap().into_parts();
        let Ok(stream) = JsonStream::from_request_parts(&mut parts, &()).await;
        stream
    }

    async fn read(response: Response) -> (HeaderValue, Bytes) {
        let content_type = response.headers()[header::CONTENT_TYPE].clone();
        (content_type, response.into_body().collect().await.unwrap().to_bytes())
    }

    fn messages() -> impl Stream<Item = Result<i32, Error>> {
        stream::iter([Ok(1), Err(Error::system("no"))])
    }

    #[tokio::test]
    async fn progress_ends_with_the_error() {
        let (content_type, body) = read(stream("application/jsonl").await.progress(messages())).await;
        assert_eq!(content_type, "application/json");
        assert_eq!(body, "1\r\n{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\r\n");
    }

    #[tokio::test]
    async fn framing_of_events_follows_accept() {
        let go_client = "application/jsonl, application/x-ndjson;q=0.9, application/json-seq;q=0.5";
        for (accept, expected) in [
            (go_client, "application/jsonl"),
            ("*/*", "application/jsonl"),
            ("application/x-ndjson", "application/x-ndjson"),
        ] {
            let (content_type, _) = read(stream(accept).await.negotiated(messages())).await;
            assert_eq!(content_type, expected);
        }
        let (content_type, body) = read(stream("application/json-seq").await.negotiated(messages())).await;
        assert_eq!((content_type.to_str().unwrap(), body[0]), ("application/json-seq", 0x1e));
    }

    #[tokio::test]
    async fn stream_ends_when_the_client_is_gone() {
        let gone = ClientGone::default();
        let endless = bytes(HeaderValue::from_static("x/y"), gone.clone(), stream::pending());
        gone.0.cancel();
        assert!(endless.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
