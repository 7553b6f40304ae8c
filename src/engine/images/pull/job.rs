//! A pull that several clients follow. Each sees the messages from the beginning; of the passing ones a slow or late
//! client sees the newest only, so that what is kept does not grow with the pull's time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::images::{load::ProgressStream, progress::Message},
    model::{Error, ErrorKind, Result, id::TenantId, image::Platform, registry_auth::RegistryAuth},
};

/// Pulls that are equal in all of this are one. Credentials belong to it: what one client may see is not another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// Whose name it becomes.
    pub tenant: TenantId,
    /// What is pulled.
    pub reference: String,
    /// For which platform.
    pub platform: Option<Platform>,
    /// With which credentials.
    pub auth: RegistryAuth,
}

/// Jobs under way.
#[derive(Default)]
pub struct Pulls(Mutex<HashMap<JobKey, Weak<Job>>>);

/// One job.
pub struct Job {
    key: JobKey,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    abandoned: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Oldest first, each with its number.
    messages: Vec<(u64, Message)>,
    last: u64,
    followers: usize,
    /// Kind and text of the failure; errors cannot be copied for each follower.
    finished: Option<Result<(), (ErrorKind, String)>>,
}

impl Pulls {
    /// Follows the job of a key. The second part is the job to run, if nobody runs it yet.
    pub fn join(&self, key: JobKey) -> (Follower, Option<Arc<Job>>) {
        let mut jobs = self.jobs();
        if let Some(job) = jobs.get(&key).and_then(Weak::upgrade)
            && let Some(follower) = job.follow()
        {
            return (follower, None);
        }
        let job = Arc::new(Job {
            key: key.clone(),
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            abandoned: CancellationToken::new(),
        });
        jobs.insert(key, Arc::downgrade(&job));
        (job.follow().expect("a new job is not finished"), Some(job))
    }

    /// Publishes the end of a job.
    pub fn finish(&self, job: &Arc<Job>, result: Result<()>) {
        let mut jobs = self.jobs();
        if jobs.get(&job.key).is_some_and(|known| known.as_ptr() == Arc::as_ptr(job)) {
            jobs.remove(&job.key);
        }
        drop(jobs);
        let mut state = job.state();
        state.finished = Some(result.map_err(|error| (error.kind(), error.chain())));
        state.last += 1;
        job.changed.send_replace(state.last);
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobKey, Weak<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` once it is finished or given up.
    fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.state();
        if state.finished.is_some() || self.abandoned.is_cancelled() {
            return None;
        }
        state.followers += 1;
        Some(Follower { job: self.clone(), changed: self.changed.subscribe(), seen: 0 })
    }

    /// Publishes a message. A passing one replaces the last one of its layer and step.
    pub fn say(&self, message: Message) {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        if message.is_passing() {
            let same = |old: &Message| old.is_passing() && old.id == message.id && old.status == message.status;
            state.messages.retain(|(_, old)| !same(old));
        }
        state.messages.push((number, message));
        self.changed.send_replace(number);
    }

    /// Waits until nobody follows any more.
    pub async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }
}

/// A client of a job.
pub struct Follower {
    job: Arc<Job>,
    changed: watch::Receiver<u64>,
    seen: u64,
}

enum Next {
    Message(Message),
    Wait,
    End(Result<()>),
}

impl Follower {
    /// Waits for the first message; a failure before it is the answer itself.
    pub async fn into_stream_once_begun(mut self) -> Result<ProgressStream> {
        let first = match self.next().await {
            Some(first) => Some(first?),
            None => None,
        };
        let rest = stream::unfold(self, |mut follower| async move {
            let next = follower.next().await?;
            Some((next, follower))
        });
        Ok(Box::pin(stream::StreamExt::chain(stream::iter(first.map(Ok)), rest)))
    }

    async fn next(&mut self) -> Option<Result<Message>> {
        loop {
            self.changed.borrow_and_update();
            match self.look() {
                Next::Message(message) => return Some(Ok(message)),
                Next::End(Ok(())) => return None,
                Next::End(Err(error)) => return Some(Err(error)),
                // The job keeps the sender, and we keep the job.
                Next::Wait => drop(self.changed.changed().await),
            }
        }
    }

    fn look(&mut self) -> Next {
        let state = self.job.state();
        if let Some((number, message)) = state.messages.iter().find(|(number, _)| *number > self.seen) {
            self.seen = *number;
            return Next::Message(message.clone());
        }
        match &state.finished {
            None => Next::Wait,
            Some(_) if self.seen == u64::MAX => Next::End(Ok(())),
            Some(Ok(())) => Next::End(Ok(())),
            Some(Err((kind, text))) => {
                let error = Error::new(*kind, text.clone()).as_news();
                self.seen = u64::MAX;
                Next::End(Err(error))
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.job.state();
        state.followers -= 1;
        if state.followers == 0 && state.finished.is_none() {
            self.job.abandoned.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn key() -> JobKey {
        JobKey {
            tenant: TenantId::default_tenant(),
            reference: "a".into(),
            platform: None,
            auth: RegistryAuth::default(),
        }
    }

    #[tokio::test]
    async fn late_follower_sees_what_counts() {
        let pulls = Pulls::default();
        let (first, job) = pulls.join(key());
        let job = job.unwrap();
        job.say(Message::status("begin"));
        job.say(Message::layer_progress("l", "Downloading", 1, 9));
        job.say(Message::layer_progress("l", "Downloading", 2, 9));
        let (second, none) = pulls.join(key());
        assert!(none.is_none());
        pulls.finish(&job, Ok(()));
        for follower in [first, second] {
            let messages: Vec<_> = follower.into_stream_once_begun().await.unwrap().collect().await;
            assert_eq!(messages.len(), 2);
            assert_eq!(messages[1].as_ref().unwrap().detail.unwrap().current, 2);
        }
    }

    #[tokio::test]
    async fn failure_before_the_first_message_is_the_answer() {
        let pulls = Pulls::default();
        let (follower, job) = pulls.join(key());
        pulls.finish(&job.unwrap(), Err(Error::not_found("no")));
        let error = follower.into_stream_once_begun().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.is_news(), "nobody but the client need look");
    }

    #[tokio::test]
    async fn later_failure_is_the_last_message() {
        let pulls = Pulls::default();
        let (follower, job) = pulls.join(key());
        let job = job.unwrap();
        job.say(Message::status("begin"));
        pulls.finish(&job, Err(Error::not_found("no")));
        let messages: Vec<_> = follower.into_stream_once_begun().await.unwrap().collect().await;
        assert_eq!(messages.len(), 2);
        assert!(messages[1].is_err());
    }

    #[tokio::test]
    async fn last_follower_ends_the_job_and_the_next_starts_anew() {
        let pulls = Pulls::default();
        let (first, job) = pulls.join(key());
        let (second, _) = pulls.join(key());
        drop(first);
        let job = job.unwrap();
        assert!(!job.abandoned.is_cancelled());
        drop(second);
        job.abandoned().await;
        assert!(pulls.join(key()).1.is_some());
    }
}
