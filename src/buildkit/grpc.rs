//! gRPC as far as one must know it who stands between its ends: messages in frames, and how a call ends without one.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Body as HttpBody;

use crate::model::{Error, ErrorKind, Result, limits};

/// The largest message, which is buildkitd's own limit.
pub(super) const MESSAGE_BYTES: usize = 16 << 20;

/// What stands before each message: whether it is packed, and its length.
const HEAD_BYTES: usize = 5;

/// What a body of ours may fail with.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or an answer on its way through.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Any body as one of ours.
pub(super) fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}

/// How a call ends that nobody carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    code: u8,
    message: String,
}

impl Status {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as u8, message: message.into() }
    }
}

/// gRPC's numbers for what we say.
#[derive(Clone, Copy, Debug)]
pub(super) enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::InvalidParameter => Code::InvalidArgument,
            ErrorKind::Conflict | ErrorKind::NotModified => Code::AlreadyExists,
            ErrorKind::Unauthorized => Code::Unauthenticated,
            ErrorKind::Forbidden => Code::PermissionDenied,
            ErrorKind::NotImplemented => Code::Unimplemented,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::System => Code::Unknown,
        };
        Self::new(code, error.chain())
    }
}

/// Whether an answer says in its headers that its call has failed, as one without a message does.
pub(super) fn has_failed(answer: &Response<Body>) -> bool {
    answer.headers().get("grpc-status").is_some_and(|status| status != "0")
}

/// gRPC's short form of an error: headers alone.
impl From<Status> for Response<Body> {
    fn from(status: Status) -> Self {
        let mut response = Response::new(boxed(Empty::new()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        headers.insert("grpc-status", HeaderValue::from(u16::from(status.code)));
        headers.insert("grpc-message", percent_encoded(&status.message));
        response
    }
}

pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The answer to a call with one message.
pub(super) fn answer(message: &[u8]) -> Response<Body> {
    let trailers =
        http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body = Full::new(framed(message)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(boxed(body));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// A header holds printable ASCII; gRPC writes everything else, and the percent sign, as in URLs.
fn percent_encoded(message: &str) -> HeaderValue {
    let mut text = String::new();
    for byte in limits::shown(message, limits::SHOWN).bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&text).expect("printable ASCII")
}

/// A message with its frame.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("messages are smaller than 4 GiB"));
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Takes messages out of the bytes that come.
#[derive(Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    /// More bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message, once it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((head, rest)) = self.0.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        if head[0] != 0 {
            return Err(Status::new(Code::Unimplemented, "packed messages are not read here"));
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MESSAGE_BYTES {
            return Err(Status::new(Code::InvalidArgument, format!("a message is larger than {MESSAGE_BYTES} bytes")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.0.advance(HEAD_BYTES);
        Ok(Some(self.0.split_to(length).freeze()))
    }

    /// What has come after the last message.
    pub(super) fn rest(self) -> Bytes {
        self.0.freeze()
    }

    /// Whether something is left that is no whole message.
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The one message of a call that has one.
pub(super) async fn read_message<B>(body: B) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display>,
{
    let mut body = std::pin::pin!(body);
    let (mut frames, mut message) = (Frames::default(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::new(Code::Unavailable, format!("the call broke off: {error}")))?;
        let Some(bytes) = frame.data_ref() else { continue };
        frames.push(bytes);
        while let Some(found) = frames.next()? {
            if message.replace(found).is_some() {
                return Err(Status::new(Code::InvalidArgument, "a call of one message has two"));
            }
        }
    }
    message.filter(|_| frames.is_empty()).ok_or_else(|| Status::new(Code::InvalidArgument, "the message breaks off"))
}

/// The message of an answer that has one, or why there is none.
pub(super) async fn unary(answer: Response<Body>) -> Result<Bytes> {
    let message = read_message(Full::new(whole(answer).await?)).await;
    message.map_err(|status| Error::system(status.message))
}

/// Gives each message of an answer that is a stream of them to `take`, as it comes.
pub(super) async fn each_message(answer: Response<Body>, mut take: impl FnMut(Bytes) -> Result<()>) -> Result<()> {
    failure(answer.headers())?;
    let (mut body, mut frames) = (answer.into_body(), Frames::default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken_off)?;
        if let Some(trailers) = frame.trailers_ref() {
            failure(trailers)?;
        }
        frames.push(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        while let Some(message) = frames.next().map_err(|status| Error::system(status.message))? {
            take(message)?;
        }
    }
    Ok(())
}

fn broken_off(error: BodyError) -> Error {
    Error::unavailable(format!("the call broke off: {error}"))
}

/// All bytes of an answer, or why it failed.
async fn whole(answer: Response<Body>) -> Result<Bytes> {
    failure(answer.headers())?;
    let collected = answer.into_body().collect().await.map_err(broken_off)?;
    if let Some(trailers) = collected.trailers() {
        failure(trailers)?;
    }
    Ok(collected.to_bytes())
}

/// What a status says, if it is not success.
fn failure(headers: &http::HeaderMap) -> Result<()> {
    let of = |name: &str| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    match of("grpc-status") {
        b"" | b"0" => Ok(()),
        _ => Err(Error::system(percent_decoded(of("grpc-message")))),
    }
}

fn percent_decoded(text: &[u8]) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_pieces() {
        let mut frames = Frames::default();
        let bytes = [framed(b"one"), framed(b""), framed(b"two")].concat();
        let mut found = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            found.extend(frames.next().unwrap());
        }
        assert_eq!(found, [&b"one"[..], b"", b"two"]);
        assert!(frames.is_empty());
    }

    #[test]
    fn what_is_packed_or_too_large_is_refused() {
        for head in [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1]] {
            let mut frames = Frames::default();
            frames.push(&head);
            assert!(frames.next().is_err());
        }
    }

    #[tokio::test]
    async fn a_stream_is_taken_message_by_message_and_fails_with_its_last_word() {
        let frames = |status: &'static str| {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            let data = [framed(b"one"), framed(b"two")].map(hyper::body::Frame::data);
            let frames = data.into_iter().chain([hyper::body::Frame::trailers(trailers)]).map(Ok::<_, BodyError>);
            Response::new(boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames))))
        };
        for (status, is_success) in [("0", true), ("2", false)] {
            let mut taken = Vec::new();
            let ended = each_message(frames(status), |message| {
                taken.push(message);
                Ok(())
            });
            assert_eq!(ended.await.is_ok(), is_success);
            assert_eq!(taken, ["one", "two"]);
        }
    }

    #[tokio::test]
    async fn a_call_has_one_message() {
        let read = |bytes: Vec<u8>| read_message(Full::new(Bytes::from(bytes)));
        assert_eq!(read(framed(b"x").to_vec()).await.unwrap(), "x");
        for wrong in [Vec::new(), [framed(b"x"), framed(b"y")].concat(), framed(b"xy")[..6].to_vec()] {
            assert!(read(wrong).await.is_err());
        }
    }

    #[test]
    fn a_status_is_a_header() {
        let response: Response<Body> = Status::from(Error::forbidden("100 % ü\n")).into();
        assert_eq!(response.headers()["grpc-message"], "100 %25 %C3%BC%0A");
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(percent_decoded(response.headers()["grpc-message"].as_bytes()), "100 % ü\n");
        assert_eq!(percent_decoded(b"50% %zz %4"), "50% %zz %4");
    }
}
