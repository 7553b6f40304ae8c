//! What a pool says of itself, and what its forge's webhook tells it.

use std::time::Instant;

use tracing::{debug, warn};

use super::{Pool, lock, queue::Unserved};
use crate::{
    model::{Error, ErrorKind, Result},
    supervisor::{
        ForgeView, WaitingJob,
        hooks::{Delivery, Heard},
        tally::Verdict,
    },
};

impl Pool {
    /// What can be said of it.
    pub fn view(&self) -> ForgeView {
        let queue = lock(&self.queue).clone();
        let waiting = queue.served.into_iter().map(|queued| WaitingJob { queued, why: None });
        let left = queue.unserved.into_iter().map(|Unserved { queued, why }| WaitingJob { queued, why: Some(why) });
        ForgeView {
            name: self.settings.name.clone(),
            url: self.settings.url.clone(),
            trouble: self.trouble(),
            looked: queue.looked,
            concurrency: self.settings.concurrency,
            live: self.live().len(),
            held: lock(&self.holds).values().filter(|hold| hold.until > Instant::now()).count(),
            queue: waiting.chain(left).collect(),
            takes_hooks: self.settings.webhook_secret.is_some() || lock(&self.made).is_there(),
            runner_images: lock(&self.runner_images).iter().map(|(image, made)| (image.clone(), *made)).collect(),
        }
    }

    /// Takes a delivery of the forge's webhook, and looks at the forge if it tells of jobs.
    pub fn hear(&self, delivery: &Delivery<'_>) -> Result<()> {
        let (name, tally) = (&self.settings.name, &self.shared.tally);
        let ear = self.ear.as_ref().ok_or_else(|| Error::not_found(format!("{name} takes no webhooks")))?;
        match ear.hear(delivery) {
            Ok(Heard::Of(job)) => {
                tally.delivered(name, Verdict::Taken);
                debug!(forge = name, "job {} of {} is told by a webhook", job.id, job.repository);
                if self.settings.allows(&job.repository) {
                    self.forge.hear(&job);
                }
                self.wake.notify_one();
            }
            Ok(Heard::Known) => tally.delivered(name, Verdict::Known),
            Ok(Heard::Nothing) => tally.delivered(name, Verdict::Ignored),
            Err(error) => {
                let is_unsigned = error.kind() == ErrorKind::Unauthorized;
                tally.delivered(name, if is_unsigned { Verdict::Unsigned } else { Verdict::Garbage });
                if ear.may_warn() {
                    warn!(forge = name, "a delivery of a webhook is refused: {}", error.chain());
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
