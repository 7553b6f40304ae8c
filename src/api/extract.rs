//! What handlers take out of a request besides query and body: who is asking and about what.

use axum::extract::FromRequestParts;
use http::request::Parts;

pub use crate::edge::extract::{ClientGone, Path, Peer};
use crate::model::{Error, id::Tenant};

/// The tenant is the listener's. A request without one is refused: the scope must never be guessed.
impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Error::system("the listener has no tenant"))
    }
}
