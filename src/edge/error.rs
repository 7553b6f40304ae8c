//! The one place where kinds of errors become HTTP statuses.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::audit::Refused;
use crate::model::{Error, ErrorKind};

/// The status of a kind.
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The body of every error.
#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

/// `{"message":…}` with the newline that Go's encoder adds. The type is exactly `application/json`: Docker's
/// client compares it as a string and shows the raw body otherwise.
pub fn message(status: StatusCode, text: &str) -> Response {
    let mut body = serde_json::to_vec(&Message { message: text }).expect("a string is always JSON");
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = status(self.kind());
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR && !self.is_news() {
            tracing::error!("request failed: {}", self.chain());
        } else {
            tracing::debug!("request refused: {}", self.chain());
        }
        let mut response = message(status, self.message());
        if let Some(rule) = self.refused_by() {
            response.extensions_mut().insert(Refused(rule));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn errors_look_as_dockerds() {
        let response = Error::no_such_container("foo").into_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "{\"message\":\"No such container: foo\"}\n");
    }

    #[tokio::test]
    async fn not_modified_has_no_body() {
        let response = Error::not_modified("container already started").into_response();
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
