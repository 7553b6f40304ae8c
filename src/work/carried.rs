//! What a request holds until everything that was begun for it has ended, also when its client has left before.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::model::{Error, Result};

/// For so long a request waits for others that hold something large.
const PATIENCE: Duration = Duration::from_secs(60);

tokio::task_local! {
    static CARRIED: Carried;
}

/// What a request may hold, free when its last task has ended.
#[derive(Clone, Debug, Default)]
pub struct Carried(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Of its listener, for requests that hold something large. Without, nobody asked for the work and nothing is bound.
    places: Option<Arc<Semaphore>>,
    /// The one that the request has: it needs no second one.
    place: Mutex<Weak<OwnedSemaphorePermit>>,
    kept: Mutex<Option<Place>>,
}

/// Room for something large, as long as this lives.
#[derive(Clone, Debug)]
#[must_use]
pub struct Place {
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl Carried {
    /// Of a request through a listener with these places for what is large.
    pub fn of(places: Arc<Semaphore>) -> Self {
        Self(Arc::new(Inner { places: Some(places), ..Inner::default() }))
    }

    /// Of the request that this task works for. In a task that works for none nothing has to wait.
    pub fn here() -> Self {
        CARRIED.try_with(Clone::clone).unwrap_or_default()
    }

    /// Waits for a place for something large, unless the request has one. Unavailable if others hold theirs for too long.
    pub async fn place(&self) -> Result<Place> {
        let Some(places) = &self.0.places else { return Ok(Place { _permit: None }) };
        let mut known = self.0.place.lock().await;
        if let Some(place) = known.upgrade() {
            return Ok(Place { _permit: Some(place) });
        }
        let free = tokio::time::timeout(PATIENCE, places.clone().acquire_owned()).await;
        let free = free.map_err(|_| Error::unavailable("too much that is large is under way through this socket"))?;
        let place = Arc::new(free.expect("the semaphore is never closed"));
        *known = Arc::downgrade(&place);
        Ok(Place { _permit: Some(place) })
    }

    /// As [`Self::place`], until all that was begun for the request has ended.
    pub async fn keep_place(&self) -> Result<()> {
        let place = self.place().await?;
        *self.0.kept.lock().await = Some(place);
        Ok(())
    }

    /// Works for the request: what [`Carried::here`] finds meanwhile is this.
    pub async fn during<F: Future>(self, work: F) -> F::Output {
        CARRIED.scope(self, work).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_place_is_kept_until_the_last_task_has_ended() {
        let places = Arc::new(Semaphore::new(1));
        let (end, ended) = oneshot::channel::<()>();
        let mut task = None;
        let request = Carried::of(places.clone()).during(async {
            Carried::here().keep_place().await.unwrap();
            task = Some(tokio::spawn(Carried::here().during(async { ended.await.unwrap() })));
        });
        request.await;
        assert_eq!(places.available_permits(), 0, "the request has ended, its task has not");
        end.send(()).unwrap();
        task.unwrap().await.unwrap();
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_request_has_one_place_and_others_wait_for_it() {
        let places = Arc::new(Semaphore::new(1));
        let (one, other) = (Carried::of(places.clone()), Carried::of(places.clone()));
        let (first, second) = (one.place().await.unwrap(), one.place().await.unwrap());
        drop(first);
        assert!(other.place().now_or_never().is_none());
        drop(second);
        other.keep_place().await.unwrap();
        assert_eq!(places.available_permits(), 0);
        assert!(Carried::here().place().await.is_ok(), "what nobody asked for waits for nobody");
    }
}
