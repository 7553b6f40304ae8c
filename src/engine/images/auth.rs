//! `POST /auth`.

use crate::{
    engine::{Engine, tenants::Scope},
    model::{Result, registry_auth::RegistryAuth},
    policy::Asked,
    registry,
};

/// The registry takes the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginStatus {
    /// For the terminal.
    pub status: &'static str,
    /// A token to keep instead of the password; may be empty.
    pub identity_token: String,
}

impl Engine {
    /// Checks credentials at their registry. Nothing is kept: each call brings its own.
    pub async fn auth(&self, scope: &Scope, credentials: &RegistryAuth) -> Result<LoginStatus> {
        scope.permit(Asked::Registry(&registry::registry_of(&credentials.serveraddress)))?;
        let login = self.registry_for(scope).await?.login(credentials).await?;
        Ok(LoginStatus { status: "Login Succeeded", identity_token: login.identity_token })
    }
}
