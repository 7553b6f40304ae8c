//! A scale set that is made, or found again: by what is kept of it on disk, or by what it is known as ours by.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    super::{
        answers::{Listed, ScaleSetAnswer},
        service::SETS,
    },
    ScaleSet, Wants,
};
use crate::{
    model::{Error, Result},
    supervisor::forge::{github::hub::Failure, http::segments},
};

/// How long a server is left alone that keeps one label of a set alone: it may be another one after its next update.
const UNABLE: Duration = Duration::from_secs(3600);

/// Of such a server. Its sets would be reached by their name alone, and be nobody's after a loss of the data root.
const ONE_LABEL: &str = "this server keeps one label of a scale set alone, as GitHub Enterprise Server does before 3.21 (from 3.18 on unless \
                         the feature DistributedTask.AllowRunnerScaleSetCustomLabels is enabled): set discovery to \"webhook\" or \"poll\" \
                         there; it is tried again after an hour, or when the configuration is changed";

/// What there is of a set's name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The set that we have made, by its number.
    Ours(i64),
    /// Somebody else's.
    Theirs,
    Nothing,
}

impl ScaleSet {
    /// The set's number: of the one that we have made, which is changed to what is configured, or of a new one.
    pub(super) async fn make(&self, name: &str) -> Result<i64> {
        let (set_name, labels) = (self.common.set_name(name), self.common.labels(name));
        let body = self.description(&set_name, &labels).await?;
        let made: ScaleSetAnswer = match self.find(name).await? {
            Found::Ours(id) => {
                self.note_id(id);
                self.ask(Method::PATCH, format!("{SETS}/{id}"), body).await.map_err(|failure| self.refused(failure))?
            }
            Found::Theirs => {
                return Err(Error::invalid(format!(
                    "there is a scale set {set_name} at {} already, which this ringer has not made: give scale_set another name, or remove \
                     that one",
                    self.scope
                )));
            }
            Found::Nothing => {
                let made = self.ask(Method::POST, SETS.to_owned(), body).await;
                let made: ScaleSetAnswer = made.map_err(|failure| self.refused(failure))?;
                // Before it is looked at: also the next life has to find it.
                self.note_id(made.id);
                info!(forge = self.common.forge(), "made the scale set {set_name} ({}) at {}", made.id, self.scope);
                made
            }
        };
        let id = made.id;
        let made = self.with_labels(made).await?;
        if labels.iter().all(|label| made.has(label)) {
            return Ok(id);
        }
        if made.labels.len() <= 1 {
            return Err(self.is_unable(id).await);
        }
        warn!(
            forge = self.common.forge(),
            "GitHub has not taken the labels {labels:?} for the scale set {set_name}: with `ringer purge` and `ringer uncordon` it is made anew"
        );
        Ok(id)
    }

    async fn description(&self, set_name: &str, labels: &BTreeSet<String>) -> Result<Value> {
        let group = self.common.github.group(&self.scope).await?;
        let labels: Vec<_> = labels.iter().map(|label| json!({"name": label, "type": "System"})).collect();
        // What actions-runner-controller sets too: a runner is there for one job, and its image decides on its version.
        let setting = json!({"ephemeral": true, "disableUpdate": true});
        Ok(json!({"name": set_name, "runnerGroupId": group, "labels": labels, "RunnerSetting": setting}))
    }

    /// An answer without labels says nothing of them.
    async fn with_labels(&self, answer: ScaleSetAnswer) -> Result<ScaleSetAnswer> {
        if !answer.labels.is_empty() {
            return Ok(answer);
        }
        let asked = self.look_up(format!("{SETS}/{}", answer.id)).await;
        asked.map_err(|failure| self.refused(failure))
    }

    /// The server keeps but one label of a set: what was made is of no use there.
    async fn is_unable(&self, id: i64) -> Error {
        let removed = async {
            self.delete(id).await?;
            self.forget_kept()
        };
        if let Err(error) = removed.await {
            return error;
        }
        self.forget();
        self.state().no_sooner = Some(Instant::now() + UNABLE);
        Error::invalid(ONE_LABEL)
    }

    async fn delete(&self, id: i64) -> Result<()> {
        let deleted = self.service.delete(self.common.hub(), &format!("{SETS}/{id}")).await;
        deleted.map_err(|failure| self.refused(failure))
    }

    pub(super) fn refused(&self, failure: Failure) -> Error {
        self.common.refused(failure)
    }

    /// Removes it, if it is ours.
    pub async fn remove(&self) -> Result<()> {
        self.want(Wants::Nothing);
        let _nobody_makes_it = self.turn.lock().await;
        self.close().await?;
        let Some(name) = self.common.name() else {
            return Err(Error::unavailable(
                "the forge was not looked at yet, so that its scale sets are not known: try again",
            ));
        };
        match self.find(name).await? {
            Found::Ours(id) => {
                info!(forge = self.common.forge(), "removing the scale set {id} at {}", self.scope);
                self.delete(id).await?;
            }
            Found::Theirs | Found::Nothing => {}
        }
        self.forget();
        self.forget_kept()
    }

    /// The one that we have made, if it is there: by its number, or by its name. Numbers are a server's own: one that was set up anew
    /// gives ours to somebody else's.
    pub(super) async fn find(&self, name: &str) -> Result<Found> {
        let refused = |failure| self.refused(failure);
        let set_name = self.common.set_name(name);
        let is_named = |set: &ScaleSetAnswer, name: &str| set.name.eq_ignore_ascii_case(name);
        let is_marked = |set: &ScaleSetAnswer| is_named(set, name) || set.has(name);
        if let Some(kept) = self.kept() {
            match self.look_up::<ScaleSetAnswer>(format!("{SETS}/{}", kept.id)).await {
                Ok(set) if is_marked(&set) || is_named(&set, &set_name) => return Ok(Found::Ours(set.id)),
                Ok(_) => warn!(forge = self.common.forge(), "the scale set {} at {} is not ours", kept.id, self.scope),
                Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => {}
                Err(failure) => return Err(refused(failure)),
            }
        }
        let group = self.common.github.group(&self.scope).await?;
        let path = format!("{SETS}?runnerGroupId={group}&name={}", segments(&set_name));
        let listed: Listed<ScaleSetAnswer> = self.look_up(path).await.map_err(refused)?;
        Ok(match listed.value.into_iter().find(|set| is_named(set, &set_name)) {
            Some(set) if is_marked(&set) => Found::Ours(set.id),
            Some(_) => Found::Theirs,
            None => Found::Nothing,
        })
    }

    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Value,
    ) -> Result<T, Failure> {
        self.service.call(self.common.hub(), method, &path, Some(&body)).await
    }

    pub(super) async fn look_up<T: DeserializeOwned>(&self, path: String) -> Result<T, Failure> {
        self.service.call(self.common.hub(), Method::GET, &path, None).await
    }
}
