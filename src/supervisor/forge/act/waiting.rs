//! Runners that wait for whatever comes. Each has a registration that is kept on disk (`identities`): an ephemeral one where the server has
//! such, else one that is the next runner's too. What a runner has to do is read in its log, since nobody else tells us.
//!
//! After both servers' `routers/api/actions/runner`, and the runners' `internal/app/run/runner.go` and `poll`.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Deserialize;
use tracing::{info, warn};

use super::super::{
    Minted, Order,
    connect::{self, RunnerIdentity, UNREGISTERED, fail_task, knows, ping, result_of},
    gitea,
    http::{Api, version_number},
};
use crate::{
    model::{Error, Result, reference::Digest},
    supervisor::{
        identities::{Identities, Identity},
        record::{ForgeJob, Registration},
        secret::Secret,
        settings::{Access, ForgeSettings},
    },
};

/// The scope of registrations that wait: none of the API's.
pub const SCOPE: &str = "waiting";

/// After so long a runner that has had no job is replaced by one of what is configured then, in the image as it is then.
pub const RENEWED: Duration = Duration::from_secs(24 * 3600);

/// What can be said of a job whose server has dropped its runner.
const DROPPED: &str = "ended: how, tells its page alone";

/// Which of the two a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Forgejo.
    Forgejo,
    /// Gitea.
    Gitea,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Forgejo => "Forgejo",
            Self::Gitea => "Gitea",
        }
    }

    fn first_with_a_list(self) -> (u64, u64) {
        match self {
            Self::Forgejo => (15, 0),
            Self::Gitea => (1, 25),
        }
    }

    /// Of a version, whether the server has no list of jobs.
    pub fn lists_no_jobs(self, version: &str) -> bool {
        version_number(version).is_some_and(|number| number < self.first_with_a_list())
    }

    fn first_with_ephemeral_runners(self) -> (u64, u64) {
        match self {
            Self::Forgejo => (15, 0),
            Self::Gitea => (1, 24),
        }
    }

    /// Of a version, whether all registrations of the server outlive their job.
    fn reuses_registrations(self, version: &str) -> bool {
        version_number(version).is_some_and(|number| number < self.first_with_ephemeral_runners())
    }

    /// The first version with a list of jobs.
    pub fn since(self) -> String {
        let (major, minor) = self.first_with_a_list();
        format!("{} {major}.{minor}", self.name())
    }

    fn version_path(self) -> &'static str {
        match self {
            Self::Forgejo => "api/forgejo/v1/version",
            Self::Gitea => "api/v1/version",
        }
    }
}

/// The runners of a server that wait.
pub struct Waiting {
    family: Family,
    /// Without a token: the server refuses calls with one that it does not take for an access token.
    api: Api,
    settings: ForgeSettings,
    identities: Option<Arc<Identities>>,
    place: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// `/.well-known/openid-configuration`, of a server that lets others log in by it.
#[derive(Deserialize)]
struct Provider {
    issuer: String,
}

impl Waiting {
    /// Those of the server that `api` asks without a token.
    pub fn new(api: Api, settings: &ForgeSettings, family: Family, identities: Option<Arc<Identities>>) -> Self {
        let waiting = Self { family, api, settings: settings.clone(), identities, place: place_of(settings, family) };
        waiting.tell_outdated();
        waiting
    }

    fn identities(&self) -> Result<&Identities> {
        self.identities.as_deref().ok_or_else(|| Error::system("there is no folder for registrations"))
    }

    /// What the server calls itself, where it tells everybody.
    pub async fn version(&self) -> Result<Option<String>> {
        match self.api.get::<Version>(self.family.version_path()).await {
            Ok(version) => Ok(Some(version.version)),
            Err(refusal) if refusal.status == Some(StatusCode::NOT_FOUND) && self.family == Family::Forgejo => {
                Err(Error::invalid(format!("{} is no Forgejo: is it a [gitea]?", self.settings.url)))
            }
            Err(refusal) if refusal.status.is_some_and(|status| status.is_client_error()) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Its ROOT_URL, which it tells whoever asks how to log in by it.
    pub async fn own_url(&self) -> Option<String> {
        let told: Provider = self.api.get(".well-known/openid-configuration").await.ok()?;
        Some(told.issuer.trim_end_matches('/').to_owned())
    }

    /// One sentence; an error if something is configured that a runner that takes any job cannot keep.
    pub async fn greet(&self, why: &str) -> Result<String> {
        let version = self.version().await?;
        if version.as_ref().is_some_and(|version| self.family.reuses_registrations(version)) {
            self.check_reuse()?;
        }
        let version = version.unwrap_or_else(|| "of a version that it does not tell".to_owned());
        ping(&self.api).await?;
        if self.settings.depends_on_repository() || self.settings.left_out.is_any() {
            return Err(Error::invalid(format!(
                "[{}]: {why}: its runners wait for jobs of any repository, so that repositories, forks, public_repositories, cache_volumes \
                 and [runner] images of repositories cannot be kept; they need an access token and {} or later",
                self.settings.name,
                self.family.since()
            )));
        }
        if self.settings.warm > 0 {
            return Err(Error::invalid(format!(
                "[{}]: {why}: as many runners wait as concurrency says, and warm says nothing",
                self.settings.name
            )));
        }
        let (url, family, count) = (&self.settings.url, self.family.name(), self.settings.concurrency);
        let unchecked = match self.identities {
            Some(_) => "",
            None => {
                "; whether the server takes the token is seen when the first one registers, which a check does not do"
            }
        };
        Ok(format!("{url} is {family} {version}: {why}, so {count} runners wait for one job each{unchecked}"))
    }

    /// A job can read who its runner is.
    fn check_reuse(&self) -> Result<()> {
        if self.settings.reuse_registrations {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "[{}]: {} has no registrations for one job alone: a job could read its runner's and take later jobs with it, and their secrets; \
             where every job may be trusted with all others', set reuse_registrations = true",
            self.settings.name, self.settings.url
        )))
    }

    /// If there is a registration already. An error if it must not be used again.
    pub fn has_registrations(&self) -> Result<bool> {
        let kept = self.identities()?.of(&self.place);
        if kept.iter().any(|identity| !identity.is_ephemeral) {
            self.check_reuse()?;
        }
        Ok(!kept.is_empty())
    }

    /// Registers the first one before any runner is launched, so that a token that is not taken is said once and nothing made for it.
    pub async fn register_ahead(&self, name: &str, token: &Secret) -> Result<()> {
        self.register_as(name, token).await.map(drop)
    }

    async fn register_as(&self, name: &str, token: &Secret) -> Result<Identity> {
        let runner = connect::register(&self.api, name, token, &self.settings.labels).await.map_err(|refusal| {
            let text = refusal.to_string();
            // The words of both servers.
            if !text.contains("registration token") {
                return refusal.into();
            }
            Error::forbidden(format!(
                "{} does not take the token: it is neither an access token nor a registration token of its runners that holds",
                self.settings.url
            ))
            .with_source(Error::from(refusal))
        })?;
        let identity = Identity {
            name: name.to_owned(),
            forge: self.settings.name.clone(),
            url: self.settings.url.clone(),
            place: self.place.clone(),
            id: runner.id()?,
            uuid: runner.uuid,
            token: Secret::new(runner.token),
            is_ephemeral: runner.ephemeral,
            job: None,
            outcome: None,
            is_dropped: false,
        };
        self.identities()?.keep(identity.clone())?;
        let kind = if identity.is_ephemeral { "for one job" } else { "for one runner after another" };
        info!(forge = self.settings.name, "registered {name} at {}, {kind}", self.settings.url);
        // Of a server that has not told its version, this is known by now.
        if !identity.is_ephemeral {
            self.check_reuse()?;
        }
        Ok(identity)
    }

    /// A registration that is there and no runner's.
    pub fn take(&self, order: &Order<'_>) -> Result<Option<Minted>> {
        Ok(self.identities()?.take(&self.place).map(|identity| self.minted(&identity, order)))
    }

    /// A new one.
    pub async fn register(&self, order: &Order<'_>, token: &Secret) -> Result<Minted> {
        let identities = self.identities()?;
        identities.are_taken([order.name].into_iter());
        match self.register_as(order.name, token).await {
            Ok(identity) => Ok(self.minted(&identity, order)),
            Err(error) => {
                identities.give_back(order.name);
                Err(error)
            }
        }
    }

    fn minted(&self, identity: &Identity, order: &Order<'_>) -> Minted {
        let Identity { name, id, is_ephemeral, .. } = identity;
        let runner = runner_of(identity);
        Minted {
            registration: Registration { id: *id, name: name.clone(), scope: SCOPE.to_owned() },
            credential: match self.family {
                Family::Gitea => gitea::runner_file(&self.settings.url, order, name, *id, &runner, *is_ephemeral),
                Family::Forgejo => Secret::new(format!("{}\n{}", runner.uuid, runner.token)),
            },
        }
    }

    /// Of these, those that are there. It is asked of the ephemeral ones that have a job: they are gone when it is over or was cancelled,
    /// and their runners do not stop for that. The others' are told, or tell.
    pub async fn registered(&self, registrations: &[Registration]) -> Result<Vec<Registration>> {
        let identities = self.identities()?;
        identities.are_taken(registrations.iter().map(|registration| registration.name.as_str()));
        ping(&self.api).await?;
        let mut there = Vec::new();
        for registration in registrations {
            let Some(identity) = identities.named(&registration.name) else { continue };
            let is_asked = identity.is_ephemeral && identity.job.is_some();
            if !identity.is_dropped && (!is_asked || self.is_known(&identity).await?) {
                there.push(registration.clone());
            }
        }
        Ok(there)
    }

    async fn is_known(&self, identity: &Identity) -> Result<bool> {
        let task = identity.job.as_ref().and_then(|job| job.task).unwrap_or(0);
        Ok(knows(&self.api, &runner_of(identity), task).await?)
    }

    /// No runner is it any more. Forgotten if the server has dropped it, which it does with an ephemeral one after its job.
    pub async fn give_back(&self, registration: &Registration) -> Result<()> {
        let (identities, name) = (self.identities()?, &registration.name);
        if let Some(identity) = identities.named(name) {
            if self.is_known(&identity).await? {
                identities.change(name, |identity| {
                    (identity.job, identity.outcome, identity.is_dropped) = (None, None, false);
                });
            } else {
                identities.forget(name)?;
            }
        }
        identities.give_back(name);
        Ok(())
    }

    /// What it was heard to have.
    pub fn work_of(&self, registration: &Registration) -> Result<Option<ForgeJob>> {
        Ok(self.identities()?.named(&registration.name).and_then(|identity| identity.job))
    }

    /// As both runners have said since their first versions: `task NUMBER repo is OWNER/NAME …`.
    pub fn reads(&self, registration: &Registration, line: &str) -> Option<ForgeJob> {
        let identities = self.identities().ok()?;
        let known = identities.named(&registration.name)?;
        if line.contains(UNREGISTERED) && !known.is_dropped {
            identities.change(&registration.name, |identity| identity.is_dropped = true);
        }
        let (task, repository) = task_of(line).filter(|_| known.job.is_none())?;
        let job = ForgeJob {
            id: task,
            run: None,
            task: Some(task),
            is_heard: true,
            repository: repository.to_owned(),
            name: format!("task {task}"),
            url: format!("{}/{repository}/actions", self.settings.url),
        };
        identities.change(&registration.name, |identity| identity.job = Some(job.clone()));
        Some(job)
    }

    /// In the name of its runner.
    pub async fn give_up(&self, job: &ForgeJob, why: &str) -> Result<()> {
        let identities = self.identities()?;
        let (Some(identity), Some(task)) = (identities.with_job(&self.settings.url, job), job.task) else {
            return Ok(());
        };
        fail_task(&self.api, &runner_of(&identity), task, why).await?;
        identities.change(&identity.name, |identity| identity.outcome = Some("failure".to_owned()));
        Ok(())
    }

    /// By what the server answers its runner; one that it has dropped is told nothing.
    pub async fn conclusion(&self, job: &ForgeJob) -> Result<Option<String>> {
        let (Some(identity), Some(task)) = (self.identities()?.with_job(&self.settings.url, job), job.task) else {
            return Ok(Some(DROPPED.to_owned()));
        };
        if identity.outcome.is_some() {
            return Ok(identity.outcome);
        }
        match result_of(&self.api, &runner_of(&identity), task).await {
            Err(refusal) if refusal.to_string().contains(UNREGISTERED) => Ok(Some(DROPPED.to_owned())),
            other => Ok(other?),
        }
    }

    /// Those that were made for this forge with another token, or at another address: no runner of ours will be one of them.
    fn outdated(&self) -> Vec<Identity> {
        let all = self.identities.iter().flat_map(|identities| identities.all());
        all.filter(|identity| identity.forge == self.settings.name && identity.place != self.place).collect()
    }

    /// Says which registrations are kept for nothing, since the configuration has another token or address than they were made with.
    fn tell_outdated(&self) {
        let is_taken = |name: &String| self.identities.as_ref().is_some_and(|identities| identities.is_taken(name));
        let names = self.outdated().into_iter().map(|identity| identity.name);
        let names: Vec<String> = names.filter(|name| !is_taken(name)).collect();
        if !names.is_empty() {
            warn!(
                forge = self.settings.name,
                "made with another token or address, and no runner's any more: {}; `ringer purge --forge {}` forgets them",
                names.join(", "),
                self.settings.name
            );
        }
    }

    /// Forgets what is kept, and says what stays at the server: nobody can take it back with this token.
    pub fn forget(&self) -> Result<()> {
        let is_ours = |identity: &Identity| identity.place == self.place || identity.forge == self.settings.name;
        self.identities.as_ref().map_or(Ok(()), |identities| identities.forget_all(is_ours))
    }

    /// Forgejo's runner waits with `one-job` since 12.8 only.
    pub fn explain(&self, log: &str) -> Option<String> {
        let (sign, words) = match self.family {
            Family::Forgejo => {
                ("unknown flag", "runner_image has a runner that cannot wait for one job: it has to be 12.8 or later")
            }
            Family::Gitea => (
                "unknown flag: --once",
                "runner_image has a runner that does not know `daemon --once`: a later one is needed",
            ),
        };
        log.contains(sign).then(|| words.to_owned())
    }
}

fn runner_of(identity: &Identity) -> RunnerIdentity<'_> {
    RunnerIdentity { uuid: &identity.uuid, token: identity.token.reveal() }
}

/// A token is of a place at the server: another one's registrations take other jobs.
fn place_of(settings: &ForgeSettings, family: Family) -> String {
    let token = match &settings.access {
        Access::Token(token) => token.reveal(),
        Access::App(app) => &app.id,
    };
    let text = [family.name(), &settings.url, token, settings.owner.as_deref().unwrap_or_default()].join("\n");
    Digest::of(text.as_bytes()).hex().to_owned()
}

/// The number of a task, and its repository.
fn task_of(line: &str) -> Option<(i64, &str)> {
    let (before, after) = line.split_once(" repo is ")?;
    let (before, number) = before.rsplit_once(' ')?;
    let repository = after.split([' ', '"']).next().filter(|name| name.contains('/'))?;
    before.ends_with("task").then_some((number.parse().ok()?, repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_say_what_they_have_to_do() {
        let real = r#"time="2026-11-28T10:00:00Z" level=info msg="task 12 repo is ci/tool https://data.forgejo.org http://f:3000""#;
        assert_eq!(task_of(real), Some((12, "ci/tool")));
        assert_eq!(task_of("2026/11/28 10:00:00 task 3 repo is ci/tool [lab]"), Some((3, "ci/tool")));
        for other in ["task is ci/tool", "task x repo is ci/tool", "the repo is ci/tool", "task 3 repo is tool"] {
            assert_eq!(task_of(other), None, "{other}");
        }
    }

    #[test]
    fn old_servers_list_no_jobs() {
        assert!(Family::Gitea.lists_no_jobs("1.24.7") && !Family::Gitea.lists_no_jobs("1.25.0"));
        assert!(
            Family::Forgejo.lists_no_jobs("14.0.2+gitea-1.22.0")
                && !Family::Forgejo.lists_no_jobs("15.0.5+gitea-1.22.0")
        );
        assert!(!Family::Gitea.lists_no_jobs("main"), "what cannot be read is taken for new");
        assert!(Family::Gitea.reuses_registrations("1.23.8") && !Family::Gitea.reuses_registrations("1.24.0"));
    }
}
