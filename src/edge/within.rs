//! Calls within a connection that a request became (BuildKit's): what stands around the request's API is told of them as of its own.

use std::{sync::Arc, time::Instant};

use axum::{body::Body, response::Response};
use http::{Request, header};

type Told = dyn Fn(&Response, Instant) + Send + Sync;

/// On a request that may become a connection: who is told.
#[derive(Clone, Default)]
pub struct Within(Vec<Arc<Told>>);

impl Within {
    /// Tells `told` the answer of each call within what `request` becomes, and when the call began.
    pub fn watch(request: &mut Request<Body>, told: impl Fn(&Response, Instant) + Send + Sync + 'static) {
        if request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().get_or_insert_default::<Self>().0.push(Arc::new(told));
        }
    }

    /// Who is told of calls within what a request becomes.
    pub fn of(request: &mut Request<Body>) -> Self {
        request.extensions_mut().remove().unwrap_or_default()
    }

    /// Tells of a call that has been answered.
    pub fn tell(&self, answer: &Response, begun: Instant) {
        for told in &self.0 {
            told(answer, begun);
        }
    }
}
