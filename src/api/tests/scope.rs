//! Every call of the route table, asked with the objects of another tenant: the answer is that of something that does not exist.
//! A call that comes later fails here until it is said how it is asked.

use std::sync::Mutex;

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::{
    api::{ApiState, routes::routes, testing},
    backend::images::samples::tar,
    edge::route::Route,
    model::{id::TenantId, time::Timestamp},
};

/// What stands in a path, a query or a body for something of the other tenant, or for nothing.
const PLACES: [&str; 9] =
    ["CONTAINER", "LONG_ID", "SHORT_ID", "EXEC", "IMAGE", "DIGEST", "NETWORK", "NET_ID", "VOLUME"];

/// How a call is asked that names nothing in its path.
enum Asked {
    /// With these paths (behind the call's own) and bodies.
    With(&'static [(&'static str, &'static str)]),
    /// By this test, since it needs more than an engine on fakes (`tests/levels.rs` looks whether it is there).
    Elsewhere(&'static str),
    /// Not: neither its path nor its query nor its body can name what a tenant has.
    NamesNothing,
}

use Asked::{Elsewhere, NamesNothing, With};

/// Calls without a name in their path.
const CALLS: &[(&str, Asked)] = &[
    ("SystemAuth", NamesNothing),
    // Its counts are looked at below.
    ("SystemInfo", NamesNothing),
    ("SystemVersion", NamesNothing),
    ("SystemPing", NamesNothing),
    ("SystemPingHead", NamesNothing),
    (
        "SystemEvents",
        With(&[
            ("?since=0&until=NOW", ""),
            (r#"?since=0&until=NOW&filters={"container":["CONTAINER"]}"#, ""),
            (r#"?since=0&until=NOW&filters={"network":["NET_ID"]}"#, ""),
        ]),
    ),
    ("SystemDataUsage", With(&[("", "")])),
    (
        "ContainerList",
        With(&[
            ("?all=1", ""),
            (r#"?all=1&filters={"id":["LONG_ID"]}"#, ""),
            (r#"?all=1&filters={"name":["CONTAINER"]}"#, ""),
            (r#"?all=1&filters={"before":["CONTAINER"]}"#, ""),
            (r#"?all=1&filters={"since":["LONG_ID"]}"#, ""),
            (r#"?all=1&filters={"ancestor":["IMAGE"]}"#, ""),
            (r#"?all=1&filters={"ancestor":["DIGEST"]}"#, ""),
            (r#"?all=1&filters={"network":["NET_ID"]}"#, ""),
            (r#"?all=1&filters={"volume":["VOLUME"]}"#, ""),
        ]),
    ),
    (
        "ContainerCreate",
        With(&[
            ("", r#"{"Image":"IMAGE","Cmd":["x"]}"#),
            ("", r#"{"Image":"DIGEST","Cmd":["x"]}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"NetworkMode":"container:CONTAINER"}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"NetworkMode":"container:LONG_ID"}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"PidMode":"container:SHORT_ID"}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"IpcMode":"container:CONTAINER"}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"VolumesFrom":["CONTAINER"]}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"VolumesFrom":["LONG_ID:ro"]}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"Links":["CONTAINER:x"]}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"NetworkMode":"NETWORK"}}"#),
            ("", r#"{"Image":"own","Cmd":["x"],"HostConfig":{"NetworkMode":"NET_ID"}}"#),
            (
                "",
                r#"{"Image":"own","Cmd":["x"],"HostConfig":{"NetworkMode":"bridge"},"NetworkingConfig":{"EndpointsConfig":{"bridge":{},"NET_ID":{}}}}"#,
            ),
            (
                "",
                r#"{"Image":"own","Cmd":["x"],"HostConfig":{"Mounts":[{"Type":"image","Source":"IMAGE","Target":"/i"}]}}"#,
            ),
        ]),
    ),
    ("ContainerPrune", With(&[("", "")])),
    (
        "ImageList",
        With(&[
            ("?all=1", ""),
            (r#"?filters={"reference":["IMAGE"]}"#, ""),
            (r#"?filters={"before":["IMAGE"]}"#, ""),
            (r#"?filters={"since":["DIGEST"]}"#, ""),
        ]),
    ),
    (
        "ImageBuild",
        With(&[
            ("?dockerfile=of-name&pull=0", "BUILD FROM IMAGE\n"),
            ("?dockerfile=of-digest", "BUILD FROM DIGEST\n"),
            ("?dockerfile=copies", "BUILD FROM own\nCOPY --from=IMAGE / /\n"),
            (r#"?networkmode=container:CONTAINER"#, "BUILD FROM own\nRUN x\n"),
            ("?networkmode=NET_ID", "BUILD FROM own\nRUN x\n"),
        ]),
    ),
    ("BuildPrune", With(&[(r#"?all=1"#, "")])),
    // Asks registries, for what may be here already.
    ("ImageCreate", Elsewhere("engine::images::tests::reach::a_registry_that_names_others_content_has_to_give_it")),
    ("ImageSearch", NamesNothing),
    ("ImagePrune", With(&[(r#"?filters={"dangling":["false"]}"#, "")])),
    ("ImageCommit", With(&[("?container=CONTAINER", "{}"), ("?container=LONG_ID", "{}")])),
    ("ImageGetAll", With(&[("?names=IMAGE", ""), ("?names=own&names=DIGEST", "")])),
    ("ImageLoad", Elsewhere("engine::images::tests::archives::archive_reaches_no_content_but_its_own")),
    ("NetworkList", With(&[(r#"?filters={"id":["NET_ID"]}"#, ""), (r#"?filters={"name":["NETWORK"]}"#, "")])),
    ("NetworkCreate", With(&[("", r#"{"Name":"n","ConfigFrom":{"Network":"NETWORK"}}"#)])),
    ("NetworkPrune", With(&[("", "")])),
    ("VolumeList", With(&[("", ""), (r#"?filters={"name":["VOLUME"]}"#, "")])),
    // What is made by a name of the owner's is looked at below.
    ("VolumeCreate", NamesNothing),
    ("VolumePrune", With(&[(r#"?filters={"all":["true"]}"#, "")])),
    // The protocol of BuildKit, and builds by the names that clients give them.
    ("Session", Elsewhere("buildkit::jobs::two_jobs_build_on_images_of_one_name_and_share_nothing")),
    ("Grpc", Elsewhere("buildkit::walls::a_digest_opens_nothing_that_another_job_has_brought")),
    ("BuildCancel", Elsewhere("buildkit::cache::a_build_is_cancelled_by_the_name_that_its_client_gave_it")),
];

/// Query and body with which a call with a name in its path comes as far as looking its object up.
fn rest(operation: &str) -> (&'static str, &'static str) {
    match operation {
        "ContainerResize" | "ExecResize" => ("?h=1&w=1", ""),
        "ContainerRename" => ("?name=renamed", ""),
        "ContainerArchive" | "ContainerArchiveInfo" => ("?path=/", ""),
        "PutContainerArchive" => ("?path=/", "TAR"),
        "ContainerExec" => ("", r#"{"Cmd":["x"]}"#),
        "ContainerUpdate" | "ExecStart" => ("", "{}"),
        "ContainerLogs" => ("?stdout=1", ""),
        "ImageTag" => ("?repo=own&tag=other", ""),
        "NetworkConnect" | "NetworkDisconnect" => ("", r#"{"Container":"CONTAINER"}"#),
        _ => ("", ""),
    }
}

/// Whether ringer has anything of the kind that a path's first part names.
fn has_some_of(path: &str) -> bool {
    let kind = path.split('/').nth(1).unwrap_or_default();
    !["plugins", "swarm", "nodes", "services", "tasks", "secrets", "configs"].contains(&kind)
}

/// What a path's first part says that its name is of; `None` for a registry's.
fn places_of(path: &str) -> Option<&'static [&'static str]> {
    match path.split('/').nth(1)? {
        "containers" => Some(&["CONTAINER", "LONG_ID", "SHORT_ID"]),
        "exec" => Some(&["EXEC"]),
        "images" => Some(&["IMAGE", "DIGEST"]),
        "networks" => Some(&["NETWORK", "NET_ID"]),
        "volumes" => Some(&["VOLUME"]),
        "distribution" => None,
        other => panic!("/{other} is new: say what its names are of"),
    }
}

/// The default tenant has one of everything, and another has an image of its own.
struct World {
    state: ApiState,
    stranger: TenantId,
    things: Vec<(&'static str, String)>,
    wrong: Mutex<Vec<String>>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (state, folder) = testing::state().await;
        let (owner, stranger) = (TenantId::default_tenant(), "default-build".parse().unwrap());
        drop(state.engine.scope_for(&stranger));
        let mut world = Self { state, stranger, things: Vec::new(), wrong: Mutex::default(), _folder: folder };
        let import = |name: &str| format!("/images/create?fromSrc=-&repo={name}");
        let image = tar(&[("etc/secret", b"of the owner")]);
        world.made(&owner, &import("secret"), Body::from(image)).await;
        world.made(&world.stranger, &import("own"), Body::from(tar(&[]))).await;
        let digest = world.of_owner("/images/secret/json").await["Id"].as_str().unwrap().to_owned();
        let body = json!({"Image": "secret", "Cmd": ["sleep", "1000"], "HostConfig": {"Binds": ["treasure:/t"], "NetworkMode": "hidden"}});
        let network = world.made(&owner, "/networks/create", json!({"Name": "hidden"}).to_string().into()).await;
        let container = world.made(&owner, "/containers/create?name=quiet", body.to_string().into()).await;
        world.made(&owner, "/containers/quiet/start", Body::empty()).await;
        let exec = world.made(&owner, "/containers/quiet/exec", json!({"Cmd": ["x"]}).to_string().into()).await;
        let id = |answer: &Value| answer["Id"].as_str().unwrap().to_owned();
        let long = id(&container);
        world.things = vec![
            ("CONTAINER", "quiet".to_owned()),
            ("SHORT_ID", long[..12].to_owned()),
            ("LONG_ID", long),
            ("EXEC", id(&exec)),
            ("IMAGE", "secret".to_owned()),
            ("DIGEST", digest),
            ("NETWORK", "hidden".to_owned()),
            ("NET_ID", id(&network)),
            ("VOLUME", "treasure".to_owned()),
        ];
        world
    }

    fn thing(&self, wanted: &str) -> &str {
        let (_, thing) = self.things.iter().find(|(place, _)| *place == wanted).expect("a place");
        thing
    }

    async fn ask(&self, tenant: &TenantId, request: Request<Body>) -> (u16, Value) {
        testing::send_as(&self.state, tenant, request).await
    }

    async fn made(&self, tenant: &TenantId, path: &str, body: Body) -> Value {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
        let (status, answer) = self.ask(tenant, request).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    async fn of_owner(&self, path: &str) -> Value {
        self.ask(&TenantId::default_tenant(), Request::get(path).body(Body::empty()).unwrap()).await.1
    }

    /// What the stranger gets. `things` stand at their places; in the answer the places stand again.
    async fn answer(
        &self,
        route: &Route<ApiState>,
        path: &str,
        body: &str,
        things: &[(&str, String)],
    ) -> (u16, String) {
        let fill = |text: &str| {
            let text = things.iter().fold(text.to_owned(), |text, (place, thing)| text.replace(place, thing));
            text.replace("NOW", &Timestamp::now().fixed_nanos())
        };
        let (path, text) = (fill(path), fill(body));
        let (body, kind) = match text.strip_prefix("BUILD ") {
            Some(dockerfile) => (context(&path, dockerfile).into(), "application/x-tar"),
            None if text == "TAR" => (tar(&[("x", b"")]).into(), "application/x-tar"),
            None => (Body::from(text), "application/json"),
        };
        let request = Request::builder().method(route.method.clone()).uri(escaped(&path));
        let request = request.header(header::CONTENT_TYPE, kind).body(body).unwrap();
        let (status, answer) = self.ask(&self.stranger, request).await;
        let mut said = answer.to_string();
        // A short id is the beginning of a long one.
        let mut longest_first: Vec<_> = things.iter().collect();
        longest_first.sort_by_key(|(_, thing)| std::cmp::Reverse(thing.len()));
        for (place, thing) in longest_first {
            said = said.replace(thing.as_str(), place);
        }
        (status, without_new_ids(&said))
    }

    /// The same call with what the owner has, and with what nobody has.
    async fn compare(&self, route: &Route<ApiState>, path: &str, body: &str) -> (u16, String) {
        let nothing: Vec<(&str, String)> = self.things.iter().map(|(place, thing)| (*place, like(thing))).collect();
        if route.operation.ends_with("Prune") {
            // The stranger's own goes first: what earlier requests have made.
            drop(self.answer(route, path, body, &nothing).await);
        }
        let foreign = self.answer(route, path, body, &self.things).await;
        let unknown = self.answer(route, path, body, &nothing).await;
        if foreign != unknown {
            let said = format!("{} {path} {body}:\n  {foreign:?}\n  {unknown:?}", route.operation);
            self.wrong.lock().unwrap().push(said);
        }
        foreign
    }
}

/// An answer in which the id of what was made is the same each time.
fn without_new_ids(said: &str) -> String {
    regex::Regex::new("\\b([0-9a-f]{64}|[0-9a-f]{12})\\b").unwrap().replace_all(said, "NEW").into_owned()
}

/// Something of the same shape that nobody has.
fn like(thing: &str) -> String {
    let hex = |c: char| c.to_digit(16).and_then(|digit| char::from_digit((digit + 5) % 16, 16)).unwrap_or(c);
    match thing.strip_prefix("sha256:") {
        Some(digits) => format!("sha256:{}", digits.chars().map(hex).collect::<String>()),
        None if thing.len() >= 12 => thing.chars().map(hex).collect(),
        None => thing.chars().rev().collect(),
    }
}

fn context(path: &str, dockerfile: &str) -> bytes::Bytes {
    let name = path.split("dockerfile=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or("Dockerfile");
    tar(&[(name, dockerfile.as_bytes())])
}

fn escaped(path: &str) -> String {
    path.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace('[', "%5B").replace(']', "%5D")
}

#[tokio::test]
async fn what_another_tenant_has_is_answered_as_what_nobody_has() {
    let world = World::new().await;
    for route in routes().iter().filter(|route| route.is_served() && has_some_of(route.path)) {
        if !route.path.contains('{') {
            let asked = CALLS.iter().find(|(operation, _)| *operation == route.operation);
            let (_, asked) = asked.unwrap_or_else(|| panic!("nobody says how {} is asked", route.operation));
            match asked {
                With(requests) => {
                    for (rest, body) in *requests {
                        world.compare(route, &format!("{}{rest}", route.path), body).await;
                    }
                }
                Elsewhere(test) => assert!(test.contains("::"), "{}: {test} is no test", route.operation),
                NamesNothing => {}
            }
            continue;
        }
        let Some(places) = places_of(route.path) else { continue };
        let (query, body) = rest(route.operation);
        for place in places {
            let path = route.path.replace("{id}", place).replace("{name}", place);
            let (status, said) = world.compare(route, &format!("{path}{query}"), body).await;
            // A push says it in its stream, the update of a volume is a swarm's.
            let says_it_otherwise = matches!(route.operation, "ImagePush" | "VolumeUpdate");
            assert!(status == 404 || says_it_otherwise, "{} {path}: {status} {said}", route.operation);
        }
    }
    let wrong = world.wrong.lock().unwrap().join("\n");
    assert!(wrong.is_empty(), "{wrong}");
    let (status, info) = world
        .ask(&world.stranger, Request::builder().method(Method::GET).uri("/info").body(Body::empty()).unwrap())
        .await;
    assert_eq!((status, &info["Images"]), (200, &json!(1)), "its own image, and no other");
    let told = world.of_owner(&format!("/events?since=0&until={}", Timestamp::now().fixed_nanos())).await.to_string();
    let has_events = ["LONG_ID", "NET_ID"].map(|wanted| told.contains(world.thing(wanted)));
    assert_eq!(has_events, [true; 2], "there was something to be told: {told}");
    let same = world.made(&world.stranger, "/volumes/create", json!({"Name": "treasure"}).to_string().into()).await;
    assert_ne!(same["Mountpoint"], world.of_owner("/volumes/treasure").await["Mountpoint"], "a volume of its own");
    let state = world.of_owner("/containers/quiet/json").await;
    assert_eq!(state["State"]["Running"], true, "nothing happened to what the owner has");
    assert_eq!(world.of_owner("/volumes/treasure").await["Name"], "treasure");
    assert_eq!(world.of_owner("/networks/hidden").await["Name"], "hidden");
    assert_eq!(world.of_owner("/images/secret/json").await["RepoTags"], json!(["secret:latest"]));
    assert!(PLACES.iter().all(|place| world.things.iter().any(|(known, _)| known == place)));
}
