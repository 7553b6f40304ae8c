//! The common form of dockerd's answers and ours: what `golden/refresh` does in jq.

use std::collections::BTreeSet;

use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::model::{Error, ErrorKind, container::MountPoint};

/// What a request comes to.
pub(super) enum Answer {
    Refused(Error),
    Made { warnings: Vec<String>, mounts: Vec<MountPoint>, spec: Box<Spec> },
}

/// dockerd's answer with the plain case laid below. Errors of start lose their status, since some of them we find at
/// create already; those of the OCI runtime lose what shim and containerd put in front.
pub(super) fn expected(answer: &Value, plain: &Value) -> Value {
    if let Some(error) = answer.get("create") {
        return json!({ "error": error[1], "status": error[0] });
    }
    if let Some(error) = answer.get("start") {
        let text = error[1].as_str().unwrap_or_default();
        let from_runtime = text.rsplit_once("runc create failed: ").map(|(_, text)| text);
        return json!({ "error": from_runtime.unwrap_or(text) });
    }
    let mut spec = plain["spec"].clone();
    merge_patch(&mut spec, &answer["spec"]);
    strip_nulls(&mut spec);
    let or_empty = |field: &str| answer.get(field).cloned().unwrap_or_else(|| json!([]));
    json!({ "warnings": or_empty("warnings"), "mounts": or_empty("mounts"), "spec": spec })
}

/// Our answer in the same form.
pub(super) fn ours(answer: Answer) -> Value {
    match answer {
        Answer::Refused(error) => {
            let status = match error.kind() {
                ErrorKind::InvalidParameter => 400,
                ErrorKind::NotFound => 404,
                _ => 500,
            };
            json!({ "error": error.message(), "status": status })
        }
        Answer::Made { warnings, mounts, spec } => {
            let mut spec = serde_json::to_value(*spec).expect("a spec is JSON");
            normalise(&mut spec);
            strip_nulls(&mut spec);
            json!({ "warnings": warnings, "mounts": inspect_mounts(&mounts), "spec": spec })
        }
    }
}

/// The first paths at which two documents differ; `None` if they are equal.
pub(super) fn difference(expected: &Value, ours: &Value) -> Option<String> {
    let mut found = Vec::new();
    compare("", expected, ours, &mut found);
    (!found.is_empty()).then(|| found.join("; "))
}

fn compare(path: &str, expected: &Value, ours: &Value, found: &mut Vec<String>) {
    match (expected, ours) {
        (Value::Object(left), Value::Object(right)) => {
            let is_start_error = left.contains_key("error") && !left.contains_key("status");
            let keys: BTreeSet<&String> = left.keys().chain(right.keys().filter(|_| !is_start_error)).collect();
            for key in keys {
                let get = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                compare(&format!("{path}/{key}"), &get(left), &get(right), found);
            }
        }
        _ if expected == ours => {}
        _ => found.push(format!("{path}: dockerd {expected}, ours {ours}")),
    }
}

/// RFC 7386.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("it was just made one");
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn strip_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(strip_nulls);
    }
}

fn normalise(spec: &mut Value) {
    let map = spec.as_object_mut().expect("a spec is an object");
    map.remove("ociVersion");
    map.remove("hooks");
    spec["root"].as_object_mut().expect("there is a root").remove("path");
    if spec["root"]["readonly"] == json!(false) {
        spec["root"].as_object_mut().expect("there is a root").remove("readonly");
    }
    for (_, set) in spec["process"]["capabilities"].as_object_mut().expect("there are capabilities") {
        set.as_array_mut().expect("a set is a list").sort_by_key(ToString::to_string);
    }
    spec["mounts"] = keyed(&spec["mounts"], "destination");
    let linux = &mut spec["linux"];
    linux["namespaces"] = namespaces(&linux["namespaces"]);
    linux["seccomp"] = digest(&linux["seccomp"]);
    linux["resources"]["devices"] = last_round(&linux["resources"]["devices"]);
    if linux.get("devices").and_then(Value::as_array).is_some_and(|devices| devices.len() > 20) {
        linux["devices"] = json!("ALL");
    }
}

fn keyed(list: &Value, key: &str) -> Value {
    let entries = list.as_array().expect("a list").iter().map(|entry| {
        let mut entry = entry.as_object().expect("of objects").clone();
        let name = entry.remove(key).and_then(|name| name.as_str().map(str::to_owned)).expect("with a name");
        (name, Value::Object(entry))
    });
    Value::Object(entries.collect())
}

fn namespaces(list: &Value) -> Value {
    let entries = list.as_array().expect("a list").iter().map(|entry| {
        let path = entry.get("path").cloned().unwrap_or_else(|| json!("own"));
        (entry["type"].as_str().expect("with a type").to_owned(), path)
    });
    Value::Object(entries.collect())
}

/// A rule on all devices undoes those before it.
fn last_round(rules: &Value) -> Value {
    let rules = rules.as_array().expect("a list");
    let on_all = |rule: &Value| rule.get("type").is_none() && rule.get("major").is_none();
    let from = rules.iter().rposition(on_all).unwrap_or(0);
    json!(rules[from..])
}

/// The filter's canonical form, cut to 16 digits of its digest.
fn digest(seccomp: &Value) -> Value {
    if seccomp.is_null() {
        return Value::Null;
    }
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut arches: Vec<String> = seccomp["architectures"].as_array().into_iter().flatten().map(text).collect();
    arches.sort();
    let mut rules = BTreeSet::new();
    for rule in seccomp["syscalls"].as_array().into_iter().flatten() {
        let argument = |arg: &Value| {
            let second = arg.get("valueTwo").cloned().unwrap_or_else(|| json!(0));
            format!("{} {} {second} {}", arg["index"], arg["value"], text(&arg["op"]))
        };
        let arguments: Vec<String> = rule["args"].as_array().into_iter().flatten().map(argument).collect();
        for name in rule["names"].as_array().into_iter().flatten() {
            rules.insert(format!(
                "{} {} {} {}",
                text(name),
                text(&rule["action"]),
                text(&rule["errnoRet"]),
                arguments.join(";")
            ));
        }
    }
    let head = format!("{} {}", text(&seccomp["defaultAction"]), text(&seccomp["defaultErrnoRet"]));
    let lines: Vec<String> = [head, arches.join(" ")].into_iter().chain(rules).collect();
    let hash = Sha256::digest(format!("{}\n", lines.join("\n")));
    json!(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// As inspect's `Mounts` lists them.
fn inspect_mounts(mounts: &[MountPoint]) -> Value {
    let mut listed: Vec<&MountPoint> = mounts.iter().filter(|mount| !mount.hidden).collect();
    listed.sort_by_key(|mount| mount.destination.clone());
    let entry = |mount: &&MountPoint| {
        let mut entry = json!({ "Type": mount.kind });
        let fields = [
            ("Name", &mount.name),
            ("Source", &mount.source),
            ("Destination", &mount.destination),
            ("Driver", &mount.driver),
        ];
        for (name, value) in fields {
            if !value.is_empty() || name == "Source" {
                entry[name] = json!(value);
            }
        }
        entry["Mode"] = json!(mount.mode);
        entry["RW"] = json!(mount.rw);
        entry["Propagation"] = json!(mount.propagation);
        entry
    };
    json!(listed.iter().map(entry).collect::<Vec<_>>())
}
