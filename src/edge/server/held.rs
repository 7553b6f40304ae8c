//! What the clients of one listener make the daemon hold: what is large, and answers that nobody reads.

use std::sync::Arc;

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{edge::error, model::limits, work::Carried};

/// The bounds of one listener.
#[derive(Clone, Debug)]
pub struct Held {
    large: Arc<Semaphore>,
    /// Bytes.
    answers: Arc<Semaphore>,
    most: usize,
}

impl Default for Held {
    fn default() -> Self {
        Self::new(Semaphore::MAX_PERMITS)
    }
}

impl Held {
    /// With so many bytes of answers that are not read.
    pub fn new(answers: usize) -> Self {
        Self {
            large: Arc::new(Semaphore::new(limits::LARGE_REQUESTS)),
            answers: Arc::new(Semaphore::new(answers)),
            most: answers,
        }
    }

    /// What a request through the listener carries: who sends or asks for something large, or has slow work done with it, holds up nobody
    /// behind another listener.
    pub fn carried(&self) -> Carried {
        Carried::of(self.large.clone())
    }

    /// The same answer, which counts until it is read; 503 if too much is unread already. One alone may have any length.
    pub async fn until_read(&self, answer: Response) -> Response {
        let length = answer.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| *length > limits::SMALL_ANSWER) else { return answer };
        let counted = u32::try_from(length.min(self.most)).unwrap_or(u32::MAX);
        let Ok(place) = self.answers.clone().try_acquire_many_owned(counted) else {
            let text = "too many large answers of this socket are not read yet";
            return error::message(StatusCode::SERVICE_UNAVAILABLE, text);
        };
        let (parts, body) = answer.into_parts();
        match body.collect().await {
            Ok(whole) => {
                let counted = Counted { bytes: whole.to_bytes(), _place: place };
                Response::from_parts(parts, Body::from(Bytes::from_owner(counted)))
            }
            Err(error) => error::message(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

/// Bytes of an answer: what is written out of them holds them, and with them their place.
struct Counted {
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_count_until_their_bytes_are_gone() {
        let held = Held::new(limits::JOB_ANSWERS);
        let answer = |length: usize| Response::new(Body::from(vec![b'x'; length]));
        let unread = held.until_read(answer(limits::JOB_ANSWERS * 2)).await;
        assert_eq!(held.until_read(answer(limits::SMALL_ANSWER)).await.status(), StatusCode::OK);
        let refused = held.until_read(answer(limits::SMALL_ANSWER + 1)).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        let bytes = unread.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), limits::JOB_ANSWERS * 2);
        assert_eq!(held.until_read(answer(1 << 20)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(bytes);
        assert_eq!(held.until_read(answer(1 << 20)).await.status(), StatusCode::OK);
    }
}
