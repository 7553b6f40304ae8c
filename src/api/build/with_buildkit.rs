//! `POST /build?version=2`: BuildKit for clients that do not speak gRPC. Credentials come by a session of theirs, and so does the
//! context, unless it is in a request of its own or in this one.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::BuildQuery;
use crate::{
    api::{ApiState, buildkit::builder, images::begun, stream::JsonStream},
    buildkit::{BuildKit, BuildNews, BuildOptions, Exporter, Upload},
    engine::{build::BuildRequest, tenants::Scope},
    model::{Error, Result},
};

/// Where the context is that a client serves in its session, and the one that it sends by a request of its own, whose build it names
/// after this prefix.
const SESSION: &str = "client-session";
const UPLOADED: &str = "upload-request";
const UPLOAD: &str = "upload-request:";

/// Where a result is to go.
#[derive(Deserialize)]
struct Output {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: Option<BTreeMap<String, String>>,
}

pub(super) async fn build(
    api: &ApiState,
    scope: &Scope,
    mut query: BuildQuery,
    headers: &HeaderMap,
    body: Body,
    messages: JsonStream,
) -> Result<Response> {
    let builder = builder(api, scope.tenant())?;
    let name = query.buildid.clone();
    if let Some(name) = name.strip_prefix(UPLOAD) {
        builder.upload(scope.tenant(), name, body).await?;
        return Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], ()).into_response());
    }
    let upload = context(builder, scope, &mut query, body).await?;
    let (session, outputs) = (query.session.clone(), query.outputs.clone());
    let request = query.request(headers)?;
    let quiet = request.quiet;
    let hosts = api.engine.build_hosts(scope.tenant(), &request.limits.extra_hosts)?;
    let options = BuildOptions { name, ..options(request, session, &outputs, &hosts)? };
    let news = builder.build(scope.tenant(), api.engine.build_tenant(scope.tenant()), options, upload);
    let lines = news.filter_map(move |news| std::future::ready(news.map(|news| line(news, quiet)).transpose()));
    Ok(messages.progress(lines))
}

/// The context, if the client sends it.
async fn context(builder: &BuildKit, scope: &Scope, query: &mut BuildQuery, body: Body) -> Result<Option<Upload>> {
    match query.remote.as_str() {
        "" => Ok(Some(Upload::of(Body::from_stream(begun(body).await)))),
        UPLOADED if !query.buildid.is_empty() => {
            query.remote.clear();
            builder.uploaded(scope.tenant(), &query.buildid).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// A line of the answer, as dockerd writes it.
fn line(news: BuildNews, quiet: bool) -> Option<Value> {
    match (news, quiet) {
        (BuildNews::Trace(_), true) => None,
        (BuildNews::Trace(trace), false) => {
            Some(json!({"id": "moby.buildkit.trace", "aux": BASE64_STANDARD.encode(trace)}))
        }
        (BuildNews::Image(id), true) => Some(json!({"stream": format!("{id}\n")})),
        (BuildNews::Image(id), false) => Some(json!({"id": "moby.image.id", "aux": {"ID": id}})),
    }
}

fn options(request: BuildRequest, session: String, outputs: &str, hosts: &[String]) -> Result<BuildOptions> {
    let limits = request.limits;
    let mut options = Vec::new();
    let mut set = |key: &str, value: String| options.push((key.to_owned(), value));
    if !request.dockerfile.is_empty() {
        set("filename", request.dockerfile);
    }
    if !["", SESSION].contains(&request.remote.as_str()) {
        set("context", request.remote);
    }
    if !request.target.is_empty() {
        set("target", request.target);
    }
    let inline_cache =
        request.arguments.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| value.as_deref() == Some("1"));
    for (name, value) in request.arguments {
        // One without a value is the client's own to fill in.
        if let Some(value) = value {
            set(&format!("build-arg:{name}"), value);
        }
    }
    for (name, value) in request.labels {
        set(&format!("label:{name}"), value);
    }
    if request.no_cache {
        set("no-cache", String::new());
    }
    if let Some(platform) = request.platform {
        set("platform", platform.to_string());
    }
    set("image-resolve-mode", if request.pull { "pull" } else { "local" }.to_owned());
    let mut entitlements = Vec::new();
    match limits.network_mode.to_string().as_str() {
        "" | "default" | "bridge" => {}
        mode @ ("host" | "none") => {
            set("force-network-mode", mode.to_owned());
            entitlements.extend((mode == "host").then(|| "network.host".to_owned()));
        }
        other => return Err(Error::invalid(format!("network mode {other:?} not supported by buildkit"))),
    }
    if !hosts.is_empty() {
        set("add-hosts", hosts.join(","));
    }
    if limits.shm_size > 0 {
        set("shm-size", limits.shm_size.to_string());
    }
    if !limits.ulimits.is_empty() {
        let ulimits = limits.ulimits.iter().map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
        set("ulimit", ulimits.collect::<Vec<_>>().join(","));
    }
    if !limits.cgroup_parent.is_empty() {
        set("cgroup-parent", limits.cgroup_parent);
    }
    let cache_from = request.cache_from;
    let exporters = exporters(outputs, &request.tags)?;
    Ok(BuildOptions { session, options, exporters, entitlements, cache_from, inline_cache, ..BuildOptions::default() })
}

fn exporters(outputs: &str, tags: &[String]) -> Result<Vec<Exporter>> {
    let outputs: Option<Vec<Output>> = match outputs {
        "" => None,
        text => {
            serde_json::from_str(text).map_err(|error| Error::invalid(format!("error reading outputs: {error}")))?
        }
    };
    let names = || ("name".to_owned(), tags.join(","));
    let outputs = outputs.unwrap_or_default();
    if outputs.is_empty() {
        return Ok(vec![("moby".to_owned(), if tags.is_empty() { Vec::new() } else { vec![names()] })]);
    }
    let exporter = |output: Output| {
        let mut attributes: Vec<_> = output.attributes.unwrap_or_default().into_iter().collect();
        if matches!(output.kind.as_str(), "moby" | "image") && !tags.is_empty() {
            attributes.retain(|(key, _)| key != "name");
            attributes.push(names());
        }
        (output.kind, attributes)
    };
    Ok(outputs.into_iter().map(exporter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_frontend() {
        let request = BuildRequest {
            dockerfile: "D".to_owned(),
            tags: vec!["x".to_owned(), "y:1".to_owned()],
            remote: "client-session".to_owned(),
            no_cache: true,
            arguments: [("A".to_owned(), Some("b".to_owned())), ("C".to_owned(), None)].into_iter().collect(),
            ..BuildRequest::default()
        };
        let made = options(request, "s".to_owned(), "", &["a=172.17.0.1".to_owned(), "b=::1".to_owned()]).unwrap();
        assert!(made.options.contains(&("add-hosts".to_owned(), "a=172.17.0.1,b=::1".to_owned())));
        let has = |key: &str, value: &str| made.options.contains(&(key.to_owned(), value.to_owned()));
        assert!(has("filename", "D") && has("build-arg:A", "b") && has("no-cache", ""), "{made:?}");
        assert!(
            has("image-resolve-mode", "local") && !made.options.iter().any(|(key, _)| key == "context"),
            "{made:?}"
        );
        assert_eq!(made.exporters, [("moby".to_owned(), vec![("name".to_owned(), "x,y:1".to_owned())])]);
    }

    #[test]
    fn results_go_elsewhere_if_a_client_says_so() {
        let made = exporters(r#"[{"Type":"local","Attrs":{"dest":"out"}}]"#, &["x".to_owned()]).unwrap();
        assert_eq!(made, [("local".to_owned(), vec![("dest".to_owned(), "out".to_owned())])]);
        assert!(exporters("{", &[]).is_err());
        assert_eq!(exporters("[]", &[]).unwrap(), [("moby".to_owned(), Vec::new())]);
    }
}
