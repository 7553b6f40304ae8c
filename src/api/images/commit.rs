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
    engine::{images::CommitRequest, tenants::Scope},
    model::{Error, Result, container::Config},
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
    scope: Scope,
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
    let id = api.engine.image_commit(&scope, request).await?;
    Ok(created(json!({ "Id": id })))
}

/// What the query says. dockerode sends its options twice, in the query and among the fields of the body, where dockerd
/// does not look at them.
const QUERY_FIELDS: [&str; 7] = ["container", "repo", "tag", "comment", "author", "pause", "changes"];

/// The answer has no place for warnings.
fn known(body: &RawBody) -> Result<Config> {
    let (config, unknown) = body.parse::<Config>()?;
    match unknown.iter().find(|field| !QUERY_FIELDS.contains(&field.as_str())) {
        Some(field) => Err(Error::not_implemented(format!("ringer does not know the field {field}"))),
        None => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::FromRequest};
    use http::{Request, header};

    use super::*;

    async fn read(body: &'static str) -> Result<Config> {
        let request = Request::post("/commit").header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
        known(&RawBody::from_request(request.expect("a request"), &()).await?)
    }

    #[tokio::test]
    async fn options_that_dockerode_sends_a_second_time_are_no_unknown_fields() {
        let body = r#"{"repo":"a","tag":"b","comment":"","author":"","pause":true,"changes":"CMD x","container":"c","User":"u"}"#;
        assert_eq!(read(body).await.unwrap().user, "u");
        assert_eq!(read(r#"{"Usr":"u"}"#).await.unwrap_err().to_string(), "ringer does not know the field Usr");
    }
}
