//! The webhook that a pool makes at its forge for itself, where `[http] public_url` says that the forge reaches us. Its address ends with the
//! instance's id, by which it is known as ours. Its secret is known to this pool and the forge alone, so the next life makes another one.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{Pool, lock};
use crate::{
    model::{Error, ErrorKind, Result},
    supervisor::{
        forge::webhooks::{Webhook, Webhooks},
        hook_places::HookPlace,
        hooks,
        secret::Secret,
    },
};

/// Between two looks whether it is still there, and after one that came to nothing.
const TENDED: Duration = Duration::from_secs(3600);
const RETRIED: Duration = Duration::from_secs(60);

/// What a pool has made.
#[derive(Default)]
pub(super) struct Made {
    webhooks: Vec<Webhook>,
    due: Option<Instant>,
    trouble: Option<String>,
}

impl Made {
    pub fn is_there(&self) -> bool {
        !self.webhooks.is_empty()
    }
}

impl Pool {
    /// Whether it is ours to look after: made for this forge, or for one that is not configured any more.
    fn is_ours(&self, webhook: &Webhook) -> bool {
        let Some(name) = name_of(&webhook.url, &self.shared.mark()) else { return false };
        let is_configured = || self.shared.settings().forges.iter().any(|forge| forge.name == name);
        name == self.settings.name || !is_configured()
    }

    /// Sees to it, beside the looks at the queue, that there is one where it is to be, and no other one of ours.
    pub(super) fn tend_webhooks(self: &Arc<Self>) {
        let is_due = lock(&self.made).due.is_none_or(|due| due <= Instant::now());
        let Ok(tending) = self.tending.clone().try_lock_owned() else { return };
        if !is_due {
            return;
        }
        let pool = self.clone();
        self.shared.tasks.spawn(async move {
            let made = pool.see_to_webhooks().await;
            pool.note_webhooks(made.err());
            drop(tending);
        });
    }

    /// What fails is said once and tried again later: the forge is asked for its queue in any case.
    fn note_webhooks(&self, error: Option<Error>) {
        let is_refused =
            error.as_ref().is_none_or(|error| matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::NotFound));
        let trouble = error.map(|error| error.chain());
        let mut made = lock(&self.made);
        if let Some(trouble) = trouble.as_ref().filter(|trouble| made.trouble.as_ref() != Some(trouble)) {
            let seconds = self.settings.poll_interval.as_secs();
            warn!(forge = self.settings.name, "no webhook, so the queue is looked at every {seconds} s: {trouble}");
        }
        made.trouble = trouble;
        made.due = Some(Instant::now() + if is_refused { TENDED } else { RETRIED });
    }

    async fn see_to_webhooks(&self) -> Result<()> {
        let (noted, mut failures) = (self.noted(), Vec::new());
        if self.settings.public_url.is_none() && noted.is_empty() {
            return Ok(());
        }
        let Some(webhooks) = self.forge.webhooks().await? else { return Ok(()) };
        let mut wanted = Vec::new();
        if let (Some(public_url), Some(secret)) = (&self.settings.public_url, &self.secret) {
            let url = hooks::address(public_url, &self.settings.name) + &self.shared.mark();
            wanted = webhooks.places().await?;
            for place in &wanted {
                // Another pool may have taken our place, or somebody be removing everything.
                if !self.launches() || self.shared.stop.is_cancelled() {
                    return all_of(failures);
                }
                failures.extend(self.make_webhook(webhooks, place, &url, secret).await.err());
            }
        }
        // What was configured before.
        for place in noted.iter().filter(|noted| !wanted.contains(noted)) {
            if let Err(error) = self.sweep_webhooks_at(webhooks, place).await {
                warn!(forge = self.settings.name, "removing what was made at {place} before: {}", error.chain());
            }
        }
        all_of(failures)
    }

    /// Of places that are noted, those that it looks after.
    fn is_its(&self) -> impl Fn(&HookPlace) -> bool + use<'_> {
        let all = self.shared.settings();
        move |noted| noted.is_of(&self.settings, &all.forges)
    }

    /// Where it has made some, also by an earlier configuration or in an earlier life.
    fn noted(&self) -> BTreeSet<String> {
        self.shared.hook_places.all(self.is_its()).into_iter().map(|noted| noted.place).collect()
    }

    /// Nothing of ours is there any more.
    fn forget_place(&self, place: &str) -> Result<()> {
        let is_its = self.is_its();
        let is_it = |noted: &HookPlace| noted.place == place && is_its(noted);
        self.shared.hook_places.all(is_it).iter().try_for_each(|noted| self.shared.hook_places.forget(noted))
    }

    async fn make_webhook(&self, webhooks: &dyn Webhooks, place: &str, url: &str, secret: &Secret) -> Result<()> {
        let known: Vec<Webhook> =
            lock(&self.made).webhooks.iter().filter(|made| made.place == place).cloned().collect();
        let listed = webhooks.list(place).await?;
        let is_known = |listed: &Webhook| known.iter().any(|known| listed.holds(known));
        // What is there from an earlier life is signed with what nobody knows any more.
        for old in listed.iter().filter(|listed| self.is_ours(listed) && !is_known(listed)) {
            webhooks.remove(old).await?;
        }
        if listed.iter().any(is_known) {
            return Ok(());
        }
        self.shared.hook_places.note(HookPlace::of(&self.settings, place))?;
        let new = match webhooks.make(place, url, secret).await {
            // A refusal is an answer; of a call that broke off nobody knows what came of it.
            Err(error) if error.kind() != ErrorKind::Unavailable => {
                self.forget_place(place)?;
                return Err(error);
            }
            made => made?,
        };
        info!(forge = self.settings.name, "made the webhook {} at {place}, which tells {url} of jobs", new.id);
        let made = &mut lock(&self.made).webhooks;
        made.retain(|made| made.place != place);
        made.push(new);
        Ok(())
    }

    /// Removes all of ours; how many these were. An error names those that cannot be asked for with this token.
    pub async fn sweep_webhooks(&self) -> Result<usize> {
        let _nobody_makes_one = self.tending.lock().await;
        let (places, mut count, mut failures) = (self.noted(), 0, Vec::new());
        if places.is_empty() {
            return Ok(0);
        }
        let Some(webhooks) = self.forge.webhooks().await? else {
            return self.shared.hook_places.forget_all(&self.shared.mark(), self.is_its()).map(|()| 0);
        };
        for place in places {
            match self.sweep_webhooks_at(webhooks, &place).await {
                Ok(removed) => count += removed,
                Err(error) => failures.push(error),
            }
        }
        // Made anew when something is launched again.
        *lock(&self.made) = Made::default();
        all_of(failures).map(|()| count)
    }

    async fn sweep_webhooks_at(&self, webhooks: &dyn Webhooks, place: &str) -> Result<usize> {
        let mut listed = match webhooks.list(place).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                warn!(
                    forge = self.settings.name,
                    "nothing of {place} is shown any more, so no webhook of ours is removed there: {}",
                    error.chain()
                );
                Vec::new()
            }
            listed => listed?,
        };
        listed.retain(|listed| self.is_ours(listed));
        for webhook in &listed {
            info!(forge = self.settings.name, "removing the webhook {} at {place}", webhook.id);
            webhooks.remove(webhook).await?;
        }
        self.forget_place(place)?;
        Ok(listed.len())
    }
}

/// The first one, with what the others say.
fn all_of(failures: Vec<Error>) -> Result<()> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    let others: Vec<String> = failures.map(|other| other.chain()).collect();
    if others.is_empty() {
        return Err(first);
    }
    Err(Error::new(first.kind(), format!("{}; {}", first.chain(), others.join("; "))))
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
