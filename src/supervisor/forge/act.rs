//! Gitea and Forgejo, whose configuration has one token of either kind. With an access token, jobs are asked for and a runner is launched
//! for each one (`gitea`, `forgejo`). With a registration token, or where the server has no list of jobs, runners wait (`waiting`).

#[cfg(test)]
mod tests;
mod waiting;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::OnceCell;

pub use self::waiting::Family;
use self::waiting::{SCOPE, Waiting};
use super::{
    Forge, Look, Minted, Order, Plan, Quit,
    forgejo::Forgejo,
    gitea::{self, Gitea},
    server::Server,
    webhooks::Webhooks,
};
use crate::{
    model::Result,
    supervisor::{
        balance::Class,
        identities::Identities,
        origin::Origin,
        record::{ForgeJob, Registration},
        secret::Secret,
        settings::{Access, ForgeSettings},
    },
};

/// How jobs come to runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Jobs are asked for.
    Demand,
    /// Runners wait, since the token is one with which they register.
    Registers,
    /// Runners wait, since the server has no list of jobs.
    TooOld,
}

/// A server of either kind.
pub struct Act {
    demand: Box<dyn Forge>,
    waiting: Waiting,
    server: Arc<Server>,
    settings: ForgeSettings,
    family: Family,
    way: OnceCell<Way>,
}

impl Act {
    /// The one that is configured. Without `identities` nothing is registered that waits.
    pub fn new(settings: &ForgeSettings, family: Family, identities: Option<Arc<Identities>>) -> Result<Self> {
        let server = Arc::new(Server::new(settings)?);
        Ok(Self {
            demand: match family {
                Family::Forgejo => Box::new(Forgejo::new(server.clone())),
                Family::Gitea => Box::new(Gitea::new(server.clone())),
            },
            waiting: Waiting::new(server.api.anonymous(), settings, family, identities),
            server,
            settings: settings.clone(),
            family,
            way: OnceCell::new(),
        })
    }

    /// Asked once, of a server that answers.
    async fn way(&self) -> Result<Way> {
        self.way.get_or_try_init(|| self.find_way()).await.copied()
    }

    async fn find_way(&self) -> Result<Way> {
        match self.server.api.get::<Value>("api/v1/user").await {
            Err(refusal) if refusal.status == Some(StatusCode::UNAUTHORIZED) => {
                return Ok(if self.looks_like_access() { Way::Demand } else { Way::Registers });
            }
            // An access token that may not ask whose it is.
            Err(refusal) if refusal.status == Some(StatusCode::FORBIDDEN) => {}
            other => drop(other?),
        }
        let version = self.waiting.version().await?;
        Ok(if version.is_some_and(|version| self.family.lists_no_jobs(&version)) { Way::TooOld } else { Way::Demand })
    }

    /// Both servers' access tokens are 40 small hex digits; registration tokens have letters of all kinds.
    fn looks_like_access(&self) -> bool {
        let Access::Token(token) = &self.settings.access else { return false };
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        token.reveal().len() == 40 && token.reveal().bytes().all(is_hex)
    }

    fn waits(&self) -> bool {
        self.way.get().is_some_and(|way| *way != Way::Demand)
    }

    /// Whether runners are Gitea's that wait for whatever comes: such a one does the job that it may have been given when it is told to end.
    fn ends_after_its_job(&self) -> bool {
        self.family == Family::Gitea && (self.waits() || self.settings.warm > 0)
    }

    /// With what a runner registers that waits.
    async fn registration_token(&self) -> Result<Secret> {
        match (self.way().await?, &self.settings.access) {
            (Way::Registers, Access::Token(token)) => Ok(token.clone()),
            _ => self.server.registration_token(self.server.scope().await?).await,
        }
    }
}

fn has_waited(registration: &Registration) -> bool {
    registration.scope == SCOPE
}

#[async_trait]
impl Forge for Act {
    async fn greet(&self) -> Result<String> {
        let why = match self.way().await? {
            Way::Demand => return self.demand.greet().await,
            Way::Registers => "token is a registration token, with which nobody sees the queue".to_owned(),
            Way::TooOld => format!("it has no list of jobs to ask, as {} has", self.family.since()),
        };
        self.waiting.greet(&why).await
    }

    /// Forgejo has none of jobs.
    async fn webhooks(&self) -> Result<Option<&dyn Webhooks>> {
        let asks = self.family == Family::Gitea && self.way().await? == Way::Demand;
        Ok(asks.then_some(&*self.server as &dyn Webhooks))
    }

    async fn own_url(&self) -> Option<String> {
        self.waiting.own_url().await
    }

    async fn look(&self, registrations: &[Registration]) -> Result<Look> {
        let (waited, launched): (Vec<_>, Vec<_>) = registrations.iter().cloned().partition(has_waited);
        let mut look = match self.way().await? {
            Way::Demand => self.demand.look(&launched).await?,
            // Of a time in which the token was another one: they end by themselves.
            _ => Look { registered: launched, ..Look::default() },
        };
        if self.waits() || !waited.is_empty() {
            look.registered.extend(self.waiting.registered(&waited).await?);
        }
        Ok(look)
    }

    async fn ahead(&self, name: &str, warm: usize) -> Result<usize> {
        if self.way().await? == Way::Demand {
            return Ok(warm);
        }
        if !self.waiting.has_registrations()? {
            self.waiting.register_ahead(name, &self.registration_token().await?).await?;
        }
        Ok(self.settings.concurrency)
    }

    /// What waits is kept, for the next runner to be.
    async fn registrations(&self, prefix: &str, class: Option<&Class>) -> Result<Vec<Registration>> {
        match self.way().await? {
            Way::Demand => self.demand.registrations(prefix, class).await,
            _ => Ok(Vec::new()),
        }
    }

    async fn mint(&self, order: &Order<'_>) -> Result<Minted> {
        if self.way().await? == Way::Demand {
            return self.demand.mint(order).await;
        }
        if let Some(minted) = self.waiting.take(order)? {
            return Ok(minted);
        }
        self.waiting.register(order, &self.registration_token().await?).await
    }

    async fn deregister(&self, registration: &Registration) -> Result<()> {
        if has_waited(registration) {
            return self.waiting.give_back(registration).await;
        }
        self.demand.deregister(registration).await
    }

    async fn work_of(&self, registration: &Registration, meant_for: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        if has_waited(registration) {
            return self.waiting.work_of(registration);
        }
        self.demand.work_of(registration, meant_for).await
    }

    async fn origin(&self, job: &ForgeJob) -> Result<Origin> {
        self.demand.origin(job).await
    }

    async fn give_up(&self, job: &ForgeJob, credential: &Secret, why: &str) -> Result<()> {
        if job.is_heard {
            return self.waiting.give_up(job, why).await;
        }
        self.demand.give_up(job, credential, why).await
    }

    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        if job.is_heard {
            return self.waiting.conclusion(job).await;
        }
        self.demand.conclusion(job).await
    }

    fn plan(&self, order: &Order<'_>, minted: &Minted) -> Plan {
        if self.ends_after_its_job() {
            return gitea::plan(self.server.job_timeout, &minted.credential, true);
        }
        self.demand.plan(order, minted)
    }

    fn reads(&self, registration: &Registration, line: &str) -> Option<ForgeJob> {
        if has_waited(registration) { self.waiting.reads(registration, line) } else { None }
    }

    fn pause(&self, has_runners: bool) -> Duration {
        self.demand.pause(has_runners)
    }

    fn patience(&self) -> Duration {
        if self.waits() { waiting::RENEWED } else { self.demand.patience() }
    }

    /// Forgejo's `one-job` would cancel a job that it has been given meanwhile.
    fn quit(&self) -> Quit {
        if self.ends_after_its_job() { Quit::Signalled("SIGTERM") } else { self.demand.quit() }
    }

    async fn forget(&self) -> Result<()> {
        self.waiting.forget()
    }

    fn explain(&self, log: &str) -> Option<String> {
        self.waiting.explain(log)
    }

    fn programs(&self) -> &'static [&'static str] {
        self.demand.programs()
    }

    fn runner_image(&self) -> &'static str {
        self.demand.runner_image()
    }

    fn job_image(&self) -> &'static str {
        self.demand.job_image()
    }
}
