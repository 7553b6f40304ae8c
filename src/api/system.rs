//! Handlers for the daemon itself.

pub mod df;

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};

use super::{
    ApiState,
    answer::Json,
    buildkit,
    compat::{self, ApiVersion},
    query::Query,
    stream::JsonStream,
};
use crate::{
    engine::{
        system::{ApiRange, EventsQuery},
        tenants::Scope,
    },
    model::{
        Error,
        event::{Event, EventType},
        filters::Filters,
        id::TenantId,
        time::Timestamp,
    },
};

/// `GET /_ping`
pub async fn system_ping(State(api): State<ApiState>, tenant: Option<Extension<TenantId>>) -> Response {
    ping(&api, tenant, "OK")
}

/// `HEAD /_ping`
pub async fn system_ping_head(State(api): State<ApiState>, tenant: Option<Extension<TenantId>>) -> Response {
    ping(&api, tenant, "")
}

/// Version negotiation of every Go client reads these headers. `Builder-Version` 2 sends `docker build` of CLI up to 22 to BuildKit,
/// 1 to the classic builder. Newer ones do not ask.
fn ping(api: &ApiState, tenant: Option<Extension<TenantId>>, body: &'static str) -> Response {
    let has_buildkit = tenant.is_some_and(|Extension(tenant)| buildkit::builder(api, &tenant).is_ok());
    let builder = HeaderValue::from_static(if has_buildkit { "2" } else { "1" });
    let headers = [
        (HeaderName::from_static("builder-version"), builder),
        (HeaderName::from_static("swarm"), HeaderValue::from_static("inactive")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    (headers, body).into_response()
}

/// `GET /version`
pub async fn system_version(State(api): State<ApiState>, scope: Scope) -> Result<Response, Error> {
    let range = ApiRange { newest: ApiVersion::NEWEST.to_string(), oldest: ApiVersion::OLDEST.to_string() };
    let version = api.engine.system_version(&scope, range).await?;
    Ok(Json(version).into_response())
}

/// `GET /info`
pub async fn system_info(State(api): State<ApiState>, scope: Scope, version: ApiVersion) -> Result<Response, Error> {
    let info = api.engine.system_info(&scope).await?;
    Ok(Json(compat::system_info(version, &info)?).into_response())
}

/// Query of `GET /events`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventsParameters {
    since: Option<String>,
    until: Option<String>,
    filters: Filters,
}

/// `GET /events`
pub async fn system_events(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<EventsParameters>,
    answer: JsonStream,
) -> Result<Response, Error> {
    let events = api.engine.system_events(&scope, query.read()?);
    let wanted = events.filter(move |event| std::future::ready(version.has_event(event)));
    Ok(answer.negotiated(wanted.map(move |event| Ok(EventMessage::new(version, event)))))
}

impl EventsParameters {
    fn read(self) -> Result<EventsQuery, Error> {
        let time = |name: &str, text: &Option<String>| match text {
            Some(text) => Timestamp::parse_query(text)
                .map(Some)
                .map_err(|error| error.context(format!("invalid value for '{name}'"))),
            None => Ok(None),
        };
        let query = EventsQuery {
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            filters: self.filters,
        };
        if query.until.zip(query.since).is_some_and(|(until, since)| until < since) {
            let [since, until] = [self.since, self.until].map(Option::unwrap_or_default);
            return Err(Error::invalid(format!("`since` time ({since}) cannot be after `until` time ({until})")));
        }
        Ok(query)
    }
}

/// An event as dockerd writes it.
#[derive(Serialize)]
struct EventMessage {
    #[serde(flatten)]
    legacy: Option<LegacyEvent>,
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
    scope: &'static str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Serialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: indexmap::IndexMap<String, String>,
}

/// What stood in every event of containers and images before there were actors.
#[derive(Serialize)]
struct LegacyEvent {
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    from: String,
}

impl EventMessage {
    fn new(version: ApiVersion, event: Event) -> Self {
        let legacy = version.has_legacy_event_fields() && matches!(event.kind, EventType::Container | EventType::Image);
        let legacy = legacy.then(|| LegacyEvent {
            status: event.action.clone(),
            id: event.actor.clone(),
            from: event.attributes.get("image").cloned().unwrap_or_default(),
        });
        let mut attributes = event.attributes;
        // Go writes maps in the order of their keys.
        attributes.sort_unstable_keys();
        Self {
            legacy,
            kind: event.kind.as_str(),
            action: event.action,
            actor: Actor { id: event.actor, attributes },
            scope: "local",
            time: event.time.unix(),
            time_nano: event.time.unix_nanos(),
        }
    }
}
