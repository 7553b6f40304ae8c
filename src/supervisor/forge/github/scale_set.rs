//! Jobs of GitHub by scale sets: GitHub assigns them to a set whose labels cover them, and tells who listens to it, on a connection that we
//! open. Each runner of a set takes any of its jobs, so that what depends on a repository needs a set at that repository.
//!
//! After actions/scaleset (`client.go`, `session_client.go`, `listener.go`) and actions-runner-controller. `forge` is what the supervisor
//! sees, `service` where sets are, `set` one of them, `queue` what tells of its jobs, `heard` what was told, `runners` which are there, `room`
//! for how many.

mod answers;
mod common;
mod forge;
mod heard;
mod queue;
mod room;
mod runners;
mod service;
mod set;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use self::{
    common::Common,
    room::{TURN, shares},
    set::{ScaleSet, Wants},
};
use super::{
    super::{Look, QueuedJob, http::segments},
    GitHub,
};
use crate::{
    model::{Error, Result},
    supervisor::{
        balance::Class,
        kept_sets::{KeptSets, scopes},
        record::Registration,
        settings::{ForgeSettings, Github},
    },
};

/// Numbers of jobs that are counted alone, of each set.
const NAMELESS: i64 = 100_000;

/// A server, by its scale sets.
pub struct ScaleSets {
    common: Arc<Common>,
    sets: Vec<Arc<ScaleSet>>,
    /// Each set is listened to by one, from the first look on.
    listeners: OnceLock<Vec<AbortOnDropHandle<()>>>,
    /// Jobs at once; `None` while nothing is launched.
    room: Mutex<Option<usize>>,
    /// What was said last of some sets, so that it is said once.
    told: Mutex<Option<String>>,
    begun: Instant,
    /// Runners whose registration was taken back before they had a job.
    idle: Mutex<BTreeSet<String>>,
    /// What was heard when the last look began.
    seen: Mutex<watch::Receiver<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScaleSets {
    /// Those that are configured: one of the organisation, or one of each repository. What was heard before is known.
    pub fn new(
        settings: &ForgeSettings,
        github: &Github,
        earlier: Option<&Self>,
        kept: Option<Arc<KeptSets>>,
    ) -> Result<Self> {
        let heard = earlier.map_or_else(Arc::default, |earlier| earlier.common.heard.clone());
        let common = Arc::new(Common::new(settings, github, heard, kept)?);
        Ok(Self {
            sets: scopes(settings).into_iter().map(|scope| Arc::new(ScaleSet::new(&common, scope))).collect(),
            listeners: OnceLock::new(),
            room: Mutex::default(),
            told: Mutex::default(),
            begun: Instant::now(),
            idle: Mutex::default(),
            seen: Mutex::new(common.heard.news()),
            common,
        })
    }

    fn github(&self) -> &GitHub {
        &self.common.github
    }

    /// Those that a configuration has left behind which was changed while ringer was down.
    fn left(&self) -> Vec<Arc<ScaleSet>> {
        let scopes = self.common.kept.iter().flat_map(|kept| kept.left_by(&self.github().settings));
        scopes.map(|scope| Arc::new(ScaleSet::new(&self.common, scope))).collect()
    }

    fn listen(&self) {
        let listener = |set: &Arc<ScaleSet>| AbortOnDropHandle::new(tokio::spawn(set.clone().listen()));
        self.listeners.get_or_init(|| self.sets.iter().map(listener).collect());
    }

    /// Says for how many jobs each set has room; whether that is another at the next turn.
    fn share(&self) -> bool {
        let Some(room) = *lock(&self.room) else { return false };
        let assigned: Vec<usize> = self.sets.iter().map(|set| self.common.heard.assigned(&set.scope)).collect();
        let turn = usize::try_from(self.begun.elapsed().as_secs() / TURN.as_secs()).unwrap_or(0);
        let now = shares(room, &assigned, turn);
        self.sets.iter().zip(&now).for_each(|(set, share)| set.want(Wants::Jobs(*share)));
        shares(room, &assigned, turn + 1) != now
    }

    /// Nothing is launched: a set whose runners are there is heard of to their end, and any other is left.
    async fn follow(&self, registrations: &[Registration]) -> Result<()> {
        for set in &self.sets {
            if registrations.iter().any(|registration| registration.scope == set.scope) {
                set.want(Wants::Ends);
            } else {
                set.leave().await?;
            }
        }
        Ok(())
    }

    /// Of several sets one that fails is told, and the others go on.
    fn check(&self) -> Result<()> {
        let mut failures: Vec<Error> = self.sets.iter().filter_map(|set| set.trouble()).collect();
        if failures.len() == self.sets.len() && !failures.is_empty() {
            return Err(failures.remove(0));
        }
        let words: Vec<&str> = failures.iter().map(Error::message).collect();
        let words = (!words.is_empty()).then(|| words.join("; "));
        let before = std::mem::replace(&mut *lock(&self.told), words.clone());
        if let Some(words) = words.filter(|words| before.as_ref() != Some(words)) {
            warn!(forge = self.common.forge(), "some scale sets are not listened to: {words}");
        }
        Ok(())
    }

    fn set_of(&self, class: &Class) -> Result<&ScaleSet> {
        let scope = self.github().scope_of(class)?;
        let found = self.sets.iter().find(|set| set.scope.eq_ignore_ascii_case(&scope));
        found.map(|set| &**set).ok_or_else(|| Error::invalid(format!("there is no scale set at {scope}")))
    }

    /// Any runner of a set takes any of its jobs.
    fn jobs_of(&self, (number, set): (i64, &ScaleSet), look: &mut Look) {
        let settings = &self.github().settings;
        let named =
            settings.repositories.iter().flatten().find(|name| set.scope == format!("repos/{}", segments(name)));
        let (queued, running) = self.common.heard.jobs(&set.scope);
        let labels: Vec<String> = settings.labels.iter().cloned().collect();
        let as_configured = |mut queued: QueuedJob| {
            queued.labels.clone_from(&labels);
            if queued.job.id < 0 {
                queued.job.id -= NAMELESS * number;
            }
            queued.job.repository = named.cloned().unwrap_or(queued.job.repository);
            queued
        };
        look.queued.extend(queued.into_iter().map(as_configured));
        look.running.extend(running);
    }
}
