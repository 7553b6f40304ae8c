//! The session of a scale set: who has it is told of the set's jobs, and nobody else.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;
use tracing::{debug, info, warn};

use super::{
    super::{
        answers::{ScaleSetAnswer, Session},
        queue::Queue,
        service::SETS,
    },
    ScaleSet, Wants,
    making::Found,
};
use crate::{
    model::{Error, Result},
    supervisor::forge::{github::hub::Failure, http::segments},
};

/// Between two counts of jobs that are asked for: they are told with each message, and not always right.
const COUNTED: Duration = Duration::from_secs(60);

impl ScaleSet {
    /// Finds the set, or makes it where jobs are wanted, and begins a session.
    pub(super) async fn open(&self, wants: Wants) -> Result<()> {
        let Some(name) = self.common.name() else { return Ok(()) };
        let known = self.state().id;
        let mut id = match known {
            Some(id) => id,
            None => self.make_or_find(name, wants).await?,
        };
        let mut begun = self.begin(id, name).await;
        if known.is_some() && begun.as_ref().is_err_and(|failure| failure.status() == Some(StatusCode::NOT_FOUND)) {
            warn!(forge = self.common.forge(), "GitHub has no scale set {id} at {} any more", self.scope);
            self.forget();
            id = self.make_or_find(name, wants).await?;
            begun = self.begin(id, name).await;
        }
        let session = begun.map_err(|failure| self.not_begun(name, failure))?;
        self.state().session = Some(session.session_id.clone());
        self.keep(id, Some(&session.session_id));
        self.common.heard.note(&self.scope, self.common.url(), session.statistics, &[]);
        if session.statistics.is_some_and(|counted| counted.total_available_jobs > 0) {
            self.ask_for_offers(id).await;
        }
        let queue = Queue::of(session, self.common.hub().api())?;
        let set_name = self.common.set_name(name);
        info!(forge = self.common.forge(), "listening to the scale set {set_name} ({id}) at {}", self.scope);
        self.state().queue = Some(queue);
        self.common.heard.has_changed();
        Ok(())
    }

    async fn make_or_find(&self, name: &str, wants: Wants) -> Result<i64> {
        if matches!(wants, Wants::Jobs(_)) {
            return self.make(name).await;
        }
        match self.find(name).await? {
            Found::Ours(id) => {
                self.note_id(id);
                Ok(id)
            }
            Found::Theirs | Found::Nothing => {
                Err(Error::unavailable(format!("there is no scale set of ours at {} any more", self.scope)))
            }
        }
    }

    fn not_begun(&self, name: &str, failure: Failure) -> Error {
        if failure.status() != Some(StatusCode::CONFLICT) {
            return self.refused(failure);
        }
        let set_name = self.common.set_name(name);
        Error::unavailable(format!(
            "somebody else listens to the scale set {set_name} at {}, and only one may: another supervisor does, or one that was killed did, \
             which GitHub gives up after some minutes; it is tried again",
            self.scope
        ))
        .with_source(Error::from(failure))
    }

    /// A session; one of an earlier life of ours is in nobody's way.
    async fn begin(&self, id: i64, name: &str) -> Result<Session, Failure> {
        let begin = || self.ask::<Session>(Method::POST, format!("{SETS}/{id}/sessions"), json!({"ownerName": name}));
        let begun = begin().await;
        let ours = self.state().session.clone();
        let earlier = ours.or_else(|| self.kept()?.session);
        match (begun, earlier) {
            (Err(failure), Some(earlier)) if failure.status() == Some(StatusCode::CONFLICT) => {
                debug!(forge = self.common.forge(), "ending the session {earlier} of an earlier life");
                self.service.delete(self.common.hub(), &format!("{SETS}/{id}/sessions/{}", segments(&earlier))).await?;
                begin().await
            }
            (begun, _) => begun,
        }
    }

    /// Ends the session, if there is one.
    pub(super) async fn close(&self) -> Result<()> {
        let (queue, id) = {
            let state = self.state();
            (state.queue.clone(), state.id)
        };
        let (Some(queue), Some(id)) = (queue, id) else { return Ok(()) };
        debug!(forge = self.common.forge(), "ending the session at {}", self.scope);
        if let Some(message) = queue.unacknowledged
            && queue.acknowledge(message).await.is_ok()
        {
            self.change(&queue, |queue| queue.unacknowledged = None);
        }
        let path = format!("{SETS}/{id}/sessions/{}", segments(&queue.session));
        self.service.delete(self.common.hub(), &path).await.map_err(|failure| self.refused(failure))?;
        {
            let mut state = self.state();
            state.queue.take_if(|same| same.session == queue.session);
            state.session.take_if(|same| *same == queue.session);
        }
        // A pool that has taken our place may have begun one.
        if self.kept().and_then(|kept| kept.session).as_ref() == Some(&queue.session) {
            self.keep(id, None);
        }
        Ok(())
    }

    /// Asks now and then for the number of its jobs.
    pub(super) async fn count(&self) {
        let id = {
            let mut state = self.state();
            let is_due = state.counted.is_none_or(|at| at.elapsed() > COUNTED);
            let Some(id) = state.id.filter(|_| is_due) else { return };
            state.counted = Some(Instant::now());
            id
        };
        let messages = self.common.heard.messages(&self.scope);
        match self.look_up::<ScaleSetAnswer>(format!("{SETS}/{id}")).await {
            Ok(ScaleSetAnswer { statistics: Some(counted), .. }) => {
                self.common.heard.count(&self.scope, messages, counted);
            }
            Ok(_) => {}
            Err(failure) => {
                debug!(forge = self.common.forge(), "counting jobs at {}: {}", self.scope, Error::from(failure))
            }
        }
    }
}
