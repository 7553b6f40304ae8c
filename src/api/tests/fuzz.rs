//! Requests that nobody would write: none ends in a panic, and each gets an answer.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Uri, header};
use http_body_util::BodyExt;
use serde_json::json;

use super::testing::{oneshot, state};
use crate::{
    api::ApiState,
    backend::images::samples::tar,
    engine::images::{Body as ImageBody, ImportRequest},
    model::fuzz,
};

/// Longer takes no request on fakes.
const LIMIT: Duration = Duration::from_secs(30);

struct Bench {
    runtime: tokio::runtime::Runtime,
    state: ApiState,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (state, folder) = runtime.block_on(state());
        runtime.block_on(async {
            let (engine, scope) = (&state.engine, state.engine.default_scope());
            let request = ImportRequest { repository: "box".to_owned(), ..ImportRequest::default() };
            let body: ImageBody = Box::pin(std::io::Cursor::new(tar(&[])));
            engine.image_import(&scope, &request, body).await.unwrap();
        });
        let bench = Self { runtime, state, _folder: folder };
        let web = json!({"Image": "box", "Cmd": ["sh"], "HostConfig": {"NetworkMode": "none"}}).to_string();
        assert_eq!(bench.ask(&Method::POST, &"/containers/create?name=web".parse().unwrap(), web.as_bytes()), 201);
        bench
    }

    /// The status; streams are not read to their end.
    fn ask(&self, method: &Method, uri: &Uri, body: &[u8]) -> u16 {
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return 0 };
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(LIMIT, oneshot(&self.state, request)).await.expect("an answer");
            let status = answer.status().as_u16();
            if status >= 500 {
                let text = answer.into_body().collect().await.expect("a whole answer").to_bytes();
                let text = String::from_utf8_lossy(&text);
                // As `Engine::run` and who joins threads tell it.
                assert!(!text.contains("panic") && !text.contains(" failed\""), "{method} {uri}: {text}");
            }
            status
        })
    }
}

#[test]
fn no_path_makes_it_panic() {
    let bench = Bench::new();
    let good: [&[u8]; 8] = [
        b"/v1.41/containers/json?all=1&filters=%7B%22status%22%3A%5B%22running%22%5D%7D",
        b"/containers/web/logs?stdout=1&tail=5&since=1.5&until=2024-01-01T00:00:00Z",
        b"/v1.24/images/box:latest/json?platform=linux/amd64",
        b"/containers/web/archive?path=/etc/../x",
        b"/events?until=1&since=2h&filters={}",
        b"/networks/bridge?verbose=true&scope=local",
        b"/v1.51/images/json?shared-size=1&manifests=true&digests=0",
        b"/system/df?type=image&type=volume",
    ];
    fuzz::each(&good, |input| {
        if let Ok(uri) = Uri::try_from(input) {
            bench.ask(&Method::GET, &uri, b"");
        }
    });
}

#[test]
fn no_body_makes_it_panic() {
    let bench = Bench::new();
    let create = json!({
        "Image": "box", "Cmd": ["sh", "-c", "x"], "Env": ["A=b"], "User": "1:2", "ExposedPorts": {"80/tcp": {}}, "Hostname": "h",
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000}, "Labels": {"a": "b"}, "StopSignal": "SIGTERM",
        "HostConfig": {
            "Binds": ["v:/x:ro", "/tmp:/y:rslave"], "Memory": 6_291_456, "NanoCpus": 1_000_000, "CpusetCpus": "0-1", "Tmpfs": {"/t": "size=1m"},
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000-8010"}]}, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "Mounts": [{"Type": "volume", "Source": "w", "Target": "/z", "VolumeOptions": {"NoCopy": true}}], "ExtraHosts": ["a:host-gateway"],
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/n", "CgroupPermissions": "r"}],
            "SecurityOpt": ["no-new-privileges"], "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}, "Sysctls": {"net.ipv4.ip_forward": "1"}
        },
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["x"], "IPAMConfig": {"IPv4Address": "172.17.0.9"}}}}
    });
    let network = json!({"Name": "n", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}]}, "Options": {"a": "b"}});
    let others = [
        json!({"Cmd": ["x"], "Env": ["A=b"], "AttachStdout": true, "DetachKeys": "ctrl-p,ctrl-q"}),
        json!({"Name": "v", "Driver": "local", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1"}}),
        json!({"Memory": 1_073_741_824, "RestartPolicy": {"Name": "always"}, "PidsLimit": 5, "BlkioWeight": 10}),
    ];
    let good: Vec<Vec<u8>> =
        [create, network].iter().chain(&others).map(|value| value.to_string().into_bytes()).collect();
    let good: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
    let places: Vec<Uri> = [
        "/v1.41/containers/create?name=made",
        "/v1.24/containers/create?name=made",
        "/networks/create",
        "/containers/web/exec",
        "/volumes/create",
        "/containers/web/update",
    ]
    .map(|path| path.parse().unwrap())
    .to_vec();
    let made: Uri = "/containers/made?force=1&v=1".parse().unwrap();
    let mut round = 0;
    fuzz::each(&good, |input| {
        round += 1;
        let place = &places[round % places.len()];
        if bench.ask(&Method::POST, place, input) == 201 && place.path().ends_with("containers/create") {
            bench.ask(&Method::DELETE, &made, b"");
        }
    });
}
