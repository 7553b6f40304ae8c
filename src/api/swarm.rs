//! Swarm, and the kinds of objects that exist only in one, answered as by a dockerd that is in none: a single
//! daemon is never a manager. Plugins cannot be installed, so there are none.

use axum::response::{IntoResponse, Response};

use super::answer::Json;
use crate::model::Error;

/// Every call on swarms, nodes, services, tasks, secrets and configs.
pub async fn not_a_manager() -> Error {
    Error::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    )
}

/// `POST /swarm/leave`
pub async fn swarm_leave() -> Error {
    Error::unavailable("This node is not part of a swarm")
}

/// `GET /plugins`
pub async fn plugin_list() -> Response {
    Json([(); 0]).into_response()
}

/// `GET /plugins/{name}/json`, which `docker inspect` asks when nothing else has the name.
pub async fn plugin_inspect(super::extract::Path(name): super::extract::Path) -> Error {
    Error::not_found(format!("plugin \"{name}\" not found"))
}
