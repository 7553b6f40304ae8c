//! Where in the API of Gitea and Forgejo the jobs are that we run: the server's, an organisation's, or the token's user's.

use http::StatusCode;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::http::{Api, Refusal, segments};
use crate::{
    model::{Error, Result},
    supervisor::settings::ForgeSettings,
};

/// Found once.
pub struct Scope {
    url: String,
    owner: Option<String>,
    found: OnceCell<String>,
}

/// `GET /user`.
#[derive(Deserialize)]
struct User {
    login: String,
    #[serde(default)]
    is_admin: bool,
}

impl Scope {
    /// Of a forge that is configured.
    pub fn new(settings: &ForgeSettings) -> Self {
        Self { url: settings.url.clone(), owner: settings.owner.clone(), found: OnceCell::new() }
    }

    /// `admin`, `orgs/NAME` or `user`.
    pub async fn get(&self, api: &Api) -> Result<&str> {
        self.found.get_or_try_init(|| self.find(api)).await.map(String::as_str)
    }

    async fn find(&self, api: &Api) -> Result<String> {
        let user: User = api.get("api/v1/user").await.map_err(|refusal| self.token_refused(refusal))?;
        match &self.owner {
            None if user.is_admin => Ok("admin".to_owned()),
            None => Ok("user".to_owned()),
            Some(owner) if owner.eq_ignore_ascii_case(&user.login) => Ok("user".to_owned()),
            Some(owner) => {
                let path = format!("orgs/{}", segments(owner));
                match api.get::<serde_json::Value>(&format!("api/v1/{path}")).await {
                    Ok(_) => Ok(path),
                    Err(refusal) if refusal.status == Some(StatusCode::NOT_FOUND) => Err(Error::invalid(format!(
                        "owner {owner:?} is no organisation at {}, and the token is not that user's but {}'s",
                        self.url, user.login
                    ))),
                    Err(refusal) => Err(refusal.into()),
                }
            }
        }
    }

    fn token_refused(&self, refusal: Refusal) -> Error {
        match refusal.status {
            Some(StatusCode::UNAUTHORIZED) => Error::forbidden(format!(
                "{} does not take the token: it has to be an access token with the scopes read:user, write:admin (or \
                 write:organization with an owner) and write:repository",
                self.url
            ))
            .with_source(Error::from(refusal)),
            _ => refusal.into(),
        }
    }
}
