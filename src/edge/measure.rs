//! How often which call of an API is made, how long it takes and what it is refused for: numbers for Prometheus, of every API that stands
//! behind a [`Measured`], and the last refusals in words.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Request, StatusCode, header};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{
    audit::{Called, Refused},
    route::Answer,
    server::Api,
    within::Within,
};
use crate::model::{Error, id::TenantId, policy::Key, time::Timestamp};

/// Refusals that are remembered in words.
const REMEMBERED: usize = 50;

/// Bounds of the times of calls, in seconds: from an inspect to a build.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// What a call is called that no API knows.
const UNKNOWN: &str = "unknown";

/// Which API it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Docker's, of the daemon's own socket.
    Docker,
    /// Docker's, of a job.
    Job,
    /// Of the administrator.
    Admin,
    /// The read-only listener.
    Http,
}

impl EncodeLabelValue for Door {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Docker => "docker",
            Self::Job => "job",
            Self::Admin => "admin",
            Self::Http => "http",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    api: Door,
    operation: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimeLabels {
    api: Door,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    rule: &'static str,
}

/// A call that a policy did not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCall {
    /// When.
    pub time: Timestamp,
    /// The job that asked, if it was one.
    pub job: Option<TenantId>,
    /// The call.
    pub operation: &'static str,
    /// The rule that does not allow it.
    pub rule: Key,
}

/// The numbers.
pub struct Measures {
    calls: Family<CallLabels, Counter>,
    seconds: Family<TimeLabels, Histogram, fn() -> Histogram>,
    refused: Family<RuleLabels, Counter>,
    last: Mutex<VecDeque<RefusedCall>>,
}

impl Measures {
    /// Counts from now on.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let measures = Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            refused: Family::default(),
            last: Mutex::default(),
        };
        registry.register("calls", "Calls that were answered", measures.calls.clone());
        registry.register("call_seconds", "Time until an answer began", measures.seconds.clone());
        registry.register("refused_calls", "Calls that a policy did not allow, by its rule", measures.refused.clone());
        Arc::new(measures)
    }

    /// An API whose calls are counted, those of `job` if it is one's.
    pub fn of(self: &Arc<Self>, api: Arc<dyn Api>, door: Door, job: Option<TenantId>) -> Arc<dyn Api> {
        Arc::new(Measured { api, door, job, measures: self.clone() })
    }

    /// The last calls that a policy did not allow, newest first.
    pub fn last_refused(&self) -> Vec<RefusedCall> {
        self.lock().iter().rev().cloned().collect()
    }

    fn note(&self, door: Door, job: Option<&TenantId>, response: &Response, begun: Instant) {
        let operation = response.extensions().get::<Called>().map_or(UNKNOWN, |called| called.operation);
        let code = response.status().as_u16();
        self.calls.get_or_create(&CallLabels { api: door, operation, code }).inc();
        self.seconds.get_or_create(&TimeLabels { api: door, operation }).observe(begun.elapsed().as_secs_f64());
        let Some(Refused(rule)) = response.extensions().get::<Refused>().copied() else { return };
        self.refused.get_or_create(&RuleLabels { rule: rule.as_str() }).inc();
        let mut last = self.lock();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(RefusedCall { time: Timestamp::now(), job: job.cloned(), operation, rule });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<RefusedCall>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Measured {
    api: Arc<dyn Api>,
    door: Door,
    job: Option<TenantId>,
    measures: Arc<Measures>,
}

impl Api for Measured {
    fn answer(&self, mut request: Request<Body>) -> Answer {
        let (begun, door, job, measures) = (Instant::now(), self.door, self.job.clone(), self.measures.clone());
        let note = Arc::new(move |response: &Response, begun| measures.note(door, job.as_ref(), response, begun));
        let within = note.clone();
        Within::watch(&mut request, move |response, begun| within(response, begun));
        let answering = self.api.answer(request);
        Box::pin(async move {
            let response = answering.await;
            note(&response, begun);
            response
        })
    }
}

/// All numbers of a registry, as Prometheus reads them.
pub fn answer(registry: &Registry) -> Response {
    let mut text = String::new();
    if let Err(error) = text::encode(&mut text, registry) {
        return Error::system("writing the numbers").with_source(error).into_response();
    }
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Saying(fn() -> Response);

    impl Api for Saying {
        fn answer(&self, _: Request<Body>) -> Answer {
            let response = self.0();
            Box::pin(async move { response })
        }
    }

    fn refused() -> Response {
        let mut response = StatusCode::FORBIDDEN.into_response();
        response.extensions_mut().insert(Called { operation: "ContainerCreate", object: String::new() });
        response.extensions_mut().insert(Refused(Key::ALL[0]));
        response
    }

    #[tokio::test]
    async fn calls_and_refusals_are_counted_and_the_last_ones_told() {
        let mut registry = Registry::with_prefix("ringer");
        let measures = Measures::register(&mut registry);
        let job: TenantId = "x".parse().unwrap();
        let api = measures.of(Arc::new(Saying(refused)), Door::Job, Some(job.clone()));
        for _ in 0..REMEMBERED + 1 {
            api.answer(Request::new(Body::empty())).await;
        }
        let unknown = measures.of(Arc::new(Saying(|| StatusCode::NOT_FOUND.into_response())), Door::Docker, None);
        unknown.answer(Request::new(Body::empty())).await;
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line}: {text}");
        has("ringer_calls_total{api=\"job\",operation=\"ContainerCreate\",code=\"403\"} 51");
        has("ringer_calls_total{api=\"docker\",operation=\"unknown\",code=\"404\"} 1");
        has(&format!("ringer_refused_calls_total{{rule=\"{}\"}} 51", Key::ALL[0]));
        has("ringer_call_seconds_count{api=\"job\",operation=\"ContainerCreate\"} 51");
        let last = measures.last_refused();
        assert_eq!((last.len(), &last[0].job), (REMEMBERED, &Some(job)));
    }
}
