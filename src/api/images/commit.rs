//! `POST /commit`.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{
        ApiState,
        answer::created,
        body::RawBody,
        query::{Query, is_true},
    },
    engine::images::CommitRequest,
    model::{Error, Result, container::Config, id::Tenant},
};

/// Query of commit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CommitQuery {
    container: String,
    repo: String,
    tag: String,
    comment: String,
    author: String,
    /// True unless given.
    pause: String,
    changes: Vec<String>,
}

/// `POST /commit`
pub async fn image_commit(
    State(api): State<ApiState>,
    tenant: Tenant,
    Query(query): Query<CommitQuery>,
    body: RawBody,
) -> Result<Response> {
    let config = match body.is_empty() {
        true => None,
        false => Some(known(&body)?),
    };
    let request = CommitRequest {
        container: query.container,
        repository: query.repo,
        tag: query.tag,
        comment: query.comment,
        author: query.author,
        pause: query.pause.is_empty() || is_true(&query.pause),
        changes: query.changes,
        config,
    };
    let id = api.engine.image_commit(&tenant, request).await?;
    Ok(created(json!({ "Id": id })))
}

/// The answer has no place for warnings.
fn known(body: &RawBody) -> Result<Config> {
    let (config, unknown) = body.parse::<Config>()?;
    match unknown.first() {
        Some(field) => Err(Error::not_implemented(format!("ringer does not know the field {field}"))),
        None => Ok(config),
    }
}
