//! Swarm, and the kinds of objects that exist only in one, answered as by a dockerd that is in none: a single
//! daemon is never a manager. What dockerd checks before it says so is checked here in the same words.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;

use super::{
    ApiState,
    body::JsonBody,
    extract::Path,
    query::{FiltersQuery, Query},
};
use crate::model::{Error, Result};

/// A body of which one field is looked at, and otherwise that it is JSON.
type AnyBody = JsonBody<ListenAddress>;

/// The address of a swarm that is made or entered.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ListenAddress {
    listen_addr: String,
}

/// Reads and removals.
pub async fn not_a_manager() -> Error {
    Error::not_a_swarm_manager()
}

/// `GET /nodes`, `/services`, `/tasks`, `/secrets`, `/configs`. The query is read so that what is no filter is refused.
pub async fn list(_: Query<FiltersQuery>) -> Error {
    Error::not_a_swarm_manager()
}

/// `POST /services/create`, `/secrets/create`, `/configs/create`, `/swarm/unlock`
pub async fn with_body(_: AnyBody) -> Error {
    Error::not_a_swarm_manager()
}

/// `POST /swarm/init` and `/swarm/join`. A dockerd would make or enter a cluster; that is no part of ringer.
pub async fn swarm_enter(body: AnyBody) -> Error {
    match body.value.listen_addr.as_str() {
        "" => Error::invalid("invalid ListenAddr \"\": invalid empty address"),
        _ => Error::not_implemented("swarm mode is not implemented by ringer, which is a single daemon"),
    }
}

/// `POST /swarm/leave`
pub async fn swarm_leave() -> Error {
    Error::unavailable("This node is not part of a swarm")
}

/// The version that an update must name.
pub struct UpdateVersion(String);

impl FromRequestParts<ApiState> for UpdateVersion {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Version {
            version: String,
        }
        let Query(Version { version }) = Query::from_request_parts(parts, state).await?;
        Ok(Self(version))
    }
}

impl UpdateVersion {
    fn check(&self, what: &str) -> Result<()> {
        let text = &self.0;
        text.parse::<u64>().map(drop).map_err(|_| {
            let reason = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            Error::invalid(format!("invalid {what} version '{text}': {reason}"))
        })
    }

    /// Of secrets and configs, of which dockerd does not say what is wrong.
    fn check_quietly(&self, what: &str) -> Result<()> {
        self.check(what).map_err(|_| Error::invalid(format!("invalid {what} version")))
    }
}

/// `POST /swarm/update`
pub async fn swarm_update(version: UpdateVersion, _: AnyBody) -> Error {
    version.check("swarm").err().unwrap_or_else(Error::not_a_swarm_manager)
}

/// `POST /nodes/{id}/update`
pub async fn node_update(version: UpdateVersion, _: AnyBody) -> Error {
    version.check("node").err().unwrap_or_else(Error::not_a_swarm_manager)
}

/// `POST /services/{id}/update`
pub async fn service_update(version: UpdateVersion, _: AnyBody) -> Error {
    version.check("service").err().unwrap_or_else(Error::not_a_swarm_manager)
}

/// `POST /secrets/{id}/update`
pub async fn secret_update(version: UpdateVersion, _: AnyBody) -> Error {
    version.check_quietly("secret").err().unwrap_or_else(Error::not_a_swarm_manager)
}

/// `POST /configs/{id}/update`
pub async fn config_update(version: UpdateVersion, _: AnyBody) -> Error {
    version.check_quietly("config").err().unwrap_or_else(Error::not_a_swarm_manager)
}

/// Query of inspecting a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceQuery {
    insert_defaults: Option<String>,
}

/// `GET /services/{id}`
pub async fn service_inspect(Query(query): Query<ServiceQuery>) -> Error {
    const BOOLEANS: [&str; 12] = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    match query.insert_defaults {
        Some(text) if !BOOLEANS.contains(&text.as_str()) => Error::invalid(format!(
            "invalid value for insertDefaults: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
        _ => Error::not_a_swarm_manager(),
    }
}

/// Query of logs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogsQuery {
    stdout: bool,
    stderr: bool,
}

/// `GET /services/{id}/logs` and `/tasks/{id}/logs`
pub async fn logs(Query(query): Query<LogsQuery>) -> Error {
    if query.stdout || query.stderr {
        return Error::not_a_swarm_manager();
    }
    // 500 in dockerd too.
    Error::system("Bad parameters: you must choose at least one stream")
}

/// `PUT /volumes/{name}`, which changes volumes of a cluster.
pub async fn volume_update(_: Path) -> Error {
    Error::unavailable("volume update only valid for cluster volumes, but swarm is unavailable")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, header};

    use crate::api::testing;

    /// As dockerd 28 answered.
    #[tokio::test]
    async fn calls_are_answered_as_outside_a_swarm() {
        let manager = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
                       this node to swarm and try again.";
        let (state, _folder) = testing::state().await;
        for (method, path, body, status, text) in [
            ("GET", "/swarm", "", 503, manager),
            ("GET", "/nodes?filters=x", "", 400, "invalid filter"),
            ("GET", "/tasks", "", 503, manager),
            ("POST", "/services/create", "{}", 503, manager),
            ("POST", "/swarm/init", "{}", 400, "invalid ListenAddr \"\": invalid empty address"),
            ("POST", "/swarm/join", "", 400, "invalid ListenAddr \"\": invalid empty address"),
            (
                "POST",
                "/swarm/init",
                r#"{"ListenAddr":"0.0.0.0:2377"}"#,
                501,
                "swarm mode is not implemented by ringer, which is a single daemon",
            ),
            ("POST", "/swarm/leave?force=1", "", 503, "This node is not part of a swarm"),
            (
                "POST",
                "/nodes/a/update",
                "{}",
                400,
                "invalid node version '': strconv.ParseUint: parsing \"\": invalid syntax",
            ),
            ("POST", "/secrets/a/update?version=x", "{}", 400, "invalid secret version"),
            ("POST", "/configs/a/update?version=1", "{}", 503, manager),
            (
                "GET",
                "/services/a?insertDefaults=x",
                "",
                400,
                "invalid value for insertDefaults: x: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
            ("GET", "/services/a/logs", "", 500, "Bad parameters: you must choose at least one stream"),
            ("GET", "/tasks/a/logs?stderr=1", "", 503, manager),
            (
                "PUT",
                "/volumes/a?version=1",
                "{}",
                503,
                "volume update only valid for cluster volumes, but swarm is unavailable",
            ),
        ] {
            let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
            let (answered, answer) = testing::send(&state, request.body(Body::from(body)).unwrap()).await;
            assert_eq!((answered, answer["message"].as_str()), (status, Some(text)), "{method} {path}");
        }
    }
}
