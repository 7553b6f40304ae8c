//! GitHub's webhooks, of organisations and repositories (`orgs/list-webhooks`, `repos/create-webhook` and their like).

use async_trait::async_trait;
use http::StatusCode;
use serde_json::json;

use super::{GitHub, limits, segments};
use crate::{
    model::Result,
    supervisor::{
        forge::webhooks::{Listed, Webhook, Webhooks, not_shown},
        hooks::EVENT,
        secret::Secret,
    },
};

/// What a token has to be allowed at a place.
fn needs(place: &str) -> &'static str {
    if place.starts_with("orgs/") {
        "to make webhooks a classic one needs the scope admin:org_hook, a fine-grained one or an App the organisation's permission \
         Webhooks: write"
    } else {
        "to make webhooks a classic one needs the scope repo, a fine-grained one or an App the repository's permission Webhooks: write"
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

    async fn list(&self, place: &str) -> Result<Vec<Webhook>> {
        let listed = self.hub.pages(&format!("{place}/hooks"), |all: Vec<Listed>| all).await;
        let listed = listed.map_err(|failure| {
            let is_hidden = failure.status() == Some(StatusCode::NOT_FOUND);
            let error = self.refused_without(failure, needs(place));
            if is_hidden { not_shown(&error) } else { error }
        })?;
        Ok(listed.into_iter().map(|listed| listed.into_webhook(place)).collect())
    }

    async fn make(&self, place: &str, url: &str, secret: &Secret) -> Result<Webhook> {
        let config = json!({"url": url, "content_type": "json", "secret": secret.reveal(), "insecure_ssl": "0"});
        let webhook = json!({"name": "web", "active": true, "events": [EVENT], "config": config});
        let made = self.hub.post::<Listed>(limits::CORE, &format!("{place}/hooks"), &webhook).await;
        Ok(made.map_err(|failure| self.refused_without(failure, needs(place)))?.into_webhook(place))
    }

    async fn remove(&self, webhook: &Webhook) -> Result<()> {
        let Webhook { id, place, .. } = webhook;
        match self.hub.delete(&format!("{place}/hooks/{id}")).await {
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(()),
            other => other.map_err(|failure| self.refused_without(failure, needs(place))),
        }
    }
}
