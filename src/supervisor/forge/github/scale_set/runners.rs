//! The runners of scale sets that GitHub's Actions service knows.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use tracing::{debug, info, warn};

use super::{
    super::AT_ONCE,
    ScaleSets,
    answers::{Agent, Listed},
    heard::Heard,
    lock,
    service::{AGENTS, Deleted},
};
use crate::{
    model::Result,
    supervisor::record::{ForgeJob, Registration},
};

/// How long what has become of a job may take to be told after the end of its runner.
const TOLD: Duration = Duration::from_secs(8);

impl ScaleSets {
    /// Those that are there; those of which GitHub does not say it are taken to be.
    pub(super) async fn registered(&self, registrations: &[Registration]) -> Vec<Registration> {
        let scopes: BTreeSet<&String> = registrations.iter().map(|registration| &registration.scope).collect();
        let mut listed = Vec::new();
        for scope in scopes {
            match self.agents(scope).await {
                Ok(agents) => listed.extend(agents),
                Err(error) => {
                    debug!(forge = self.common.forge(), "asking for the runners at {scope}: {}", error.chain())
                }
            }
        }
        let (there, unlisted): (Vec<_>, Vec<_>) =
            registrations.iter().cloned().partition(|registration| listed.contains(registration));
        let asked = stream::iter(unlisted).map(async |registration| {
            let is_there = self.is_there(&registration).await;
            is_there.unwrap_or(true).then_some(registration)
        });
        let asked: Vec<_> = asked.buffered(AT_ONCE).collect().await;
        there.into_iter().chain(asked.into_iter().flatten()).collect()
    }

    /// All of a scope.
    pub(super) async fn agents(&self, scope: &str) -> Result<Vec<Registration>> {
        let service = self.common.service(scope);
        let listed = service.call::<Listed<Agent>>(self.common.hub(), Method::GET, AGENTS, None).await;
        let listed = listed.map_err(|failure| self.common.refused(failure))?;
        Ok(listed.value.into_iter().map(|agent| agent.at(scope)).collect())
    }

    async fn is_there(&self, registration: &Registration) -> Result<bool> {
        let path = format!("{AGENTS}/{}", registration.id);
        let service = self.common.service(&registration.scope);
        match service.call::<Agent>(self.common.hub(), Method::GET, &path, None).await {
            Ok(agent) => Ok(agent.name == registration.name),
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
            Err(failure) => Err(self.common.refused(failure)),
        }
    }

    /// Takes a registration back, unless its runner has a job.
    pub(super) async fn remove(&self, registration: &Registration) -> Result<Deleted> {
        let service = self.common.service(&registration.scope);
        let deleted = service.delete_agent(self.common.hub(), registration.id).await;
        deleted.map_err(|failure| self.common.refused(failure))
    }

    /// The same was done for one that has ended.
    pub(super) fn is_gone(&self, Registration { scope, name, .. }: &Registration, deleted: Deleted) {
        let forge = self.common.forge();
        if deleted == Deleted::IsBusy {
            info!(
                forge,
                "GitHub says that {name} still has a job: it takes the registration away when it has given that up"
            );
        }
        lock(&self.idle).remove(name);
        if let Some(pause) = self.common.heard.runner_is_gone(scope, name) {
            warn!(
                forge,
                "GitHub counts jobs of the scale set at {scope} of which it tells nothing, and {name} has waited for one in vain: no runner is \
                 launched for what is only counted for {} s",
                pause.as_secs()
            );
        }
    }

    /// The job that a runner has, or has had.
    pub(super) async fn work_at(&self, registration: &Registration) -> Result<Option<ForgeJob>> {
        if lock(&self.idle).contains(&registration.name) {
            return Ok(None);
        }
        let of_runner = |heard: &Heard| heard.of_runner(&registration.name);
        // One that is registered still has it, or has had none.
        if of_runner(&self.common.heard).is_none() && !self.is_there(registration).await? {
            self.until(|heard| of_runner(heard).is_some()).await;
        }
        Ok(of_runner(&self.common.heard))
    }

    /// Until something has been heard, but not for long.
    pub(super) async fn until(&self, is_heard: impl Fn(&Heard) -> bool) {
        let _or_not = tokio::time::timeout(TOLD, self.common.heard.until(is_heard)).await;
    }
}
