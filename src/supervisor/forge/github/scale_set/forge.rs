//! Scale sets as the supervisor sees them: a forge.

use std::{any::Any, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use tracing::warn;

use super::{
    super::super::{Forge, Look, Minted, Order, Plan, Quit, Shape, http::segments, webhooks::Webhooks},
    ScaleSets,
    answers::SetJitConfig,
    lock,
    room::TURN,
    service::{Deleted, SETS},
    set::{ScaleSet, Wants},
};
use crate::{
    model::{Error, Result},
    supervisor::{
        artifacts::BegunJob,
        balance::Class,
        record::{ForgeJob, Registration},
        secret::Secret,
    },
};

/// How long an end may take at the forge.
const LEAVING: Duration = Duration::from_secs(10);

/// Where a set may be that a job is of.
fn scopes_of(job: &ForgeJob) -> [String; 2] {
    let owner = job.repository.split('/').next().unwrap_or_default();
    [format!("repos/{}", segments(&job.repository)), format!("orgs/{}", segments(owner))]
        .map(|scope| scope.to_lowercase())
}

impl ScaleSets {
    /// Whether nothing is left to do.
    async fn end(&self, set: &ScaleSet, for_good: bool) -> bool {
        if set.goes() && self.common.heard.has_runners(&set.scope) {
            set.want(Wants::Ends);
            return false;
        }
        let ended = set.end(for_good).await;
        if let Err(error) = &ended {
            warn!(forge = self.common.forge(), "leaving the scale set at {}: {}", set.scope, error.chain());
        }
        ended.is_ok()
    }
}

#[async_trait]
impl Forge for ScaleSets {
    async fn greet(&self) -> Result<String> {
        let github = self.github();
        let Some(first) = self.sets.first() else { return Err(Error::invalid("no repository is named")) };
        github.group(&first.scope).await?;
        let connected = self.common.service(&first.scope).connect(&github.hub).await;
        connected.map_err(|failure| self.common.refused(failure))?;
        let who = github.who();
        let more = if self.sets.len() > 1 { format!(" and {} more", self.sets.len() - 1) } else { String::new() };
        let name = self.common.named().or(self.common.name()).map(|name| format!(" {name}")).unwrap_or_default();
        let labels = github.settings.labels.iter().cloned().collect::<Vec<_>>().join(", ");
        Ok(format!(
            "{} is asked with {who} for the scale set{name} at {}{more}, which is listened to, and whose jobs are those with runs-on of its \
             name or of some of {labels}; each runner gets a just-in-time configuration",
            github.github.api, first.scope
        ))
    }

    fn takes(&self, jobs: Option<usize>, name: &str) {
        self.common.is_called(name);
        *lock(&self.room) = jobs;
    }

    fn is_followed_by(&self, successor: &dyn Forge) {
        let successor = (successor as &dyn Any).downcast_ref::<Self>();
        let successor = successor.filter(|successor| successor.common.url() == self.common.url());
        let keeps = |set: &ScaleSet| {
            successor.is_some_and(|next| next.sets.iter().any(|own| own.scope.eq_ignore_ascii_case(&set.scope)))
        };
        for set in &self.sets {
            set.set_going(!keeps(set));
            set.want(if set.goes() { Wants::Ends } else { Wants::Nothing });
        }
    }

    fn holds(&self, runner: &Registration) -> bool {
        let goes = self.sets.iter().any(|set| set.goes() && set.scope == runner.scope);
        goes && self.common.heard.has_runner(&runner.scope, &runner.name)
    }

    async fn look(&self, registrations: &[Registration]) -> Result<Look> {
        lock(&self.seen).borrow_and_update();
        self.listen();
        let launches = lock(&self.room).is_some();
        if launches {
            self.share();
        } else {
            self.follow(registrations).await?;
        }
        self.check()?;
        let mut look = Look::default();
        for (number, set) in (0..).zip(&self.sets) {
            self.jobs_of((number, set), &mut look);
        }
        look.registered = self.registered(registrations).await;
        Ok(look)
    }

    async fn news(&self) {
        let mut heard = lock(&self.seen).clone();
        loop {
            let takes_turns = self.share();
            tokio::select! {
                // The sender is ours: it is there for as long as we are.
                _always = heard.changed() => return,
                () = tokio::time::sleep(TURN), if takes_turns => {}
            }
        }
    }

    async fn registrations(&self, prefix: &str, class: Option<&Class>) -> Result<Vec<Registration>> {
        let scopes: Vec<String> = match class {
            Some(class) => vec![self.github().scope_of(class)?],
            None => self.sets.iter().map(|set| set.scope.clone()).collect(),
        };
        let mut all = Vec::new();
        for scope in scopes {
            all.extend(self.agents(&scope).await?);
        }
        all.retain(|registration| registration.name.starts_with(prefix));
        Ok(all)
    }

    async fn mint(&self, order: &Order<'_>) -> Result<Minted> {
        let set = self.set_of(order.class)?;
        let id = set.id().ok_or_else(|| Error::unavailable(format!("there is no scale set at {} yet", set.scope)))?;
        let body = json!({"name": order.name, "workFolder": "_work"});
        let path = format!("{SETS}/{id}/generatejitconfig");
        let service = self.common.service(&set.scope);
        match service.call::<SetJitConfig>(self.common.hub(), Method::POST, &path, Some(&body)).await {
            Ok(made) => {
                self.common.heard.runner_is_there(&set.scope, &made.runner.name);
                Ok(Minted {
                    registration: made.runner.at(&set.scope),
                    credential: Secret::new(made.encoded_jit_config),
                })
            }
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => {
                set.forget();
                Err(failure.into())
            }
            Err(failure) => Err(self.common.refused(failure)),
        }
    }

    async fn deregister(&self, registration: &Registration) -> Result<()> {
        let deleted = self.remove(registration).await?;
        self.is_gone(registration, deleted);
        Ok(())
    }

    /// One that is busy is told to have no job by nobody while it is not listened to, and refuses this.
    fn quit(&self) -> Quit {
        Quit::TakenBack
    }

    async fn take_back(&self, registration: &Registration) -> Result<bool> {
        let was_idle = self.remove(registration).await? == Deleted::Now;
        if was_idle {
            lock(&self.idle).insert(registration.name.clone());
        }
        Ok(was_idle)
    }

    async fn work_of(&self, registration: &Registration, _: Option<&ForgeJob>) -> Result<Option<ForgeJob>> {
        self.work_at(registration).await
    }

    /// Nobody can in a runner's name. Of most jobs it is told in the moment in which their runner ends.
    async fn give_up(&self, job: &ForgeJob, _: &Secret, _: &str) -> Result<()> {
        let scopes = scopes_of(job);
        self.until(|heard| heard.end_of(&scopes, job.id).is_some()).await;
        Ok(())
    }

    async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        Ok(self.common.heard.end_of(&scopes_of(job), job.id))
    }

    fn plan(&self, order: &Order<'_>, minted: &Minted) -> Plan {
        self.github().plan(order, minted)
    }

    /// Messages wake us: this is for runners whose registration is gone.
    fn pause(&self, _: bool) -> Duration {
        self.github().settings.poll_interval
    }

    async fn leave(&self, for_good: bool) -> bool {
        lock(&self.seen).borrow_and_update();
        *lock(&self.room) = None;
        let leaving = join_all(self.sets.iter().map(|set| self.end(set, for_good)));
        let left = tokio::time::timeout(LEAVING, leaving).await;
        left.is_ok_and(|left| left.into_iter().all(|is_left| is_left))
    }

    async fn forget(&self) -> Result<()> {
        *lock(&self.room) = None;
        let mut failures = Vec::new();
        for set in self.sets.iter().chain(&self.left()) {
            if let Err(error) = set.remove().await {
                failures.push(format!("removing the scale set at {}: {}", set.scope, error.chain()));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::unavailable(failures.join("; "))) }
    }

    /// None are made: those of another time are removed.
    async fn webhooks(&self) -> Result<Option<&dyn Webhooks>> {
        self.github().webhooks().await
    }

    fn job_hook(&self) -> Option<&'static str> {
        self.github().job_hook()
    }

    async fn workflow(&self, job: &BegunJob) -> Result<Option<String>> {
        self.github().workflow(job).await
    }

    fn farewell(&self) -> Option<Duration> {
        self.github().farewell()
    }

    fn shape(&self) -> Shape {
        self.github().shape()
    }

    fn programs(&self) -> &'static [&'static str] {
        self.github().programs()
    }

    fn runner_image(&self) -> &'static str {
        self.github().runner_image()
    }

    fn job_image(&self) -> &'static str {
        self.github().job_image()
    }
}
