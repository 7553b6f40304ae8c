//! Gitea's webhooks: of the server, an organisation or a user (`routers/api/v1/utils/hook.go`). A change of one does not change its secret
//! there, so nothing is changed: one is made, or removed.

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::json;

use super::{Refusal, Server};
use crate::{
    model::{Error, Result},
    supervisor::{
        forge::webhooks::{Listed, Webhook, Webhooks, not_shown},
        hooks::EVENT,
        secret::Secret,
    },
};

impl Server {
    fn webhooks_refused(&self, place: &str, refusal: Refusal) -> Error {
        match refusal.status {
            Some(status @ (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)) => {
                let scope = match place {
                    "admin" => "write:admin",
                    "user" => "write:user",
                    _ => "write:organization",
                };
                let error = Error::forbidden(format!(
                    "the token may not make webhooks at {}/{place}: it needs the scope {scope}",
                    self.url
                ))
                .with_source(Error::from(refusal));
                if status == StatusCode::NOT_FOUND { not_shown(&error) } else { error }
            }
            _ => self.token_refused(refusal),
        }
    }
}

#[async_trait]
impl Webhooks for Server {
    async fn places(&self) -> Result<Vec<String>> {
        Ok(vec![self.scope().await?.to_owned()])
    }

    async fn list(&self, place: &str) -> Result<Vec<Webhook>> {
        let listed = self.pages(&format!("api/v1/{place}/hooks?"), |all: Vec<Listed>| all).await;
        let listed = listed.map_err(|refusal| self.webhooks_refused(place, refusal))?;
        Ok(listed.into_iter().map(|listed| listed.into_webhook(place)).collect())
    }

    async fn make(&self, place: &str, url: &str, secret: &Secret) -> Result<Webhook> {
        let mut config = json!({"url": url, "content_type": "json", "secret": secret.reveal()});
        if place == "admin" {
            // Else it would be one that new repositories get.
            config["is_system_webhook"] = "true".into();
        }
        let webhook = json!({"type": "gitea", "active": true, "events": [EVENT], "config": config});
        let made = self.api.call::<Listed>(Method::POST, &format!("api/v1/{place}/hooks"), Some(&webhook)).await;
        Ok(made.map_err(|refusal| self.webhooks_refused(place, refusal))?.into_webhook(place))
    }

    async fn remove(&self, webhook: &Webhook) -> Result<()> {
        let Webhook { id, place, .. } = webhook;
        let removed = self.api.delete(&format!("api/v1/{place}/hooks/{id}")).await;
        removed.map_err(|refusal| self.webhooks_refused(place, refusal))
    }
}
