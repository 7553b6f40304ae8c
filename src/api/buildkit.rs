//! BuildKit's two doors, `/grpc` and `/session`. What is behind them is `buildkit`'s; where there is none that is said there too: a
//! client that is not let in (buildx) makes itself a builder, which is a privileged container whose images never arrive.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Request, StatusCode, header};
use tokio::io::AsyncReadExt;

use super::{ApiState, router::Bare};
use crate::{
    backend::builds::{Asked, Told},
    buildkit,
    edge::{
        self,
        audit::{Called, Refused},
        takeover::{Connection, Takeover},
        within::Within,
    },
    engine::tenants::Scope,
    model::{Error, Result, id::TenantId},
};

/// What a build through `/grpc` is called, and a step of one; they are no calls of Docker's own.
const SOLVE: &str = "Solve";
const STEP: &str = "Step";

/// What a session may send to nobody.
const SESSION_BYTES: u64 = 1 << 20;

/// `POST /grpc`: the connection becomes HTTP/2 with gRPC in it.
pub async fn grpc(State(api): State<ApiState>, scope: Scope, mut request: Request<Body>) -> Result<Response> {
    // A 500 in dockerd too.
    let takeover = upgrade(&mut request).map_err(Error::system)?;
    let (state, within) = (api.clone(), Within::of(&mut request));
    Ok(switch(&api, takeover, |connection| async move {
        let tenant = scope.tenant().clone();
        let told: Told = Arc::new(move |build| within.tell(&answer(&build), build.begun));
        match builder(&state, &tenant) {
            Ok(builder) => builder.serve_calls(&tenant, state.engine.build_tenant(&tenant), connection, told).await,
            Err(why) => buildkit::refuse(connection, why).await,
        }
    }))
}

/// A build as an answer of our own API would be: what audit and numbers have of it.
fn answer(build: &Asked) -> Response {
    let mut answer = build.failed.map_or(StatusCode::OK, edge::error::status).into_response();
    let operation = if build.is_step { STEP } else { SOLVE };
    answer.extensions_mut().insert(Called { operation, object: build.names.clone() });
    if let Some(rule) = build.refused_by {
        answer.extensions_mut().insert(Refused(rule));
    }
    answer
}

/// `POST /session`: the connection becomes one on which the client serves, and is called.
pub async fn session(State(api): State<ApiState>, scope: Scope, mut request: Request<Body>) -> Result<Response> {
    let takeover = upgrade(&mut request).map_err(Error::invalid)?;
    let state = api.clone();
    Ok(switch(&api, takeover, |connection| async move {
        let tenant = scope.tenant().clone();
        match builder(&state, &tenant) {
            Ok(builder) => {
                let of = state.engine.build_tenant(&tenant);
                builder.serve_session(&tenant, of, request.headers(), connection).await;
            }
            // Its client leaves when its build has failed.
            Err(_) => {
                let mut sent = connection.take(SESSION_BYTES);
                let _client_left = tokio::io::copy(&mut sent, &mut tokio::io::sink()).await;
            }
        }
    }))
}

/// Who builds for a tenant, or why nobody does.
pub(super) fn builder<'a>(api: &'a ApiState, tenant: &TenantId) -> Result<&'a Arc<buildkit::BuildKit>> {
    let builder = api.buildkit.as_ref().ok_or_else(Error::no_buildkit)?;
    api.engine.permit_builder(tenant)?;
    Ok(builder)
}

/// What the client asked for, or why it gets nothing, in dockerd's words.
fn upgrade(request: &mut Request<Body>) -> Result<Takeover, String> {
    match request.headers().get(header::UPGRADE) {
        Some(protocol) if protocol != "h2c" => {
            Err(format!("protocol {} not supported", String::from_utf8_lossy(protocol.as_bytes())))
        }
        Some(_) => Ok(request.extensions_mut().remove().unwrap_or_default()),
        None => Err("no upgrade proto in request".to_owned()),
    }
}

/// Answers 101 and serves the connection on a tracked task, until the client goes.
fn switch<S, F>(api: &ApiState, takeover: Takeover, serve: S) -> Response
where
    S: FnOnce(Connection) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let headers =
        [(header::CONNECTION, HeaderValue::from_static("Upgrade")), (header::UPGRADE, HeaderValue::from_static("h2c"))];
    let head = (Extension(Bare), (StatusCode::SWITCHING_PROTOCOLS, headers)).into_response();
    let gone = takeover.client_gone();
    takeover.answer(&api.tasks, head, move |connection| async move {
        tokio::select! {
            () = serve(connection) => {}
            () = gone.0.cancelled() => {}
        }
    })
}
