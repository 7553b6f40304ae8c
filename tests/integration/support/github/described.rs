//! GitHub's own description of its REST API (OpenAPI 3.0, as npm's `@octokit/openapi` has it): the fake says nothing that is not in it,
//! and is asked nothing that is not. A field that GitHub always sends and nobody here reads may be missing from the fake's answers.

use std::{fs, path::Path, sync::LazyLock};

use serde_json::{Map, Value};

use super::model::{Asked, Reply};

/// `None` where the part is absent, which CI does not let pass.
static DESCRIPTION: LazyLock<Option<Description>> = LazyLock::new(|| {
    let folder = crate::support::part("RINGER_TEST_GITHUB_OPENAPI")?;
    Some(Description::read(&folder.join("api.github.com.json")))
});

struct Description {
    document: Value,
}

/// What of a schema is held against a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// All of it.
    Asked,
    /// Less may be said, but nothing else.
    Answered,
}

/// What is wrong with a call of this path, which begins without a `/`, and with its answer.
pub fn faults(asked: &Asked, path: &str, reply: &Reply) -> Vec<String> {
    let Some(description) = &*DESCRIPTION else { return Vec::new() };
    let Some(operation) = description.operation(asked, path) else {
        return vec![format!("{} /{path} is no operation", asked.method)];
    };
    let name = operation["operationId"].as_str().unwrap_or_default();
    let all = [
        description.query_faults(asked, operation),
        description.body_faults(asked, operation),
        description.answer_faults(operation, reply),
    ];
    all.concat().into_iter().map(|fault| format!("{name}: {fault}")).collect()
}

impl Description {
    fn read(file: &Path) -> Self {
        let text = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self { document: serde_json::from_slice(&text).expect("JSON") }
    }

    /// The operation of a call; a path with fewer parameters goes before.
    fn operation(&self, asked: &Asked, path: &str) -> Option<&Value> {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &str| {
            let template: Vec<&str> = template[1..].split('/').collect();
            let is_it = |(want, part): (&&str, &&str)| want.starts_with('{') || want == part;
            // The path of a file in a repository has its own slashes.
            let is_long = template.last() == Some(&"{path}") && template.len() < parts.len();
            (is_long || template.len() == parts.len()) && template.iter().zip(&parts).all(is_it)
        };
        let fitting = self.document["paths"].as_object().expect("paths").iter().filter(|(template, _)| fits(template));
        let (_, operations) = fitting.min_by_key(|(template, _)| template.matches('{').count())?;
        operations.get(asked.method.to_lowercase())
    }

    /// What a reference leads to, or the thing itself.
    fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer.map_or(value, |pointer| self.document.pointer(pointer).expect("a reference within"))
    }

    fn query_faults(&self, asked: &Asked, operation: &Value) -> Vec<String> {
        let parameters = operation["parameters"].as_array().into_iter().flatten().map(|each| self.resolved(each));
        let named: Vec<&Value> = parameters.filter(|each| each["in"] == "query").map(|each| &each["name"]).collect();
        let unknown = asked.query.keys().filter(|name| named.iter().all(|known| *known != name.as_str()));
        unknown.map(|name| format!("no parameter {name}")).collect()
    }

    fn body_faults(&self, asked: &Asked, operation: &Value) -> Vec<String> {
        let body = self.resolved(&operation["requestBody"]);
        let schema = &body["content"]["application/json"]["schema"];
        match (schema.is_null(), asked.body.is_null()) {
            (true, true) => Vec::new(),
            (true, false) => vec!["a body that is not expected".to_owned()],
            (false, true) if body["required"] != true => Vec::new(),
            (false, _) => self.value_faults(schema, Side::Asked, &asked.body),
        }
    }

    fn answer_faults(&self, operation: &Value, reply: &Reply) -> Vec<String> {
        let said = serde_json::from_str(&reply.body).unwrap_or_default();
        // Which errors and which 304s there are is not described for each operation; what an error looks like is.
        match reply.status {
            304 => return Vec::new(),
            400.. => {
                return self.value_faults(
                    &self.document["components"]["schemas"]["basic-error"],
                    Side::Answered,
                    &said,
                );
            }
            _ => (),
        }
        let response = self.resolved(&operation["responses"][reply.status.to_string()]);
        let schema = &response["content"]["application/json"]["schema"];
        match (response.is_null(), schema.is_null(), reply.body.is_empty()) {
            (true, ..) => vec![format!("status {} is not described", reply.status)],
            (_, true, true) => Vec::new(),
            (_, true, false) => vec!["an answer with a body that is not described".to_owned()],
            _ => self.value_faults(schema, Side::Answered, &said),
        }
    }

    fn value_faults(&self, schema: &Value, side: Side, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.compare(&Part { schema, side, path: String::new(), shares: false }, value, &mut faults);
        faults
    }

    /// Goes through a value and what is said of it; as deep as the value is.
    fn compare(&self, part: &Part, value: &Value, faults: &mut Vec<String>) {
        let schema = self.resolved(part.schema);
        let part = Part { schema, side: part.side, path: part.path.clone(), shares: part.shares };
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        if !is_of_type(schema, value) {
            faults.push(format!("{}: {value} is no {}", part.path, schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
            faults.push(format!("{}: {value} is none of {}", part.path, schema["enum"]));
        }
        for each in schema["allOf"].as_array().into_iter().flatten() {
            self.compare(&Part { schema: each, shares: true, ..part.clone() }, value, faults);
        }
        for any in ["anyOf", "oneOf"].iter().filter_map(|key| schema[key].as_array()) {
            let fits = |each: &&Value| {
                let mut faults = Vec::new();
                self.compare(&Part { schema: each, ..part.clone() }, value, &mut faults);
                faults.is_empty()
            };
            if any.iter().filter(fits).count() == 0 {
                faults.push(format!("{}: {value} is nothing that may stand here", part.path));
            }
        }
        match value {
            Value::Object(fields) => self.compare_fields(&part, fields, faults),
            Value::Array(entries) => {
                let count = entries.len() as u64;
                if schema["minItems"].as_u64() > Some(count)
                    || schema["maxItems"].as_u64().is_some_and(|most| count > most)
                {
                    faults.push(format!("{}: {count} entries", part.path));
                }
                for (index, entry) in entries.iter().enumerate() {
                    self.compare(&part.below(&schema["items"], index), entry, faults);
                }
            }
            _ => (),
        }
    }

    fn compare_fields(&self, part: &Part, fields: &Map<String, Value>, faults: &mut Vec<String>) {
        let Part { schema, path, .. } = part;
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let missing = required.filter(|name| part.side == Side::Asked && !fields.contains_key(*name));
        faults.extend(missing.map(|name| format!("{path}: {name} is missing")));
        let joins = ["allOf", "anyOf", "oneOf"].iter().any(|key| schema.get(key).is_some());
        let is_closed = !part.shares && !joins && schema["additionalProperties"].is_null();
        for (name, value) in fields {
            match schema["properties"].get(name) {
                Some(schema) => self.compare(&part.below(schema, name), value, faults),
                None if is_closed && schema.get("properties").is_some() => {
                    faults.push(format!("{path}: no field {name}"))
                }
                None => (),
            }
        }
    }
}

/// A place in a value, and what is said of it.
#[derive(Clone)]
struct Part<'d> {
    schema: &'d Value,
    side: Side,
    path: String,
    /// Other schemas speak of the same object, which may have their fields too.
    shares: bool,
}

impl<'d> Part<'d> {
    fn below(&self, schema: &'d Value, name: impl std::fmt::Display) -> Self {
        Self { schema, side: self.side, path: format!("{}/{name}", self.path), shares: false }
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;

    fn faults_of(method: &str, path: &str, body: &Value, reply: &Reply) -> Option<usize> {
        DESCRIPTION.as_ref()?;
        let (parts, ()) = Request::builder().method(method).uri(format!("/{path}")).body(()).unwrap().into_parts();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = path.split('?').next().unwrap();
        Some(faults(&Asked::new(&parts, &body.into()), path, reply).len())
    }

    #[test]
    fn what_github_does_not_describe_is_told() {
        let said = |status, body| Reply::json(status, &body);
        let runner = json!({"id": 1, "name": "a", "os": "linux", "status": "online", "busy": false, "labels": []});
        let mut typo = runner.clone();
        typo["buzy"] = json!(true);
        let list = |runner: &Value| json!({"total_count": 1, "runners": [runner]});
        let config = json!({"name": "a", "runner_group_id": 1, "labels": ["x"]});
        let made = |runner: &Value| json!({"runner": runner, "encoded_jit_config": "e30="});
        for (method, path, body, reply, count) in [
            ("GET", "orgs/a/actions/runners?per_page=100", Value::Null, said(200, list(&runner)), 0),
            ("GET", "orgs/a/actions/runners?perpage=100", Value::Null, said(200, list(&runner)), 1),
            ("GET", "orgs/a/actions/runners", Value::Null, said(200, list(&typo)), 1),
            ("GET", "orgs/a/actions/runners", Value::Null, said(200, json!({"total_count": "1", "runners": []})), 1),
            ("GET", "orgs/a/actions/runners", Value::Null, said(202, list(&runner)), 1),
            ("GET", "orgs/a/actions/runners", Value::Null, Reply::error(403, "no"), 0),
            ("GET", "orgs/a/actions/runners", Value::Null, said(403, json!({"massage": "no"})), 1),
            ("GET", "orgs/a/actions/walkers", Value::Null, Reply::error(404, "Not Found"), 1),
            ("POST", "orgs/a/actions/runners/generate-jitconfig", config.clone(), said(201, made(&runner)), 0),
            ("POST", "orgs/a/actions/runners/generate-jitconfig", json!({"name": "a"}), said(201, made(&runner)), 2),
            ("POST", "orgs/a/actions/runners/generate-jitconfig", Value::Null, said(201, made(&runner)), 1),
            ("DELETE", "orgs/a/actions/runners/7", Value::Null, Reply::empty(204), 0),
            ("GET", "repos/a/b/contents/c/d.yml?ref=e", Value::Null, Reply::error(404, "Not Found"), 0),
        ] {
            let Some(found) = faults_of(method, path, &body, &reply) else { return };
            assert_eq!(found, count, "{method} {path} {body} {reply:?}");
        }
    }
}
