//! `api-spec/openapi.json`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Status,
    facts::{Facts, Operation, Reasons, is_leaf},
    fields::{Fate, Fates},
    status,
};
use crate::{
    api::{ApiState, compat::ApiVersion},
    edge::route::Route,
};

/// The whole document.
pub fn document(
    facts: &Facts,
    reasons: &Reasons,
    routes: &[Route<ApiState>],
    queries: &BTreeMap<&'static str, Vec<&'static str>>,
    fates: &Fates,
) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let operation = facts.operation_or_own(route);
        let mut described = json!({ "operationId": route.operation, "tags": [operation.tag] });
        match status(route, &operation, reasons) {
            Status::Served => {
                let read = queries.get(route.operation).map(Vec::as_slice).unwrap_or_default();
                described["parameters"] = parameters(route, &operation, read);
                let not_read: Vec<_> = operation.query.iter().filter(|name| !read.contains(&name.as_str())).collect();
                if !not_read.is_empty() {
                    described["x-ringer-query-not-read"] = json!(not_read);
                }
                if let Some(body) = body(facts, &operation, fates) {
                    described["requestBody"] = body;
                }
            }
            Status::Refused(reason) => described["x-ringer-refused"] = json!(reason),
            Status::NotImplemented(reason) => described["x-ringer-not-implemented"] = json!(reason),
        }
        described["responses"] = json!({ "default": { "description": "As Docker's specification says." } });
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_lowercase()] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "What ringer serves of the Docker Engine API",
            "version": ApiVersion::NEWEST.to_string(),
            "description": "Generated from the route table by `make api-spec`. Names of fields are those of Docker's \
                specification; `x-ringer` says what becomes of a field that is not carried out. Answers are Docker's.",
        },
        "paths": paths,
    })
}

impl Facts {
    /// What Docker's specification says, or for a call that it leaves out, the bare route.
    pub fn operation_or_own(&self, route: &Route<ApiState>) -> Operation {
        let known = self.operations.iter().find(|operation| operation.operation == route.operation);
        let list =
            |of: fn(&Operation) -> &Vec<String>| known.map(|operation| of(operation).clone()).unwrap_or_default();
        Operation {
            method: route.method.to_string(),
            path: route.path.to_owned(),
            operation: route.operation.to_owned(),
            tag: known.map_or("Other", |operation| &operation.tag).to_owned(),
            query: list(|operation| &operation.query),
            header: list(|operation| &operation.header),
            body: known.and_then(|operation| operation.body.clone()),
        }
    }
}

fn parameters(route: &Route<ApiState>, operation: &Operation, read: &[&str]) -> Value {
    let name = route.path.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(name, _)| name);
    let in_path = name.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text() }));
    let in_query = read.iter().map(|name| json!({ "name": name, "in": "query", "schema": text() }));
    let in_header = operation.header.iter().map(|name| json!({ "name": name, "in": "header", "schema": text() }));
    in_path.into_iter().chain(in_query).chain(in_header).collect()
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn body(facts: &Facts, operation: &Operation, fates: &Fates) -> Option<Value> {
    let (kind, schema) = match operation.body.as_deref()? {
        "bytes" => ("application/x-tar", json!({ "type": "string", "format": "binary" })),
        _ => {
            let shape = facts.bodies.get(&operation.operation)?;
            ("application/json", schema(shape, "", fates.get(operation.operation.as_str())))
        }
    };
    Some(json!({ "content": { kind: { "schema": schema } } }))
}

fn schema(shape: &Value, path: &str, fates: Option<&BTreeMap<String, Fate>>) -> Value {
    let below = |shape: &Value, suffix: &str| {
        // What stands in a list or map of plain values has no fate of its own.
        if is_leaf(shape) { schema(shape, path, None) } else { schema(shape, &format!("{path}{suffix}"), fates) }
    };
    let mut described = match shape {
        Value::Object(fields) if fields.contains_key("*") => {
            json!({ "type": "object", "additionalProperties": below(&fields["*"], "{}") })
        }
        Value::Object(fields) => {
            let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let properties: Map<String, Value> =
                fields.iter().map(|(name, shape)| (name.clone(), schema(shape, &join(name), fates))).collect();
            json!({ "type": "object", "properties": properties })
        }
        Value::Array(items) => json!({ "type": "array", "items": below(&items[0], "[]") }),
        Value::String(name) => match name.split_once(':') {
            Some((name, words)) => json!({ "type": name, "enum": words.split('|').collect::<Vec<_>>() }),
            None if name == "any" => json!({}),
            None => json!({ "type": name }),
        },
        _ => json!({}),
    };
    if is_leaf(shape)
        && let Some(fate) = fates.and_then(|fates| fates.get(path)).and_then(Fate::exception)
    {
        described["x-ringer"] = json!(fate);
    }
    described
}
