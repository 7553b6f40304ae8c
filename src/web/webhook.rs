//! `POST /webhook/{forge}`: deliveries of forges. Anybody can send one, so that little is read, for a short time, and by few at once.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::WebState;
use crate::{
    edge::{error, extract::Path},
    supervisor::hooks::Delivery,
};

/// The longest body: those of jobs have some 20 KiB.
const LONGEST: usize = 1 << 20;

/// How long one may take to come.
const LIMIT: Duration = Duration::from_secs(10);

/// Bodies that are read at once; together they are held in memory.
pub(super) const AT_ONCE: usize = 32;

/// `POST /webhook/{forge}`: 202 for one that is taken, also when it has come before or tells nothing of jobs.
pub(super) async fn take(State(state): State<WebState>, Path(forge): Path, request: Request<Body>) -> Response {
    let Some(supervisor) = &state.supervisor else {
        return error::message(StatusCode::NOT_FOUND, "this daemon has no forge");
    };
    let (parts, body) = request.into_parts();
    let body = match read(&state, &parts.headers, body).await {
        Ok(body) => body,
        Err((status, why)) => return error::message(status, why),
    };
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let delivery = Delivery {
        signature: text("x-hub-signature-256"),
        event: text("x-github-event"),
        number: text("x-github-delivery"),
        is_form: text(header::CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")),
        body: &body,
    };
    match supervisor.hear(&forge, &delivery) {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(error) => error.into_response(),
    }
}

async fn read(state: &WebState, headers: &HeaderMap, body: Body) -> Result<Bytes, (StatusCode, &'static str)> {
    let too_long = (StatusCode::PAYLOAD_TOO_LARGE, "the delivery is longer than 1 MiB");
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > LONGEST as u64) {
        return Err(too_long);
    }
    let _place = state
        .bodies
        .try_acquire()
        .map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "too many deliveries at once: send it again"))?;
    match tokio::time::timeout(LIMIT, Limited::new(body, LONGEST).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the delivery breaks off")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the delivery does not come to its end")),
    }
}
