//! JSON request bodies, read as lenient and as strict as Go's decoder reads them: keys without regard to case,
//! `null` for "not given" anywhere, wrong types refused in Go's words. Keys that no field takes are collected, since
//! a field that is not carried out must be refused or answered in `Warnings`.

pub mod go_error;
mod lenient;

use axum::{body::Body, extract::FromRequest};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{
    model::{Error, json, limits},
    work::Carried,
};

/// A JSON body as a struct with `#[serde(default)]`. An empty body is all defaults, as with most of dockerd's
/// calls; [`JsonBody::required`] for the others.
#[derive(Debug)]
pub struct JsonBody<T> {
    /// What the body says.
    pub value: T,
    /// Paths of keys that no field took, `HostConfig.Foo`.
    pub unknown: Vec<String>,
    empty: bool,
}

impl<T> JsonBody<T> {
    /// Refuses an empty body.
    pub fn required(self) -> Result<Self, Error> {
        if self.empty { Err(eof()) } else { Ok(self) }
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Error> {
        let raw = RawBody::read(request).await?;
        let empty = raw.is_empty();
        let (value, unknown) = raw.parse()?;
        Ok(Self { value, unknown, empty })
    }
}

/// A JSON body of which several structs take their part (`Config` lies flat beside `HostConfig` in create).
#[derive(Debug)]
pub struct RawBody {
    /// JSON, nothing made of it; empty for an empty body.
    text: Bytes,
}

impl RawBody {
    async fn read(request: Request<Body>) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let bytes = bytes(body).await?;
        if !bytes.is_empty() {
            check_content_type(&parts.headers)?;
        }
        Self::of(bytes)
    }

    /// What was read.
    pub fn of(bytes: Bytes) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Ok(Self { text: bytes });
        }
        let text = bytes.slice_ref(bytes.trim_ascii());
        if text.is_empty() {
            return Err(eof());
        }
        json::check(&text, limits::BODY_VALUES).map_err(|error| error.context("invalid JSON"))?;
        serde_json::from_slice::<&RawValue>(&text).map_err(|error| go_error::syntax(&error, &text))?;
        Ok(Self { text })
    }

    /// Whether there was nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Refuses an empty body.
    pub fn required(self) -> Result<Self, Error> {
        if self.is_empty() { Err(eof()) } else { Ok(self) }
    }

    /// One struct's part, and the paths of the keys that it did not take.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<(T, Vec<String>), Error> {
        // Nothing at all leaves every field as it is, and so does `null`.
        let text = if self.is_empty() { &b"null"[..] } else { &self.text[..] };
        let value = serde_json::from_slice(text).map_err(|error| go_error::syntax(&error, text))?;
        lenient::from_raw(value).map_err(|text| Error::invalid(format!("invalid JSON: {text}")))
    }
}

impl<S: Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Error> {
        Self::read(request).await
    }
}

/// Keys that no field took, of a body that two structs read: at the top those that neither knows.
pub fn unknown_to_both(one: Vec<String>, other: Vec<String>) -> Vec<String> {
    let nested = |key: &String| key.contains('.');
    let mut unknown: Vec<String> = one.into_iter().filter(|key| nested(key) || other.contains(key)).collect();
    unknown.extend(other.into_iter().filter(nested));
    unknown
}

/// All of a body, one of a few of its listener if it is large.
async fn bytes(mut body: Body) -> Result<Bytes, Error> {
    let (mut bytes, mut is_large) = (BytesMut::new(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::invalid("reading the request body").with_source(error))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limits::BODY {
            return Err(Error::invalid("invalid JSON: request body too large"));
        }
        if bytes.len() + data.len() > limits::SMALL_BODY && !is_large {
            Carried::here().keep_place().await?;
            is_large = true;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn eof() -> Error {
    Error::invalid("invalid JSON: got EOF while reading request body")
}

/// Only for requests with a body: older clients send none of both.
fn check_content_type(headers: &HeaderMap) -> Result<(), Error> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(Error::invalid("malformed Content-Type header (): mime: no media type"));
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::invalid(format!("unsupported Content-Type header ({value}): must be 'application/json'")))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "PascalCase", default)]
    struct Example {
        image: String,
        tty: bool,
        memory: i64,
        env: Option<Vec<String>>,
        inner: Inner,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        memory: i64,
    }

    async fn read(content_type: Option<&str>, body: &'static str) -> Result<JsonBody<Example>, Error> {
        let mut request = Request::post("/");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        JsonBody::from_request(request.body(Body::from(body)).unwrap(), &()).await
    }

    async fn text_of_refusal(body: &'static str) -> String {
        read(Some("application/json"), body).await.unwrap_err().message().to_owned()
    }

    #[tokio::test]
    async fn keys_fit_without_regard_to_case_and_unknown_ones_are_named() {
        let body = r#"{"image":"x","INNER":{"MEMORY":7,"Foo":1},"Bogus":{"a":1},"Zero":{"b":""},"Tty":null}"#;
        let read = read(Some("application/json; charset=utf-8"), body).await.unwrap();
        assert_eq!(read.value.image, "x");
        assert_eq!(read.value.inner.memory, 7);
        assert_eq!(read.unknown, ["Bogus", "Inner.Foo"]);
    }

    #[tokio::test]
    async fn empty_body_is_defaults_unless_required() {
        let empty = read(None, "").await.unwrap();
        assert_eq!(empty.value, Example::default());
        assert_eq!(empty.required().unwrap_err().message(), "invalid JSON: got EOF while reading request body");
        assert_eq!(read(Some("application/json"), "{}\n").await.unwrap().required().unwrap().value, Example::default());
    }

    #[tokio::test]
    async fn content_type_is_checked_in_dockerds_words() {
        let error = read(Some("text/plain"), "{}").await.unwrap_err();
        assert_eq!(error.message(), "unsupported Content-Type header (text/plain): must be 'application/json'");
        let error = read(None, "{}").await.unwrap_err();
        assert_eq!(error.message(), "malformed Content-Type header (): mime: no media type");
    }

    #[tokio::test]
    async fn syntax_errors_are_told_in_gos_words() {
        for (body, text) in [
            ("{", "unexpected EOF"),
            ("{} {}", ""),
            (r#"{"Image" 3}"#, "invalid character '3' after object key"),
            (r#"{"Image":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
            (r#"{"Image":"a" 1}"#, "invalid character '1' after object key:value pair"),
            (r#"{"Image":"a",}"#, "invalid character '}' looking for beginning of object key string"),
            ("{3:1}", "invalid character '3' looking for beginning of object key string"),
            (r#"{"Env":[1,]}"#, "invalid character ']' looking for beginning of value"),
            (r#"{"Env":[1 2]}"#, "invalid character '2' after array element"),
            ("x", "invalid character 'x' looking for beginning of value"),
        ] {
            let expected = match text {
                "" => "unexpected content after JSON".to_owned(),
                text => format!("invalid JSON: {text}"),
            };
            assert_eq!(text_of_refusal(body).await, expected, "{body}");
        }
    }

    #[tokio::test]
    async fn wrong_types_are_told_in_gos_words() {
        for (body, text) in [
            (r#"{"Image":3}"#, "number into Go struct field .Image of type string"),
            (r#"{"Inner":{"Memory":"a"}}"#, "string into Go struct field .Inner.Memory of type int64"),
            (r#"{"Inner":{"Memory":1.5}}"#, "number 1.5 into Go struct field .Inner.Memory of type int64"),
            (r#"{"Env":{}}"#, "object into Go struct field .Env of type []string"),
            (r#"{"Tty":"yes"}"#, "string into Go struct field .Tty of type bool"),
        ] {
            assert_eq!(text_of_refusal(body).await, format!("invalid JSON: json: cannot unmarshal {text}"), "{body}");
        }
    }
}
