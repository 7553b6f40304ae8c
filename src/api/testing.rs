//! For tests of handlers: a request without a server.

use axum::{body::Body, response::Response};
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{ApiState, router};
use crate::{
    engine::testing::Fakes,
    model::{
        caller::{Caller, Peer, PeerProcess},
        id::TenantId,
    },
    oci::host::HostFacts,
};

/// An engine on fakes, with folders that go with the test.
pub async fn state() -> (ApiState, tempfile::TempDir) {
    state_on(HostFacts::detect()).await
}

/// The same on a host that is described.
pub async fn state_on(host: HostFacts) -> (ApiState, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Fakes { engine, folder, .. } = Fakes::open(host, folder).await;
    (ApiState::new(engine), folder)
}

/// Answers one request of the default tenant.
pub async fn oneshot(state: &ApiState, request: Request<Body>) -> Response {
    oneshot_as(state, &TenantId::default_tenant(), request).await
}

async fn oneshot_as(state: &ApiState, tenant: &TenantId, mut request: Request<Body>) -> Response {
    request.extensions_mut().insert(tenant.clone());
    request.extensions_mut().insert(Caller::Process(Peer { process: PeerProcess::Outside, uid: 0, gid: 0 }));
    router(state.clone()).oneshot(request).await
}

/// `GET path`: status and body.
pub async fn get(state: &ApiState, path: &str) -> (u16, Value) {
    send(state, Request::get(path).body(Body::empty()).expect("a test's path is a URI")).await
}

/// Sends a request; a body that is no JSON comes back as a string.
pub async fn send(state: &ApiState, request: Request<Body>) -> (u16, Value) {
    send_as(state, &TenantId::default_tenant(), request).await
}

/// The same in the name of a tenant.
pub async fn send_as(state: &ApiState, tenant: &TenantId, request: Request<Body>) -> (u16, Value) {
    let response = oneshot_as(state, tenant, request).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("bodies of tests do not break off").to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
}
