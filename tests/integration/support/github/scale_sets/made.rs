//! Scale sets as they are made, found and changed.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::{Asked, Model, Reply, ScaleSet, error};

/// [src: `RunnerScaleSet`]
pub fn described(model: &Model, id: i64) -> Value {
    let set = &model.service.sets[&id];
    let labels: Vec<Value> = set.labels.iter().map(|name| json!({"name": name, "type": "System"})).collect();
    json!({
        "id": id, "name": set.name, "runnerGroupId": set.group, "labels": labels,
        "createdOn": "2026-11-27T18:00:00Z", "statistics": model.statistics(id),
    })
}

/// [src: `GetRunnerScaleSet`: by the name in a group]
pub fn find(model: &Model, asked: &Asked, scope: &str) -> Reply {
    let is_it = |set: &ScaleSet| {
        set.scope == scope
            && asked.query.get("name").is_none_or(|name| set.name.eq_ignore_ascii_case(name))
            && asked.query.get("runnerGroupId").is_none_or(|group| set.group.to_string() == *group)
    };
    let all: Vec<Value> =
        model.service.sets.iter().filter(|(_, set)| is_it(set)).map(|(id, _)| described(model, *id)).collect();
    Reply::json(200, &json!({"count": all.len(), "value": all}))
}

fn asked_labels(model: &Model, asked: &Asked) -> BTreeSet<String> {
    let labels = asked.body["labels"].as_array().into_iter().flatten();
    let labels: BTreeSet<String> = labels.filter_map(|label| label["name"].as_str()).map(str::to_lowercase).collect();
    if model.service.keeps_one_label { labels.into_iter().take(1).collect() } else { labels }
}

/// [src: `CreateRunnerScaleSet`; garm: a name that is there is a bad request]
pub fn make(model: &mut Model, asked: &Asked, scope: &str) -> Reply {
    let (Some(name), Some(group)) = (asked.body["name"].as_str(), asked.body["runnerGroupId"].as_i64()) else {
        return error(400, "ArgumentException", "name and runnerGroupId are required.");
    };
    if model
        .service
        .sets
        .values()
        .any(|set| set.scope == scope && set.group == group && set.name.eq_ignore_ascii_case(name))
    {
        return error(400, "RunnerScaleSetExistsException", &format!("Runner scale set {name} already exists."));
    }
    let (id, labels) = (model.number(), asked_labels(model, asked));
    model.service.sets.insert(id, ScaleSet::new(scope, name, group, labels));
    model.service.made += 1;
    Reply::json(200, &described(model, id))
}

/// [src: `UpdateRunnerScaleSet`; assumption: labels are taken, which actions-runner-controller#4424 doubts]
pub fn update(model: &mut Model, asked: &Asked, id: i64) -> Reply {
    let labels = asked_labels(model, asked);
    let set = model.service.sets.get_mut(&id).expect("it is there");
    set.labels = labels;
    set.group = asked.body["runnerGroupId"].as_i64().unwrap_or(set.group);
    if let Some(name) = asked.body["name"].as_str() {
        name.clone_into(&mut set.name);
    }
    Reply::json(200, &described(model, id))
}

impl ScaleSet {
    fn new(scope: &str, name: &str, group: i64, labels: BTreeSet<String>) -> Self {
        Self {
            name: name.to_owned(),
            scope: scope.to_owned(),
            group,
            labels,
            session: None,
            capacity: 0,
            messages: VecDeque::new(),
            delivered: 0,
            offered: BTreeSet::new(),
        }
    }
}

impl Model {
    /// Makes a set that ringer has not made.
    pub fn foreign_set(&mut self, scope: &str, name: &str) {
        let id = self.number();
        self.service.sets.insert(id, ScaleSet::new(scope, name, 1, [name.to_lowercase()].into()));
    }
}
