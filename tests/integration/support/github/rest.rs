//! The REST API. What a call needs and what it refuses is said at each.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Asked, Model, Shared, described,
    model::{Reply, Runner, WORKFLOW, now},
    scale_sets, webhooks,
};

/// Who asks.
enum Who {
    /// A classic token with these scopes.
    Token(Vec<&'static str>),
    /// An App's installation.
    Installation,
    /// An App itself, by its JWT.
    App,
}

pub fn answer(shared: &Shared, asked: &Asked, path: &str) -> Reply {
    let mut model = shared.lock();
    if asked.header("user-agent").is_empty() {
        // [doc: "All API requests must include a valid User-Agent header"]
        return Reply::error(403, "Request forbidden by administrative rules.");
    }
    // Not described: it is for runners and scale sets.
    if (asked.method.as_str(), path) == ("POST", "actions/runner-registration") {
        return scale_sets::register(&mut model, asked);
    }
    let Some(who) = who(&model, asked) else {
        return Reply::error(401, "Bad credentials");
    };
    let bucket = if path.ends_with("/generate-jitconfig") || path.ends_with("/registration-token") {
        "actions_runner_registration"
    } else {
        "core"
    };
    if let Some(refused) = refuse_for_limit(&mut model, bucket) {
        return refused;
    }
    let reply = route(&mut model, asked, &who, path);
    model.undescribed.extend(described::faults(asked, path, &reply));
    let reply = tagged(&mut model, asked, reply);
    let reply = counted(&mut model, bucket, reply);
    match &who {
        Who::Token(scopes) => reply.with("x-oauth-scopes", scopes.join(", ")),
        _ => reply,
    }
}

fn who(model: &Model, asked: &Asked) -> Option<Who> {
    let token = asked.bearer();
    if let Some(scopes) = model.tokens.get(token) {
        return Some(Who::Token(scopes.iter().copied().collect()));
    }
    if let Some(end) = model.installed.get(token) {
        return (*end > now()).then_some(Who::Installation);
    }
    is_of_app(model, token).then_some(Who::App)
}

/// A JWT that an App's key has signed, is good now, and for no more than 10 minutes [doc: generating a JWT for an App].
fn is_of_app(model: &Model, jwt: &str) -> bool {
    let Some((message, signature)) = jwt.rsplit_once('.') else { return false };
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let claims = message.split_once('.').and_then(|(_, claims)| serde_json::from_slice::<Value>(&decode(claims)?).ok());
    let (Some(claims), Some(signature)) = (claims, decode(signature)) else { return false };
    let Some(key) = claims["iss"].as_str().and_then(|id| model.apps.get(id)) else { return false };
    let (begun, ends) = (claims["iat"].as_u64().unwrap_or(u64::MAX), claims["exp"].as_u64().unwrap_or(0));
    let is_now = begun <= now() + 5 && ends > now() && ends.saturating_sub(begun) <= 600;
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
    is_now && key.verify(message.as_bytes(), &signature).is_ok()
}

/// [doc: rate limits for the REST API]
fn refuse_for_limit(model: &mut Model, name: &'static str) -> Option<Reply> {
    let bucket = model.buckets.get_mut(name).expect("a bucket of ours");
    if bucket.reset <= now() {
        (bucket.used, bucket.reset) = (0, now() + 3600);
    }
    (bucket.used >= bucket.limit).then(|| {
        model.limited += 1;
        let reply = Reply::error(403, "API rate limit exceeded for user ID 1.");
        with_limits(model, name, reply)
    })
}

/// What has not changed since the tag that is sent is not sent again and does not count [doc: best practices, conditional requests].
fn tagged(model: &mut Model, asked: &Asked, reply: Reply) -> Reply {
    if asked.method != "GET" || reply.status != 200 {
        return reply;
    }
    let tag = format!("W/\"{:x}\"", Sha256::digest(&reply.body));
    if asked.header("if-none-match") == tag {
        model.unchanged += 1;
        return Reply::empty(304).with("etag", tag);
    }
    reply.with("etag", tag)
}

fn counted(model: &mut Model, name: &'static str, reply: Reply) -> Reply {
    if reply.status != 304 {
        model.buckets.get_mut(name).expect("a bucket of ours").used += 1;
    }
    with_limits(model, name, reply)
}

fn with_limits(model: &Model, name: &'static str, reply: Reply) -> Reply {
    let bucket = &model.buckets[name];
    let left = bucket.limit.saturating_sub(bucket.used);
    reply
        .with("x-ratelimit-limit", bucket.limit.to_string())
        .with("x-ratelimit-remaining", left.to_string())
        .with("x-ratelimit-used", bucket.used.to_string())
        .with("x-ratelimit-reset", bucket.reset.to_string())
        .with("x-ratelimit-resource", name)
}

fn route(model: &mut Model, asked: &Asked, who: &Who, path: &str) -> Reply {
    let parts: Vec<&str> = path.split('/').collect();
    let call = (asked.method.as_str(), parts.as_slice());
    // An App's JWT is good for the App's own affairs alone.
    match (who, call) {
        (Who::App, ("GET", ["orgs", owner, "installation"])) => return installation(model, owner),
        (Who::App, ("GET", ["repos", owner, _, "installation"])) => return installation(model, owner),
        (Who::App, ("POST", ["app", "installations", id, "access_tokens"])) => return access_token(model, id),
        (Who::App, _) => return Reply::error(401, "A JSON web token could not be decoded"),
        _ => {}
    }
    let is_known = match parts.as_slice() {
        ["orgs", org, ..] => model.knows(org),
        ["repos", owner, name, ..] => model.repositories.contains(&format!("{owner}/{name}")),
        _ => false,
    };
    if !is_known {
        return not_found();
    }
    let needed = match (parts[0], parts.get(2)) {
        ("orgs", Some(&"repos")) | ("repos", _) => "repo",
        ("orgs", Some(&"hooks")) => "admin:org_hook",
        _ => "admin:org",
    };
    if let Who::Token(scopes) = who
        && !scopes.contains(&needed)
    {
        // What a private repository's or organisation's is, is hidden; of what is known to be there the scope is named [doc: scopes].
        let hidden = if needed != "admin:org" {
            not_found()
        } else {
            Reply::error(403, "You must be an org owner or have the runners permission.")
        };
        return hidden.with("x-accepted-oauth-scopes", needed);
    }
    match call {
        ("GET", ["orgs", org, "repos"]) => repositories(model, asked, org),
        ("GET", [scope @ .., "hooks"]) => webhooks::list(model, asked, &scope.join("/")),
        ("POST", [scope @ .., "hooks"]) => webhooks::make(model, asked, &scope.join("/")),
        ("DELETE", [scope @ .., "hooks", id]) => webhooks::delete(model, &scope.join("/"), id),
        ("GET", ["orgs", _, "actions", "runner-groups"]) => groups(model),
        ("GET", ["repos", owner, name, "actions", "runs"]) => runs(model, asked, &format!("{owner}/{name}")),
        ("GET", ["repos", owner, name]) => Reply::json(200, &repository(model, &format!("{owner}/{name}"))),
        ("GET", ["repos", _, _, "actions", "runs", run, "jobs"]) => jobs(model, asked, run),
        ("GET", ["repos", owner, name, "actions", "jobs", id]) => job(model, &format!("{owner}/{name}"), id),
        ("GET", ["repos", owner, name, "contents", path @ ..]) => {
            content(model, asked, &format!("{owner}/{name}"), &path.join("/"))
        }
        (_, [scope @ .., "actions", "runners"]) if asked.method == "GET" => runners(model, asked, &scope.join("/")),
        ("POST", [scope @ .., "actions", "runners", "generate-jitconfig"]) => jitconfig(model, asked, &scope.join("/")),
        ("POST", [scope @ .., "actions", "runners", "registration-token"]) => {
            scale_sets::registration_token(model, &scope.join("/"))
        }
        ("DELETE", [scope @ .., "actions", "runners", id]) => delete(model, &scope.join("/"), id),
        _ => not_found(),
    }
}

pub fn not_found() -> Reply {
    Reply::error(404, "Not Found")
}

/// `apps/get-org-installation`, `apps/get-repo-installation`.
fn installation(model: &Model, owner: &str) -> Reply {
    if !model.knows(owner) {
        return not_found();
    }
    Reply::json(
        200,
        &json!({"id": 42, "app_id": 7, "account": {"login": owner}, "repository_selection": "all", "permissions": {}}),
    )
}

/// `apps/create-installation-access-token`.
fn access_token(model: &mut Model, id: &str) -> Reply {
    if id != "42" {
        return not_found();
    }
    // The new form of these tokens is longer than the 40 characters of the old one [oas].
    let token = format!("ghs_7_{}{}", "of-an-installation-".repeat(5), model.number());
    let ends = now() + model.token_lasts;
    model.installed.insert(token.clone(), ends);
    let time = chrono::DateTime::from_timestamp(i64::try_from(ends).unwrap_or(0), 0).expect("a time");
    Reply::json(
        201,
        &json!({"token": token, "expires_at": time.format("%Y-%m-%dT%H:%M:%SZ").to_string(), "permissions": {}}),
    )
}

/// `repos/get`.
fn repository(model: &Model, name: &str) -> Value {
    let is_private = !model.public.contains(name);
    json!({"id": 1, "name": name.split('/').next_back(), "full_name": name, "private": is_private, "archived": false, "disabled": false})
}

/// `repos/list-for-org`.
fn repositories(model: &Model, asked: &Asked, org: &str) -> Reply {
    let of_org = model.repositories.iter().filter(|name| name.starts_with(&format!("{org}/")));
    let all: Vec<Value> = of_org.map(|name| repository(model, name)).collect();
    let (page, link) = page(model, asked, &all);
    linked(Reply::json(200, &json!(page)), link)
}

/// `actions/list-self-hosted-runner-groups-for-org`.
fn groups(model: &Model) -> Reply {
    let all: Vec<Value> = model
        .groups
        .iter()
        .map(|(id, name)| json!({"id": id, "name": name, "visibility": "all", "default": *id == 1, "allows_public_repositories": false}))
        .collect();
    Reply::json(200, &json!({"total_count": all.len(), "runner_groups": all}))
}

/// `actions/list-workflow-runs-for-repo`.
fn runs(model: &Model, asked: &Asked, repository: &str) -> Reply {
    let mut ids: Vec<i64> = model.jobs.values().filter(|job| job.repository == repository).map(|job| job.run).collect();
    ids.dedup();
    let wanted = asked.query.get("status");
    ids.retain(|id| wanted.is_none_or(|wanted| model.run_status(*id) == wanted));
    ids.reverse();
    let all: Vec<Value> = ids
        .iter()
        .map(|id| json!({"id": id, "name": "ci", "status": model.run_status(*id), "conclusion": null, "event": "push", "run_attempt": 1}))
        .collect();
    let (page, link) = page(model, asked, &all);
    linked(Reply::json(200, &json!({"total_count": all.len(), "workflow_runs": page})), link)
}

/// `actions/list-jobs-for-workflow-run`.
fn jobs(model: &Model, asked: &Asked, run: &str) -> Reply {
    let of_run = model.jobs.iter().filter(|(_, job)| job.run.to_string() == run);
    let all: Vec<Value> = of_run.map(|(id, _)| model.job(*id)).collect();
    let (page, link) = page(model, asked, &all);
    linked(Reply::json(200, &json!({"total_count": all.len(), "jobs": page})), link)
}

/// `actions/get-job-for-workflow-run`.
fn job(model: &Model, repository: &str, id: &str) -> Reply {
    let id = id.parse().ok().filter(|id| model.jobs.get(id).is_some_and(|job| job.repository == repository));
    id.map_or_else(not_found, |id| Reply::json(200, &model.job(id)))
}

/// `repos/get-content`: base64 in lines, as GitHub sends it [doc]; of more than 1 MiB nothing, and `none` for the encoding [doc].
fn content(model: &Model, asked: &Asked, repository: &str, path: &str) -> Reply {
    let commit = asked.query.get("ref").cloned().unwrap_or_default();
    let found = model.workflows.get(&(repository.to_owned(), commit.clone())).filter(|_| path == WORKFLOW);
    let Some(text) = found else {
        return if commit.is_empty() {
            not_found()
        } else {
            Reply::error(404, &format!("No commit found for the ref {commit}"))
        };
    };
    let encoded = BASE64_STANDARD.encode(text);
    let lines: Vec<&str> = encoded.as_bytes().chunks(60).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let (encoding, content) =
        if text.len() > 1 << 20 { ("none", String::new()) } else { ("base64", lines.join("\n") + "\n") };
    Reply::json(
        200,
        &json!({"type": "file", "encoding": encoding, "size": text.len(), "name": "ci.yml", "path": path, "content": content, "sha": commit}),
    )
}

/// `runner` of the OpenAPI description.
fn described(id: i64, runner: &Runner) -> Value {
    let status = if runner.session.is_some() { "online" } else { "offline" };
    let labels: Vec<Value> = runner.labels.iter().map(|name| json!({"name": name, "type": "custom"})).collect();
    json!({
        "id": id, "runner_group_id": runner.group, "name": runner.name, "os": "unknown", "status": status,
        "busy": runner.job.is_some(), "ephemeral": true, "labels": labels,
    })
}

/// `actions/list-self-hosted-runners-for-org`, `…-for-repo`: those of an organisation's repositories are not among its own.
fn runners(model: &Model, asked: &Asked, scope: &str) -> Reply {
    let at = model.runners.iter().filter(|(_, runner)| runner.scope == scope);
    let all: Vec<Value> = at.map(|(id, runner)| described(*id, runner)).collect();
    let (page, link) = page(model, asked, &all);
    linked(Reply::json(200, &json!({"total_count": all.len(), "runners": page})), link)
}

/// `actions/generate-runner-jitconfig-for-org`, `…-for-repo`.
fn jitconfig(model: &mut Model, asked: &Asked, scope: &str) -> Reply {
    let (Some(name), Some(group), Some(labels)) =
        (asked.body["name"].as_str(), asked.body["runner_group_id"].as_i64(), asked.body["labels"].as_array())
    else {
        return Reply::error(422, "Invalid request.");
    };
    if labels.is_empty() || labels.len() > 100 {
        return Reply::error(422, "Invalid request: labels.");
    }
    if !model.groups.iter().any(|(id, _)| *id == group) {
        return not_found();
    }
    if model.runners.values().any(|runner| runner.name == name) {
        return Reply::error(409, &format!("Already exists - A runner with the name \"{name}\" already exists."));
    }
    let labels = labels.iter().filter_map(|label| label.as_str().map(ToOwned::to_owned)).collect();
    let (id, config) = model.register(scope, name, group, labels);
    Reply::json(201, &json!({"runner": described(id, &model.runners[&id]), "encoded_jit_config": config}))
}

/// `actions/delete-self-hosted-runner-from-org`, `…-from-repo`.
fn delete(model: &mut Model, scope: &str, id: &str) -> Reply {
    let Some(id) = model.runner_at(scope, id) else { return not_found() };
    if model.runners[&id].job.is_some() {
        return Reply::error(422, "Bad request - Runner is currently running a job and cannot be deleted.");
    }
    model.runners.remove(&id);
    Reply::empty(204)
}

/// A page of a list, and the address of the next one.
pub fn page<'l>(model: &Model, asked: &Asked, all: &'l [Value]) -> (&'l [Value], Option<String>) {
    let number = |name: &str| asked.query.get(name).and_then(|text| text.parse::<usize>().ok());
    let (size, page) = (number("per_page").unwrap_or(30).min(100), number("page").unwrap_or(1));
    let begin = all.len().min((page - 1) * size);
    let end = all.len().min(begin + size);
    let mut query = asked.query.clone();
    query.insert("page".to_owned(), (page + 1).to_string());
    let query = serde_urlencoded::to_string(query).expect("text");
    let next = (end < all.len()).then(|| format!("<{}{}?{query}>; rel=\"next\"", model.url, asked.path));
    (&all[begin..end], next)
}

pub fn linked(reply: Reply, link: Option<String>) -> Reply {
    match link {
        Some(link) => reply.with("link", link),
        None => reply,
    }
}
