//! GitHub's webhooks, of organisations and repositories (`orgs/list-webhooks`, `repos/create-webhook` and their like).

use async_trait::async_trait;
use http::StatusCode;
use serde_json::json;

use super::{Failure, GitHub, limits, segments};
use crate::{
    model::{Error, Result},
    supervisor::{
        forge::webhooks::{Listed, Webhook, Webhooks},
        hooks::EVENT,
        secret::Secret,
    },
};

impl GitHub {
    /// GitHub says 404 also of what a token may not see.
    fn no_webhooks(&self, place: &str, failure: Failure) -> Error {
        let status = failure.status();
        let error = Error::from(failure);
        match status {
            Some(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                let (scope, whose) = if place.starts_with("orgs/") {
                    ("admin:org_hook", "organisation's")
                } else {
                    ("repo", "repository's")
                };
                Error::forbidden(format!(
                    "{} does not let the token make webhooks at {place}: a classic one needs the scope {scope}, a fine-grained one or an App \
                     the {whose} permission Webhooks: write",
                    self.settings.url
                ))
                .with_source(error)
            }
            _ => error,
        }
    }
}

#[async_trait]
impl Webhooks for GitHub {
    /// The organisation's, or those of the repositories whose jobs alone run.
    async fn places(&self) -> Result<Vec<String>> {
        match &self.settings.owner {
            Some(org) if self.settings.repositories.is_none() => Ok(vec![format!("orgs/{}", segments(org))]),
            _ => Ok(self.repositories().await?.iter().map(|name| format!("repos/{}", segments(name))).collect()),
        }
    }

    async fn at(&self, place: &str) -> Result<Vec<Webhook>> {
        let listed = self.hub.pages(&format!("{place}/hooks"), |all: Vec<Listed>| all).await;
        let listed = listed.map_err(|failure| self.no_webhooks(place, failure))?;
        Ok(listed.into_iter().map(|listed| listed.at(place)).collect())
    }

    async fn make(&self, place: &str, url: &str, secret: &Secret) -> Result<Webhook> {
        let config = json!({"url": url, "content_type": "json", "secret": secret.reveal(), "insecure_ssl": "0"});
        let webhook = json!({"name": "web", "active": true, "events": [EVENT], "config": config});
        let made = self.hub.post::<Listed>(limits::CORE, &format!("{place}/hooks"), &webhook).await;
        Ok(made.map_err(|failure| self.no_webhooks(place, failure))?.at(place))
    }

    async fn remove(&self, webhook: &Webhook) -> Result<()> {
        let Webhook { id, place, .. } = webhook;
        match self.hub.delete(&format!("{place}/hooks/{id}")).await {
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(()),
            other => other.map_err(|failure| self.no_webhooks(place, failure)),
        }
    }
}
