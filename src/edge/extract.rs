//! What handlers take out of a request besides query and body: who is asking and about what.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use tokio_util::sync::CancellationToken;

use crate::model::Error;

/// The variable part of the path, percent-decoded: a container's, an image's, … id or name.
#[derive(Clone, Debug)]
pub struct Path<T = String>(pub T);

/// How the router hands over the variable part.
#[derive(Clone, Debug)]
pub(super) struct PathName(pub String);

impl<S: Sync, T: From<String>> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match parts.extensions.get::<PathName>() {
            Some(PathName(name)) => Ok(Self(T::from(name.clone()))),
            None => Err(Error::system("this route has no name in its path")),
        }
    }
}

/// Is cancelled when the client has closed the connection entirely. A half-close does not count: docker
/// CLI shuts its sending side down right after attach and goes on reading.
#[derive(Clone, Debug, Default)]
pub struct ClientGone(pub CancellationToken);

impl<S: Sync> FromRequestParts<S> for ClientGone {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
