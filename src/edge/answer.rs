//! Plain answers: JSON as dockerd writes it.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::audit::Made;
use crate::model::Error;

/// A JSON body with Go's newline at its end; 200 unless it stands in a tuple with another status:
/// `(StatusCode::CREATED, Json(body))`.
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = match serde_json::to_vec(&self.0) {
            Ok(body) => body,
            Err(error) => return Error::system("encoding the answer").with_source(error).into_response(),
        };
        body.push(b'\n');
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// 201 with a JSON body, by whose id or name the audit log calls what was made.
pub fn created<T: Serialize>(body: T) -> Response {
    let body = match serde_json::to_value(body) {
        Ok(body) => body,
        Err(error) => return Error::system("encoding the answer").with_source(error).into_response(),
    };
    let made = ["Id", "Name", "id"].iter().find_map(|key| body[key].as_str()).map(|name| Made(name.to_owned()));
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    if let Some(made) = made {
        response.extensions_mut().insert(made);
    }
    response
}
