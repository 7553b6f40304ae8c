//! What handlers take out of a request besides query and body: who is asking and about what.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::ApiState;
pub use crate::edge::extract::{ClientGone, Path};
use crate::{
    engine::tenants::Scope,
    model::{Error, caller::Caller, id::TenantId},
};

/// The tenant is the listener's, the caller the connection's. A request without them is refused: the scope must never be
/// guessed.
impl FromRequestParts<ApiState> for Scope {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, Error> {
        let of_connection = (parts.extensions.get::<TenantId>(), parts.extensions.get::<Caller>());
        let (Some(tenant), Some(caller)) = of_connection else {
            return Err(Error::system("the connection does not say who asks"));
        };
        api.engine.tenants.get(tenant)?.admit(caller.clone())
    }
}
