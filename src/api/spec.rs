//! The description of what is served, made from the route table: `api-spec/openapi.json`, `docs/api.md` and
//! `api-spec/fields.toml`, `docs/api-versions.md`. `make api-spec` writes the files; without it these tests compare them.

mod document;
mod facts;
mod fields;
mod samples;
mod table;
mod versions;

use std::{collections::BTreeMap, fs, path::Path};

use axum::body::Body;
use http::Request;

use self::facts::{Agents, Facts, Operation, Reasons};
use super::{query::recorded, routes::routes, testing};
use crate::{api::ApiState, edge::route::Route};

/// What a call does.
enum Status {
    Served,
    /// Always an error, with the reason.
    Refused(String),
    /// 501, with the reason.
    NotImplemented(String),
}

/// What needs a swarm.
const SWARM_TAGS: [&str; 6] = ["Swarm", "Node", "Service", "Task", "Secret", "Config"];

fn status(route: &Route<ApiState>, operation: &Operation, reasons: &Reasons) -> Status {
    if !route.is_served() {
        let reason = reasons.not_implemented.get(route.operation);
        return Status::NotImplemented(
            reason.unwrap_or_else(|| panic!("api-spec/reasons.toml says nothing of {}", route.operation)).clone(),
        );
    }
    match reasons.refused.get(route.operation) {
        Some(reason) => Status::Refused(reason.clone()),
        None if SWARM_TAGS.contains(&operation.tag.as_str()) => {
            Status::Refused("As by a dockerd that is in no swarm: always 503.".to_owned())
        }
        None => Status::Served,
    }
}

/// Compares a generated file with the committed one, or writes it.
fn settle(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("RINGER_WRITE_API_SPEC").is_some() {
        fs::write(&path, text).unwrap();
    } else {
        let is_fresh = fs::read_to_string(&path).is_ok_and(|committed| committed == text);
        assert!(is_fresh, "{} is stale: run `make api-spec`", path.display());
    }
}

/// The fields of the query that each handler reads, by operationId: each is asked once, about nothing.
async fn queries(routes: &[Route<ApiState>]) -> BTreeMap<&'static str, Vec<&'static str>> {
    let (state, _folder) = testing::state().await;
    let mut queries = BTreeMap::new();
    for route in routes.iter().filter(|route| route.is_served()) {
        let path = route.path.replace("{id}", "nothing").replace("{name}", "nothing");
        let request = Request::builder().method(route.method.clone()).uri(path);
        recorded::take();
        testing::oneshot(&state, request.body(Body::empty()).unwrap()).await;
        queries.insert(route.operation, recorded::take());
    }
    queries
}

#[test]
fn every_call_of_dockers_specification_has_a_route() {
    let routes = routes();
    for operation in Facts::read().operations {
        let found = routes.iter().any(|route| {
            route.operation == operation.operation
                && route.method.as_str() == operation.method
                && route.path == operation.path
        });
        assert!(found, "{} {} ({}) is not in the table", operation.method, operation.path, operation.operation);
    }
}

#[tokio::test]
async fn description_and_table_are_those_of_the_routes() {
    let (facts, agents, reasons) = (Facts::read(), Agents::read(), Reasons::read());
    let routes = routes();
    let queries = queries(&routes).await;
    let fates = fields::fates(&facts, &routes).await;
    let fields = fields::file(&fates);
    settle("api-spec/fields.toml", &fields);
    let document = document::document(&facts, &reasons, &routes, &queries, &fates);
    settle("api-spec/openapi.json", &format!("{}\n", serde_json::to_string_pretty(&document).unwrap()));
    settle("docs/api.md", &table::table(&facts, &agents, &reasons, &routes, &fates));
}
