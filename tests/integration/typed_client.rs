//! Every answer decodes into the types that bollard makes from Docker's specification, in each version that
//! agents negotiate. Strict clients (Go's since API 1.52 too) give a whole answer up for one bad value.

use bollard_stubs::models::{
    ContainerCreateResponse, ContainerInspectResponse, ContainerSummary, ContainerTopResponse, ContainerWaitResponse,
    CreateImageInfo, ErrorResponse, EventMessage, ExecInspectResponse, IdResponse, ImageDeleteResponseItem,
    ImageHistoryResponseItem, ImageInspect, ImageSummary, Network, NetworkCreateResponse, NetworkInspect, SystemInfo,
    SystemVersion, Volume, VolumeListResponse,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, http::Answer};

/// Docker 1.12, Debian 12's and its successor's, and the newest that we speak.
const VERSIONS: [&str; 4] = ["/v1.24", "/v1.41", "/v1.45", "/v1.53"];

fn decoded<T: DeserializeOwned>(answer: &Answer) -> T {
    assert!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.text());
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn lines<T: DeserializeOwned>(answer: &Answer) -> Vec<T> {
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

struct Typed<'d> {
    daemon: &'d Daemon,
    version: &'static str,
}

impl Typed<'_> {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        decoded(&self.daemon.client().get(&format!("{}{path}", self.version)).await)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> T {
        decoded(&self.daemon.client().post(&format!("{}{path}", self.version), body).await)
    }

    async fn do_post(&self, path: &str, body: Value) {
        let answer = self.daemon.client().post(&format!("{}{path}", self.version), body).await;
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
    }

    async fn delete(&self, path: &str) -> Answer {
        let answer = self.daemon.client().delete(&format!("{}{path}", self.version)).await;
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        answer
    }

    async fn system(&self) {
        let version: SystemVersion = self.get("/version").await;
        assert_eq!(version.api_version.as_deref(), Some("1.53"));
        let info: SystemInfo = self.get("/info").await;
        assert_eq!(info.os_type.as_deref(), Some("linux"));
        let error = self.daemon.client().get(&format!("{}/containers/nobody/json", self.version)).await;
        let error: ErrorResponse = serde_json::from_slice(&error.body).unwrap();
        assert_eq!(error.message, "No such container: nobody");
    }

    async fn images(&self) {
        let images: Vec<ImageSummary> = self.get("/images/json").await;
        assert_eq!(images.len(), 1);
        let image: ImageInspect = self.get("/images/box/json").await;
        assert_eq!(image.id.as_deref(), Some(images[0].id.as_str()));
        let history: Vec<ImageHistoryResponseItem> = self.get("/images/box/history").await;
        assert_eq!(history.len(), 1);
        self.do_post("/images/box/tag?repo=other&tag=1", Value::Null).await;
        let deleted: Vec<ImageDeleteResponseItem> = decoded(&self.delete("/images/other:1").await);
        assert_eq!(deleted[0].untagged.as_deref(), Some("other:1"));
    }

    async fn networks(&self) {
        let made: NetworkCreateResponse =
            self.post("/networks/create", json!({"Name": "net", "Driver": "bridge"})).await;
        let networks: Vec<Network> = self.get("/networks").await;
        assert!(networks.iter().any(|network| network.id.as_ref() == Some(&made.id)));
        let id: ContainerCreateResponse = self
            .post(
                "/containers/create?name=member",
                json!({"Image": "box", "Cmd": ["sleep", "100"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": {
                    "NetworkMode": "net", "PortBindings": {"80/tcp": [{"HostPort": ""}]}
                }}),
            )
            .await;
        self.do_post("/containers/member/start", Value::Null).await;
        let network: NetworkInspect = self.get("/networks/net").await;
        assert!(network.containers.is_some_and(|members| members.contains_key(&id.id)));
        let member: ContainerInspectResponse = self.get("/containers/member/json").await;
        assert!(member.network_settings.and_then(|settings| settings.ports).is_some_and(|ports| !ports.is_empty()));
        let listed: Vec<ContainerSummary> = self.get("/containers/json").await;
        assert!(listed[0].ports.as_ref().is_some_and(|ports| ports[0].public_port.is_some()));
        self.delete("/containers/member?force=1").await;
        self.delete("/networks/net").await;
    }

    async fn volumes(&self) {
        let volume: Volume = self.post("/volumes/create", json!({"Name": "vol", "Labels": {"a": "b"}})).await;
        assert_eq!(volume.name, "vol");
        let inspected: Volume = self.get("/volumes/vol").await;
        assert_eq!(inspected.mountpoint, volume.mountpoint);
        let volumes: VolumeListResponse = self.get("/volumes").await;
        assert_eq!(volumes.volumes.map(|volumes| volumes.len()), Some(1));
        self.delete("/volumes/vol").await;
    }

    async fn containers(&self) {
        let body = json!({
            "Image": "box", "Cmd": ["sleep", "100"], "Labels": {"a": "b"}, "Env": ["A=b"],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
            "HostConfig": {"NetworkMode": "none", "Tmpfs": {"/t": ""}, "Memory": 64 << 20, "Binds": ["vol:/v"]},
        });
        let made: ContainerCreateResponse = self.post("/containers/create?name=box1", body).await;
        let created: ContainerInspectResponse = self.get("/containers/box1/json").await;
        assert_eq!(created.id.as_ref(), Some(&made.id));
        self.do_post("/containers/box1/start", Value::Null).await;
        let running: ContainerInspectResponse = self.get("/containers/box1/json?size=1").await;
        assert_eq!(running.state.and_then(|state| state.running), Some(true));
        let listed: Vec<ContainerSummary> = self.get("/containers/json?all=1&size=1").await;
        assert_eq!(listed[0].names, Some(vec!["/box1".to_owned()]));
        let top: ContainerTopResponse = self.get("/containers/box1/top").await;
        assert_eq!(top.processes.map(|processes| processes.len()), Some(1));
        let exec: IdResponse = self.post("/containers/box1/exec", json!({"Cmd": ["true"]})).await;
        let exec: ExecInspectResponse = self.get(&format!("/exec/{}/json", exec.id)).await;
        assert_eq!(exec.running, Some(false));
        self.do_post("/containers/box1/kill", Value::Null).await;
        let ended: ContainerWaitResponse = self.post("/containers/box1/wait", Value::Null).await;
        assert_eq!(ended.status_code, 137);
        let exited: ContainerInspectResponse = self.get("/containers/box1/json").await;
        assert_eq!(exited.state.and_then(|state| state.exit_code), Some(137));
        self.delete("/containers/box1").await;
        self.delete("/volumes/vol").await;
    }

    async fn events(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let path = format!("{}/events?since=1&until={now:.9}", self.version);
        let events: Vec<EventMessage> = lines(&self.daemon.client().get(&path).await);
        assert!(!events.is_empty());
        assert!(events.iter().all(|event| event.time_nano.is_some() && event.actor.is_some()));
    }
}

#[tokio::test]
async fn answers_of_all_groups_decode_in_all_versions() {
    let daemon = Daemon::with_box().await;
    for version in VERSIONS {
        let typed = Typed { daemon: &daemon, version };
        typed.system().await;
        typed.images().await;
        typed.volumes().await;
        typed.containers().await;
        typed.networks().await;
        typed.events().await;
    }
}

#[tokio::test]
async fn failing_pull_decodes_as_progress_or_error() {
    let daemon = Daemon::start().await;
    let answer = daemon.client().post("/images/create?fromImage=localhost:1/none&tag=1", Value::Null).await;
    if answer.status == 200 {
        assert!(lines::<CreateImageInfo>(&answer).last().is_some_and(|last| last.error_detail.is_some()));
    } else {
        let error: ErrorResponse = serde_json::from_slice(&answer.body).unwrap();
        assert!(error.message.contains("connection refused"), "{}", error.message);
    }
}
