//! Turns: what comes through one door is worked on a piece at a time, so that who asks much waits for himself and not others for him.

use std::{
    future::Future,
    num::NonZero,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
};

use axum::{body::Body, response::Response};
use http::Request;
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

use super::{route::Answer, server::Api};

/// An API of which at most half of the processors make answers at a time. An answer that waits for something takes no turn meanwhile.
pub struct InTurns {
    api: Arc<dyn Api>,
    turns: Arc<Semaphore>,
}

impl InTurns {
    /// Its turns are its own: another door's are others.
    pub fn of(api: Arc<dyn Api>) -> Arc<dyn Api> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Arc::new(Self { api, turns: Arc::new(Semaphore::new(processors.div_ceil(2))) })
    }
}

impl Api for InTurns {
    fn answer(&self, request: Request<Body>) -> Answer {
        let turns = PollSemaphore::new(self.turns.clone());
        Box::pin(Turned { answer: self.api.answer(request), turns })
    }
}

struct Turned {
    answer: Answer,
    turns: PollSemaphore,
}

impl Future for Turned {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        // Nobody closes them.
        let _turn = ready!(self.turns.poll_acquire(context));
        self.answer.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use axum::response::IntoResponse;
    use futures_util::future::join_all;

    use super::*;

    /// Answers after some work, and never what asks for `/never`.
    #[derive(Default)]
    struct Works {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Api for Works {
        fn answer(&self, request: Request<Body>) -> Answer {
            let (now, most) = (self.now.clone(), self.most.clone());
            Box::pin(async move {
                if request.uri().path() == "/never" {
                    return std::future::pending().await;
                }
                for _ in 0..4 {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let until = Instant::now() + Duration::from_millis(2);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
                ().into_response()
            })
        }
    }

    fn request(path: &str) -> Request<Body> {
        Request::get(path).body(Body::empty()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn answers_of_one_door_are_made_one_after_the_other() {
        let works = Works::default();
        let most = works.most.clone();
        let api = InTurns { api: Arc::new(works), turns: Arc::new(Semaphore::new(1)) };
        // It waits for ever, and takes no turn while it does.
        let never = tokio::spawn(api.answer(request("/never")));
        let answers = join_all((0..8).map(|_| tokio::spawn(api.answer(request("/")))));
        for answer in tokio::time::timeout(Duration::from_secs(60), answers).await.unwrap() {
            assert!(answer.unwrap().status().is_success());
        }
        assert_eq!(most.load(Ordering::SeqCst), 1);
        never.abort();
    }
}
