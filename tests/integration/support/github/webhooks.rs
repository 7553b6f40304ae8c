//! Webhooks of organisations and repositories: what is made is kept, and nothing is sent, which tests do themselves.

use serde_json::{Value, json};

use super::{
    Asked, Model,
    model::Reply,
    rest::{linked, not_found, page},
};

/// One that was made.
pub struct Webhook {
    pub id: i64,
    pub scope: String,
    pub url: String,
    pub secret: String,
}

impl Webhook {
    fn described(&self) -> Value {
        json!({
            "id": self.id, "name": "web", "type": "Repository", "active": true, "events": ["workflow_job"],
            // [oas: a secret is answered as stars]
            "config": {"url": self.url, "content_type": "json", "insecure_ssl": "0", "secret": "********"},
        })
    }
}

/// `orgs/list-webhooks`, `repos/list-webhooks`.
pub fn list(model: &Model, asked: &Asked, scope: &str) -> Reply {
    let all: Vec<Value> = model.webhooks.iter().filter(|hook| hook.scope == scope).map(Webhook::described).collect();
    let (page, next) = page(model, asked, &all);
    linked(Reply::json(200, &json!(page)), next)
}

/// `orgs/create-webhook`, `repos/create-webhook`. Two with one address are refused [iss: "Hook already exists on this organization"].
pub fn make(model: &mut Model, asked: &Asked, scope: &str) -> Reply {
    let text = |name: &str| asked.body["config"][name].as_str().unwrap_or_default().to_owned();
    let (url, secret) = (text("url"), text("secret"));
    let is_wanted =
        url.starts_with("http") && asked.body["name"] == "web" && asked.body["events"] == json!(["workflow_job"]);
    if !is_wanted || model.webhooks.iter().any(|hook| hook.scope == scope && hook.url == url) {
        return Reply::error(422, "Validation Failed");
    }
    let hook = Webhook { id: model.number(), scope: scope.to_owned(), url, secret };
    let reply = Reply::json(201, &hook.described());
    model.webhooks.push(hook);
    reply
}

/// `orgs/delete-webhook`, `repos/delete-webhook`.
pub fn delete(model: &mut Model, scope: &str, id: &str) -> Reply {
    let before = model.webhooks.len();
    model.webhooks.retain(|hook| hook.scope != scope || hook.id.to_string() != id);
    if model.webhooks.len() < before { Reply::empty(204) } else { not_found() }
}
