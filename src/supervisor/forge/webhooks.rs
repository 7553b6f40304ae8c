//! The webhooks that a forge has, as far as ringer makes its own there. Gitea's calls and answers are GitHub's but for a few words.

use async_trait::async_trait;
use serde::Deserialize;

use crate::{
    model::{Error, Result},
    supervisor::{hooks::EVENT, secret::Secret},
};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The forge's number of it.
    pub id: i64,
    /// Where it is: what of the API comes before `/hooks`.
    pub place: String,
    /// Where it sends to.
    pub url: String,
    /// Whether it tells of jobs: somebody may have switched it off, or that event.
    pub tells: bool,
}

impl Webhook {
    /// Whether it is the one that was made, and still tells of jobs.
    pub fn holds(&self, made: &Self) -> bool {
        self.tells && (self.id, &self.place, &self.url) == (made.id, &made.place, &made.url)
    }
}

/// Of a place that is gone, or that the token sees nothing of.
pub fn not_shown(error: &Error) -> Error {
    Error::not_found(error.chain())
}

/// Where webhooks are made.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Where one has to be so that it tells of all jobs that we run.
    async fn places(&self) -> Result<Vec<String>>;

    /// All that are at a place, whoever's they are.
    async fn list(&self, place: &str) -> Result<Vec<Webhook>>;

    /// Makes one that tells `url` of jobs, signed with `secret`, which nobody can read there.
    async fn make(&self, place: &str, url: &str, secret: &Secret) -> Result<Webhook>;

    /// Removes one; it being gone is no error.
    async fn remove(&self, webhook: &Webhook) -> Result<()>;
}

/// One as both list it.
#[derive(Deserialize)]
pub struct Listed {
    id: i64,
    active: Option<bool>,
    events: Option<Vec<String>>,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    url: Option<String>,
}

impl Listed {
    /// One of a place.
    pub fn into_webhook(self, place: &str) -> Webhook {
        let has_event = self.events.is_none_or(|events| events.iter().any(|event| event == EVENT));
        Webhook {
            id: self.id,
            place: place.to_owned(),
            url: self.config.and_then(|config| config.url).unwrap_or_default(),
            tells: has_event && self.active != Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_switched_off_is_not_as_it_was_made() {
        let listed = |json: &str| serde_json::from_str::<Listed>(json).unwrap().into_webhook("admin");
        let made = listed(r#"{"id": 1, "active": true, "events": ["workflow_job"], "config": {"url": "http://a"}}"#);
        assert!(made.tells && made.url == "http://a");
        for off in [r#""active": false"#, r#""active": true, "events": ["push"]"#] {
            let off = listed(&format!(r#"{{"id": 1, {off}, "config": {{"url": "http://a"}}}}"#));
            assert!(!off.holds(&made) && made.holds(&made));
        }
        assert_eq!(listed(r#"{"id": 1, "config": {"url": null}}"#).url, "");
        assert_eq!(listed(r#"{"id": 1, "events": null, "config": null}"#).url, "");
    }
}
