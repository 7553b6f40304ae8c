//! What a request holds until everything that was begun for it has ended, also when its client has left before.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

tokio::task_local! {
    static CARRIED: Carried;
}

/// Places that count for a request, free when its last task has ended.
#[derive(Clone, Debug, Default)]
pub struct Carried(Arc<Mutex<Vec<OwnedSemaphorePermit>>>);

impl Carried {
    /// Of the request that this task works for. In a task that works for none what is kept is free at once.
    pub fn here() -> Self {
        CARRIED.try_with(Clone::clone).unwrap_or_default()
    }

    /// Keeps one more.
    pub fn keep(&self, place: OwnedSemaphorePermit) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }

    /// Works for the request: what [`Carried::here`] finds meanwhile is this.
    pub async fn during<F: Future>(self, work: F) -> F::Output {
        CARRIED.scope(self, work).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    #[tokio::test]
    async fn a_place_is_kept_until_the_last_task_has_ended() {
        let places = Arc::new(Semaphore::new(1));
        let (end, ended) = oneshot::channel::<()>();
        let place = places.clone().acquire_owned().await.unwrap();
        let mut task = None;
        let request = Carried::default().during(async {
            Carried::here().keep(place);
            task = Some(tokio::spawn(Carried::here().during(async { ended.await.unwrap() })));
        });
        request.await;
        assert_eq!(places.available_permits(), 0, "the request has ended, its task has not");
        end.send(()).unwrap();
        task.unwrap().await.unwrap();
        assert_eq!(places.available_permits(), 1);
    }
}
