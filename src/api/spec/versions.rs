//! `docs/api-versions.md`: what differs between versions of the API. Every version that we speak is asked the same, and
//! each difference is seen from the version that it is listed with.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::settle;
use crate::api::{ApiState, testing};

const OLDEST: u16 = 24;
const NEWEST: u16 = 53;

/// A difference: since version 1.`since`, `call` does `what`.
struct Difference {
    since: u16,
    call: &'static str,
    what: &'static str,
    is_new: fn(&Seen) -> bool,
}

/// What a version of the API answered, by the name of the request.
struct Seen(BTreeMap<&'static str, Answer>);

struct Answer {
    status: u16,
    content_type: String,
    body: Value,
    text: String,
}

impl Seen {
    fn has(&self, request: &str, field: &str) -> bool {
        self.0[request].body.pointer(field).is_some()
    }

    fn is(&self, request: &str, field: &str, value: &Value) -> bool {
        self.0[request].body.pointer(field) == Some(value)
    }

    fn fails(&self, request: &str) -> bool {
        self.0[request].status >= 400
    }

    fn says(&self, request: &str, text: &str) -> bool {
        self.0[request].text.contains(text)
    }

    fn is_of(&self, request: &str, content_type: &str) -> bool {
        self.0[request].content_type == content_type
    }
}

#[rustfmt::skip]
const DIFFERENCES: &[Difference] = &[
    // Requests.
    Difference { since: 25, call: "POST /containers/create", what: "`HostConfig.AutoRemove` is read; older clients remove by themselves", is_new: |seen| seen.is("stored", "/HostConfig/AutoRemove", &json!(true)) },
    Difference { since: 30, call: "POST /containers/{id}/wait", what: "`condition` is read; before it is always `not-running`", is_new: |seen| seen.fails("wait for what is not") },
    Difference { since: 40, call: "POST /containers/create", what: "an empty `IpcMode` is the daemon's default; before it is `shareable`", is_new: |seen| !seen.is("stored", "/HostConfig/IpcMode", &json!("shareable")) },
    Difference { since: 40, call: "POST /containers/create", what: "`BindOptions.NonRecursive` is read", is_new: |seen| seen.has("stored", "/HostConfig/Mounts/0/BindOptions/NonRecursive") },
    Difference { since: 41, call: "POST /containers/create", what: "`platform` is read", is_new: |seen| seen.fails("create for a strange platform") },
    Difference { since: 42, call: "POST /containers/create", what: "`ConsoleSize` is read", is_new: |seen| seen.is("stored", "/HostConfig/ConsoleSize", &json!([24, 80])) },
    Difference { since: 42, call: "POST /containers/create", what: "`BindOptions.CreateMountpoint` is read", is_new: |seen| seen.has("stored", "/HostConfig/Mounts/0/BindOptions/CreateMountpoint") },
    Difference { since: 42, call: "POST /containers/{id}/stop, …/restart", what: "`signal` is read", is_new: |seen| seen.fails("stop with a strange signal") },
    Difference { since: 43, call: "POST /containers/create", what: "`Annotations` are read", is_new: |seen| seen.has("stored", "/HostConfig/Annotations/sample") },
    Difference { since: 44, call: "POST /containers/create", what: "`Healthcheck.StartInterval` is read", is_new: |seen| seen.has("stored", "/Config/Healthcheck/StartInterval") },
    Difference { since: 44, call: "POST /containers/create", what: "`MacAddress` of an endpoint is read", is_new: |seen| seen.is("stored", "/NetworkSettings/Networks/other/MacAddress", &json!("02:00:00:00:00:77")) },
    Difference { since: 44, call: "POST /containers/create", what: "several networks can be named; before that is refused", is_new: |seen| !seen.says("create with two networks", "multiple network endpoints") },
    Difference { since: 44, call: "POST /containers/create", what: "`BindOptions.ReadOnlyForceRecursive` is read; before it is refused", is_new: |seen| !seen.says("create with a forced mount", "needs API v1.44") },
    Difference { since: 45, call: "POST /containers/create", what: "`VolumeOptions.Subpath` is read; before it is refused", is_new: |seen| !seen.says("create with a part of a volume", "needs API v1.45") },
    Difference { since: 48, call: "POST /containers/create", what: "mounts of type `image` are known; before the version is named in the refusal", is_new: |seen| !seen.says("create with an image mounted", "needs API v1.48") },
    Difference { since: 44, call: "POST /containers/create", what: "`MacAddress` of the container is warned of", is_new: |seen| seen.says("create with a hardware address", "container-wide MacAddress") },
    Difference { since: 48, call: "POST /containers/create", what: "`GwPriority` of an endpoint is read", is_new: |seen| seen.is("stored", "/NetworkSettings/Networks/other/GwPriority", &json!(7)) },
    Difference { since: 48, call: "POST /networks/create", what: "`EnableIPv4` is read", is_new: |seen| !seen.is("network without IPv4", "/EnableIPv4", &json!(true)) },
    // Answers.
    Difference { since: 25, call: "GET /info", what: "`SecurityOptions` are `name=seccomp,profile=builtin`, not words; no `ExecutionDriver`", is_new: |seen| !seen.has("info", "/ExecutionDriver") },
    Difference { since: 42, call: "GET /containers/{id}/logs, attach, exec", what: "a stream with frames is called `application/vnd.docker.multiplexed-stream`; before every stream is `raw-stream`", is_new: |seen| seen.is_of("logs", "application/vnd.docker.multiplexed-stream") },
    Difference { since: 42, call: "GET /containers/{id}/json", what: "no `KernelMemory`, unless it is set", is_new: |seen| !seen.has("inspect", "/HostConfig/KernelMemory") },
    Difference { since: 43, call: "GET /images/json", what: "an image without names has empty lists; before `<none>:<none>`", is_new: |seen| !seen.says("images", "<none>:<none>") },
    Difference { since: 44, call: "GET /images/json, GET /images/{name}/json", what: "no `VirtualSize`", is_new: |seen| !seen.has("image", "/VirtualSize") && !seen.has("images", "/0/VirtualSize") },
    Difference { since: 44, call: "GET /containers/{id}/json", what: "`DNSNames` of endpoints, and `MacAddress` beside the wishes", is_new: |seen| seen.has("inspect", "/NetworkSettings/Networks/other/DNSNames") },
    Difference { since: 45, call: "GET /containers/{id}/json", what: "`Aliases` are those that were asked for, without the short id", is_new: |seen| seen.is("inspect", "/NetworkSettings/Networks/other/Aliases", &Value::Null) },
    Difference { since: 45, call: "GET /images/{name}/json", what: "no `Container` and `ContainerConfig`", is_new: |seen| !seen.has("image", "/ContainerConfig") },
    Difference { since: 46, call: "GET /containers/json", what: "`HostConfig.Annotations`", is_new: |seen| seen.says("containers", "of the newest") },
    Difference { since: 47, call: "GET /info", what: "`RegistryConfig` without `AllowNondistributableArtifacts…`", is_new: |seen| !seen.has("info", "/RegistryConfig/AllowNondistributableArtifactsCIDRs") },
    Difference { since: 48, call: "GET /containers/json, GET /containers/{id}/json", what: "`ImageManifestDescriptor`", is_new: |seen| seen.has("inspect", "/ImageManifestDescriptor") && seen.has("containers", "/0/ImageManifestDescriptor") },
    Difference { since: 48, call: "GET /images/json, GET /images/{name}/json", what: "`Descriptor`", is_new: |seen| seen.has("image", "/Descriptor") && seen.has("images", "/0/Descriptor") },
    Difference { since: 48, call: "GET /networks, GET /networks/{id}", what: "`EnableIPv4`", is_new: |seen| seen.has("network", "/EnableIPv4") },
    Difference { since: 49, call: "GET /info", what: "`FirewallBackend`; commits without `Expected`", is_new: |seen| seen.has("info", "/FirewallBackend") && !seen.has("info", "/RuncCommit/Expected") },
    Difference { since: 50, call: "GET /info", what: "no `BridgeNfIptables` and `BridgeNfIp6tables`", is_new: |seen| !seen.has("info", "/BridgeNfIptables") },
    Difference { since: 50, call: "GET /images/{name}/json", what: "`Config` without the fields that only a container's has", is_new: |seen| !seen.has("image", "/Config/Hostname") },
    Difference { since: 52, call: "POST /containers/create", what: "images as mounts are no experiment any more, which is warned of before", is_new: |seen| !seen.fails("create with an image mounted") && !seen.says("create with an image mounted", "experimental") },
    Difference { since: 52, call: "GET /events", what: "called `application/jsonl` unless the client accepts something else", is_new: |seen| seen.is_of("events", "application/jsonl") },
    Difference { since: 52, call: "GET /events", what: "without `status`, `id` and `from`", is_new: |seen| !seen.says("events", "\"status\":") },
    Difference { since: 52, call: "GET /containers/json", what: "`Health`", is_new: |seen| seen.has("containers", "/0/Health") },
    Difference { since: 52, call: "GET /containers/{id}/json", what: "`Storage` in place of `GraphDriver`", is_new: |seen| !seen.has("inspect", "/GraphDriver") },
    Difference { since: 52, call: "GET /containers/{id}/json", what: "`NetworkSettings` without the default bridge's addresses at its top", is_new: |seen| !seen.has("inspect", "/NetworkSettings/IPAddress") },
    Difference { since: 52, call: "GET /containers/{id}/json", what: "`Config` without `MacAddress`, and without `OnBuild` that is empty", is_new: |seen| !seen.has("inspect", "/Config/OnBuild") },
];

/// Those that this script does not see.
const ELSEWHERE: [(u16, &str, &str); 10] = [
    (28, "GET /containers/{id}/attach/ws", "binary messages; before they are text"),
    (42, "GET /containers/{id}/attach/ws", "the client chooses the streams; before it is attached to all"),
    (41, "GET /containers/{id}/stats", "`one-shot` is read"),
    (42, "GET /system/df", "`type` is read"),
    (42, "GET /system/df", "no `BuilderSize`; before it is there unless it is nothing"),
    (52, "GET /system/df", "sums in place of lists"),
    (52, "GET /images/get, POST /images/load", "several platforms can be named"),
    (42, "POST /containers/{id}/exec, POST /exec/{id}/start", "`ConsoleSize` is read"),
    (42, "POST /volumes/prune", "volumes with names are spared unless the filter `all` is set"),
    (52, "GET /containers/{id}/stats", "`os_type`"),
];

struct World {
    state: ApiState,
    seen: BTreeMap<&'static str, Answer>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (state, _folder) = testing::state().await;
        let mut world = Self { state, seen: BTreeMap::new(), _folder };
        for repository in ["box", ""] {
            let mut tar = tar::Builder::new(Vec::new());
            let mut file = tar::Header::new_gnu();
            file.set_size(0);
            tar.append_data(&mut file, format!("of{repository}"), std::io::empty()).unwrap();
            let import = Request::post(format!("/images/create?fromSrc=-&repo={repository}"));
            let import = import.header(header::CONTENT_TYPE, "application/x-tar");
            let (status, said) =
                testing::send(&world.state, import.body(Body::from(tar.into_inner().unwrap())).unwrap()).await;
            assert_eq!(status, 200, "{said}");
        }
        for (name, subnet) in [("other", "10.9.0.0/24"), ("second", "10.10.0.0/24")] {
            let body = json!({ "Name": name, "IPAM": { "Config": [{ "Subnet": subnet }] } });
            world.ask("", Method::POST, "/networks/create", body).await;
        }
        world
    }

    /// Sends a request and keeps the answer under a name.
    async fn ask(&mut self, name: &'static str, method: Method, path: &str, body: Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_null() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = testing::oneshot(&self.state, request.body(body).unwrap()).await;
        let status = response.status().as_u16();
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        assert!(status < 500 || !name.is_empty(), "{path}: {text}");
        self.seen.insert(name, Answer { status, content_type, body, text });
    }

    async fn get(&mut self, name: &'static str, path: &str) {
        self.ask(name, Method::GET, path, Value::Null).await;
        assert_eq!(self.seen[name].status, 200, "{path}: {}", self.seen[name].text);
    }

    /// Asks whether a container like this can be made, and takes it away.
    async fn try_create(
        &mut self,
        name: &'static str,
        prefix: &str,
        query: &str,
        host_config: Value,
        networking: Value,
    ) {
        let body =
            json!({ "Image": "box", "Cmd": ["true"], "HostConfig": host_config, "NetworkingConfig": networking });
        self.ask(name, Method::POST, &format!("{prefix}/containers/create?name=tried{query}"), body).await;
        self.ask("removed", Method::DELETE, "/containers/tried", Value::Null).await;
    }

    async fn ask_all(mut self, minor: u16) -> Seen {
        let prefix = format!("/v1.{minor}");
        let at = |path: &str| format!("{prefix}{path}");
        let body = json!({
            "Image": "box",
            "Cmd": ["sleep", "1000"],
            "Healthcheck": { "Test": ["CMD", "true"], "StartInterval": 1_000_000_000 },
            "HostConfig": {
                "AutoRemove": true,
                "PidsLimit": 0,
                "ConsoleSize": [24, 80],
                "Annotations": { "sample": "yes" },
                "NetworkMode": "other",
                "Mounts": [{ "Type": "bind", "Source": "/etc", "Target": "/mounted", "BindOptions": { "NonRecursive": true, "CreateMountpoint": true } }],
            },
            "NetworkingConfig": { "EndpointsConfig": { "other": { "MacAddress": "02:00:00:00:00:77", "GwPriority": 7 } } },
        });
        self.ask("create", Method::POST, &at("/containers/create?name=old"), body).await;
        assert_eq!(self.seen["create"].status, 201, "{}", self.seen["create"].text);
        self.get("stored", "/containers/old/json").await;
        self.ask("removed", Method::DELETE, "/containers/old", Value::Null).await;
        let body = json!({ "Image": "box", "Cmd": ["sleep", "1000"], "HostConfig": { "NetworkMode": "other", "Annotations": { "sample": "of the newest" } } });
        self.ask("made", Method::POST, "/containers/create?name=new", body).await;
        let body = json!({ "Image": "box", "Cmd": ["true"], "MacAddress": "02:00:00:00:00:77" });
        self.ask("create with a hardware address", Method::POST, &at("/containers/create?name=tried"), body).await;
        self.ask("removed", Method::DELETE, "/containers/tried", Value::Null).await;
        let no_endpoints = Value::Null;
        let mount = |mount: Value| json!({ "Mounts": [mount] });
        self.try_create("create for a strange platform", &prefix, "&platform=a/b/c/d", json!({}), no_endpoints.clone())
            .await;
        let networks = json!({ "EndpointsConfig": { "other": {}, "second": {} } });
        self.try_create("create with two networks", &prefix, "", json!({ "NetworkMode": "other" }), networks).await;
        let host_config = mount(
            json!({ "Type": "bind", "Source": "/etc", "Target": "/m", "ReadOnly": true, "BindOptions": { "Propagation": "rprivate", "ReadOnlyForceRecursive": true } }),
        );
        self.try_create("create with a forced mount", &prefix, "", host_config, no_endpoints.clone()).await;
        let host_config =
            mount(json!({ "Type": "volume", "Source": "v", "Target": "/m", "VolumeOptions": { "Subpath": "part" } }));
        self.try_create("create with a part of a volume", &prefix, "", host_config, no_endpoints.clone()).await;
        let host_config = mount(json!({ "Type": "image", "Source": "box", "Target": "/m" }));
        self.try_create("create with an image mounted", &prefix, "", host_config, no_endpoints).await;
        let network = json!({ "Name": "bare", "EnableIPv4": false, "EnableIPv6": true, "IPAM": { "Config": [{ "Subnet": "fd77::/64" }] } });
        self.ask("made", Method::POST, &at("/networks/create"), network).await;
        self.ask("network without IPv4", Method::GET, "/networks/bare", Value::Null).await;
        self.ask("wait for what is not", Method::POST, &at("/containers/new/wait?condition=never"), Value::Null).await;
        self.get("inspect", &at("/containers/new/json")).await;
        self.get("containers", &at("/containers/json?all=1")).await;
        self.ask("started", Method::POST, "/containers/new/start", Value::Null).await;
        self.get("logs", &at("/containers/new/logs?stdout=1")).await;
        self.ask("stop with a strange signal", Method::POST, &at("/containers/new/stop?t=0&signal=NONE"), Value::Null)
            .await;
        self.get("info", &at("/info")).await;
        self.get("image", &at("/images/box/json")).await;
        self.get("images", &at("/images/json")).await;
        self.get("network", &at("/networks/other")).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.get("events", &at(&format!("/events?since=1&until={}.{:09}", now.as_secs(), now.subsec_nanos()))).await;
        Seen(self.seen)
    }
}

#[tokio::test]
async fn versions_differ_as_listed() {
    let mut wrong = Vec::new();
    for minor in OLDEST..=NEWEST {
        let seen = World::new().await.ask_all(minor).await;
        for Difference { since, call, what, is_new } in DIFFERENCES {
            if is_new(&seen) != (minor >= *since) {
                wrong.push(format!("1.{minor}: {call}, since 1.{since}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn list_of_differences_is_fresh() {
    let mut page = "# What differs between versions of the API\n\nGenerated by `make api-spec` from the list in `src/api/spec/versions.rs`; a test asks every version from \
         1.24 to 1.53 the same and sees each difference from its version on. The differences are dockerd's.\n\nA version above 1.53 is \
         answered as 1.53, one below 1.24 as 1.24; dockerd refuses both.\n\n| Since | Call | Then |\n|---|---|---|\n"
        .to_owned();
    let seen = DIFFERENCES.iter().map(|Difference { since, call, what, .. }| (*since, *call, *what));
    let mut sorted: Vec<_> = seen.chain(ELSEWHERE).collect();
    sorted.sort_by_key(|(since, ..)| *since);
    for (since, call, what) in sorted {
        let _infallible = writeln!(page, "| 1.{since} | {call} | {what} |");
    }
    settle("docs/api-versions.md", &page);
}
