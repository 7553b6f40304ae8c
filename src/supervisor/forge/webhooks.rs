//! The webhooks that a forge has, as far as ringer makes its own there. Gitea's calls and answers are GitHub's but for a few words.

use async_trait::async_trait;
use serde::Deserialize;

use crate::{model::Result, supervisor::secret::Secret};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The forge's number of it.
    pub id: i64,
    /// Where it is: what of the API comes before `/hooks`.
    pub place: String,
    /// Where it sends to.
    pub url: String,
}

/// Where webhooks are made.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Where one has to be so that it tells of all jobs that we run.
    async fn places(&self) -> Result<Vec<String>>;

    /// All that are at a place, whoever's they are.
    async fn at(&self, place: &str) -> Result<Vec<Webhook>>;

    /// Makes one that tells `url` of jobs, signed with `secret`, which nobody can read there.
    async fn make(&self, place: &str, url: &str, secret: &Secret) -> Result<Webhook>;

    /// Removes one; it being gone is no error.
    async fn remove(&self, webhook: &Webhook) -> Result<()>;
}

/// One as both list it.
#[derive(Deserialize)]
pub struct Listed {
    id: i64,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    url: String,
}

impl Listed {
    /// One of a place.
    pub fn at(self, place: &str) -> Webhook {
        Webhook { id: self.id, place: place.to_owned(), url: self.config.url }
    }
}
