//! The webhook that a pool makes at its forge for itself, where `[http] public_url` says that the forge reaches us. Its address ends with the
//! instance's id, by which it is known as ours. Its secret is known to this pool and the forge alone, so the next life makes another one.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::{Pool, lock};
use crate::{
    model::{Result, error::Context},
    supervisor::{
        forge::webhooks::{Webhook, Webhooks},
        secret::Secret,
    },
};

/// Between two looks whether it is still there.
const TENDED: Duration = Duration::from_secs(3600);

/// What a pool has made.
#[derive(Default)]
pub(super) struct Made {
    webhooks: Vec<Webhook>,
    tended: Option<Instant>,
    trouble: Option<String>,
}

impl Made {
    pub fn is_there(&self) -> bool {
        !self.webhooks.is_empty()
    }
}

/// What deliveries of a webhook that we make are signed with.
pub(super) fn new_secret() -> Secret {
    Secret::new(crate::model::id::ContainerId::random().as_str())
}

impl Pool {
    /// By what our webhooks are known, whatever `public_url` was when they were made.
    fn mark(&self) -> String {
        format!("?by={}", self.shared.prefix().trim_end_matches('-'))
    }

    /// Whether it is ours to look after: made for this forge, or for one that is not configured any more.
    fn is_ours(&self, webhook: &Webhook) -> bool {
        let Some(name) = name_of(&webhook.url, &self.mark()) else { return false };
        let is_configured = || self.shared.settings().forges.iter().any(|forge| forge.name == name);
        name == self.settings.name || !is_configured()
    }

    /// Sees to it that there is one where it is to be, and no other one of ours. What fails is said once and tried again later: the forge is
    /// asked for its queue in any case.
    pub(super) async fn tend_webhooks(&self) {
        if lock(&self.made).tended.is_some_and(|tended| tended.elapsed() < TENDED) {
            return;
        }
        lock(&self.made).tended = Some(Instant::now());
        let Some(webhooks) = self.forge.webhooks() else { return };
        let Some(public_url) = &self.settings.public_url else {
            // The token may not even see them: then it has made none.
            if let Err(error) = self.sweep_webhooks().await {
                debug!(forge = self.settings.name, "webhooks of an earlier life are not looked for: {}", error.chain());
            }
            return;
        };
        let url = format!("{public_url}/webhook/{}{}", self.settings.name, self.mark());
        let trouble = self.make_webhooks(webhooks, &url).await.err().map(|error| error.chain());
        let mut made = lock(&self.made);
        if let Some(trouble) = trouble.as_ref().filter(|trouble| made.trouble.as_ref() != Some(trouble)) {
            let seconds = self.settings.poll_interval.as_secs();
            warn!(forge = self.settings.name, "no webhook, so the queue is looked at every {seconds} s: {trouble}");
        }
        made.trouble = trouble;
    }

    async fn make_webhooks(&self, webhooks: &dyn Webhooks, url: &str) -> Result<()> {
        let Some(secret) = &self.secret else { return Ok(()) };
        let mut first = Ok(());
        for place in webhooks.places().await? {
            let made = self.make_webhook(webhooks, &place, url, secret).await;
            first = first.and(made);
        }
        first
    }

    async fn make_webhook(&self, webhooks: &dyn Webhooks, place: &str, url: &str, secret: &Secret) -> Result<()> {
        let made: Vec<Webhook> = lock(&self.made).webhooks.iter().filter(|made| made.place == place).cloned().collect();
        let listed = webhooks.at(place).await?;
        // What is there from an earlier life is signed with what nobody knows any more.
        for old in listed.iter().filter(|listed| self.is_ours(listed) && !made.contains(listed)) {
            webhooks.remove(old).await?;
        }
        if made.iter().any(|made| listed.contains(made)) {
            return Ok(());
        }
        let made = webhooks.make(place, url, secret).await?;
        info!(forge = self.settings.name, "made the webhook {} at {place}, which tells {url} of jobs", made.id);
        let known = &mut lock(&self.made).webhooks;
        known.retain(|known| known.place != place);
        known.push(made);
        Ok(())
    }

    /// Removes all of ours; how many these were.
    pub async fn sweep_webhooks(&self) -> Result<usize> {
        let Some(webhooks) = self.forge.webhooks() else { return Ok(0) };
        let mut count = 0;
        for place in webhooks.places().await? {
            for webhook in webhooks.at(&place).await?.iter().filter(|webhook| self.is_ours(webhook)) {
                info!(forge = self.settings.name, "removing the webhook {} at {place}", webhook.id);
                webhooks.remove(webhook).await.context(format!("removing the webhook {} at {place}", webhook.id))?;
                count += 1;
            }
        }
        // Made anew when something is launched again.
        *lock(&self.made) = super::webhook::Made::default();
        Ok(count)
    }
}

/// The forge's name in the address of a webhook with this mark.
fn name_of<'u>(url: &'u str, mark: &str) -> Option<&'u str> {
    let (_, name) = url.strip_suffix(mark)?.rsplit_once("/webhook/")?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_webhook_is_known_by_its_mark_whatever_its_host() {
        let mark = "?by=ringer-12345678";
        for host in ["https://ci.example.org", "http://192.0.2.1:8080/below"] {
            assert_eq!(name_of(&format!("{host}/webhook/gitea{mark}"), mark), Some("gitea"));
        }
        for others in [
            "https://ci.example.org/webhook/gitea",
            "https://ci.example.org/webhook/gitea?by=ringer-87654321",
            "https://ci.example.org/hook/gitea?by=ringer-12345678",
            "",
        ] {
            assert_eq!(name_of(others, mark), None, "{others}");
        }
    }
}
