//! What the built-in policies let through: each danger as a request of Docker's API that `trusted` carries out and `ci` refuses with
//! its rule's name, in every way of asking for it that there is.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::testing::{send_as, state_on};
use crate::{
    api::{ApiState, compat::ApiVersion},
    backend::images::samples::tar,
    engine::images::ImportRequest,
    model::{
        id::TenantId,
        policy::{BuiltIn, Policy},
    },
    oci::host::{CgroupVersion, HostFacts},
    policy,
};

struct Tenants {
    state: ApiState,
    _folder: tempfile::TempDir,
}

impl Tenants {
    /// One of each built-in policy, each with the image `box` and the container `web`.
    async fn new(cgroup: CgroupVersion) -> Self {
        let (state, folder) = state_on(HostFacts { cgroup, ..HostFacts::detect() }).await;
        let tenants = Self { state, _folder: folder };
        for which in BuiltIn::ALL {
            tenants.add(policy::built_in(which)).await;
        }
        tenants
    }

    async fn add(&self, policy: Policy) {
        let (engine, id) = (&self.state.engine, id(&policy.name));
        let scope = engine.scope_for(&id);
        engine.open_networks_of(&engine.tenants.get(&id).unwrap()).await.unwrap();
        let request = ImportRequest { repository: "box".to_owned(), ..ImportRequest::default() };
        engine.image_import(&scope, &request, Box::pin(std::io::Cursor::new(tar(&[])))).await.unwrap();
        let create = json!({"Image": "box", "Cmd": ["sh", "-c", "sleep 1000"], "HostConfig": {"Memory": 1 << 30, "PidsLimit": 10}});
        let (status, answer) = self.ask(&policy.name, "POST", "/containers/create?name=web", &create).await;
        assert_eq!(status, 201, "{answer}");
        let (status, answer) = self.ask(&policy.name, "POST", "/containers/web/start", &Value::Null).await;
        assert_eq!(status, 204, "{answer}");
        engine.tenants.get(&id).unwrap().obeys(policy.into());
    }

    async fn ask(&self, policy: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_text(policy, method, path, text).await
    }

    async fn ask_text(&self, policy: &str, method: &str, path: &str, body: String) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        send_as(&self.state, &id(policy), request.body(Body::from(body)).unwrap()).await
    }

    /// That `trusted` does not refuse and `ci` does: `refusal` is the rule with what it says that was asked, `RULE: VALUE`.
    async fn check(&self, refusal: &str, method: &str, path: &str, body: &str) {
        self.check_of("ci", refusal, method, path, body).await;
    }

    /// The same of another policy than `ci`.
    async fn check_of(&self, policy: &str, refusal: &str, method: &str, path: &str, body: &str) {
        let (status, answer) = self.ask_text("trusted", method, path, body.to_owned()).await;
        assert!((200..300).contains(&status), "trusted, {refusal}: {method} {path} {body}: {status} {answer}");
        self.refused(policy, refusal, method, path, body).await;
    }

    /// That it is refused, in these words; what in the policy would allow it is `policy::tests`' matter.
    async fn refused(&self, policy: &str, refusal: &str, method: &str, path: &str, body: &str) {
        let (status, answer) = self.ask_text(policy, method, path, body.to_owned()).await;
        let text = answer["message"].as_str().unwrap_or_default();
        let expected = format!("refused by the policy {policy}, rule {refusal}; ");
        let end = match refusal {
            "privileged: true" => "/var/run/docker.sock is the job's own",
            _ => " would allow it",
        };
        assert!(
            status == 403 && text.starts_with(&expected) && text.ends_with(end),
            "{refusal}: {method} {path} {body}: {status} {answer}"
        );
    }
}

fn id(policy: &str) -> TenantId {
    format!("job-{policy}").parse().unwrap()
}

fn versions() -> impl Iterator<Item = String> {
    (24..).map(|minor| format!("1.{minor}")).take_while(|text| *text != ApiVersion::NEWEST.to_string())
}

#[tokio::test]
async fn defaults_pass_every_policy_in_every_version() {
    for cgroup in [CgroupVersion::V1, CgroupVersion::V2] {
        let tenants = Tenants::new(cgroup).await;
        for version in versions().chain([ApiVersion::NEWEST.to_string()]) {
            for which in BuiltIn::ALL {
                let path = format!("/v{version}/containers/create");
                let (status, answer) =
                    tenants.ask(which.as_str(), "POST", &path, &json!({"Image": "box", "Cmd": ["x"]})).await;
                assert_eq!(status, 201, "{which:?}, version {version}, {cgroup:?}: {answer}");
                let id = answer["Id"].as_str().unwrap();
                let (_, shown) =
                    tenants.ask(which.as_str(), "GET", &format!("/containers/{id}/json"), &Value::Null).await;
                assert_eq!(shown["HostConfig"]["CgroupnsMode"], "private", "{which:?}, version {version}, {cgroup:?}");
                let (status, _) =
                    tenants.ask(which.as_str(), "DELETE", &format!("/containers/{id}"), &Value::Null).await;
                assert_eq!(status, 204);
            }
        }
    }
}

/// What clients send that ask for nothing.
#[tokio::test]
async fn what_means_nothing_passes() {
    let tenants = Tenants::new(CgroupVersion::V1).await;
    let host_config = json!({
        "Privileged": false, "CapAdd": [], "CapDrop": ["ALL"], "Devices": [], "SecurityOpt": ["no-new-privileges"],
        "OomScoreAdj": 0, "OomKillDisable": false, "PidMode": "", "IpcMode": "private", "UTSMode": "", "UsernsMode": "",
        "CgroupnsMode": "private", "Binds": ["cache:/cache", "/anonymous"], "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
        "ShmSize": 1 << 20, "ExtraHosts": ["a:host-gateway"], "LogConfig": {"Type": "json-file"}, "Runtime": "",
        "CgroupParent": "", "MaskedPaths": null, "ReadonlyPaths": null, "NetworkMode": "bridge", "RestartPolicy": {"Name": "always"},
    });
    for which in BuiltIn::ALL {
        let create = json!({"Image": "box", "Cmd": ["x"], "HostConfig": host_config});
        let (status, answer) = tenants.ask(which.as_str(), "POST", "/containers/create", &create).await;
        assert_eq!(status, 201, "{which:?}: {answer}");
    }
    let of_agents = [
        json!({"NetworkMode": "host"}),
        json!({"Binds": ["/var/run/docker.sock:/var/run/docker.sock"]}),
        json!({"CapDrop": ["ALL"], "CapAdd": ["CHOWN", "CAP_SETUID", "net_bind_service"]}),
        json!({"PublishAllPorts": true, "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}),
        json!({"Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"}, "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]}),
        json!({"NetworkMode": "container:web"}),
    ];
    // The socket is the job's own only where there is one.
    let socket = tempfile::NamedTempFile::new().unwrap();
    tenants.state.engine.tenant_listens_at(&id("ci"), socket.path().to_owned()).unwrap();
    for host_config in of_agents {
        let create = json!({"Image": "box", "Cmd": ["x"], "HostConfig": host_config});
        let (status, answer) = tenants.ask("ci", "POST", "/containers/create", &create).await;
        assert_eq!(status, 201, "{create}: {answer}");
    }
}

#[tokio::test]
async fn dangers_of_containers_are_refused_by_their_rules() {
    let tenants = Tenants::new(CgroupVersion::V2).await;
    let rows = [
        ("privileged: true", json!({"Privileged": true})),
        ("capabilities: SYS_ADMIN", json!({"CapAdd": ["SYS_ADMIN"]})),
        ("capabilities: SYS_PTRACE", json!({"CapAdd": ["CHOWN", "cap_sys_ptrace"]})),
        ("capabilities: ALL", json!({"CapAdd": ["ALL"]})),
        (
            "devices: /dev/null:ro",
            json!({"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]}),
        ),
        ("device-rules: a *:* rwm", json!({"DeviceCgroupRules": ["a *:* rwm"]})),
        ("namespaces: pid", json!({"PidMode": "host"})),
        ("namespaces: ipc", json!({"IpcMode": "host"})),
        ("namespaces: uts", json!({"UTSMode": "host"})),
        ("namespaces: user", json!({"UsernsMode": "host"})),
        ("namespaces: cgroup", json!({"CgroupnsMode": "host"})),
        ("security-opt: seccomp=unconfined", json!({"SecurityOpt": ["seccomp=unconfined"]})),
        ("security-opt: seccomp=unconfined", json!({"SecurityOpt": ["seccomp:unconfined"]})),
        ("security-opt: seccomp=profile", json!({"SecurityOpt": ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]})),
        ("security-opt: no-new-privileges=false", json!({"SecurityOpt": ["no-new-privileges=false"]})),
        ("security-opt: no-new-privileges=false", json!({"SecurityOpt": ["no-new-privileges:F"]})),
        ("security-opt: writable-cgroups=true", json!({"SecurityOpt": ["writable-cgroups=true"]})),
        ("system-paths: /proc/asound", json!({"MaskedPaths": [], "ReadonlyPaths": []})),
        ("system-paths: /proc/asound", json!({"MaskedPaths": ["/proc/kcore"]})),
        ("binds: /", json!({"Binds": ["/:/m"]})),
        ("binds: /etc:ro", json!({"Binds": ["/etc:/m:ro"]})),
        ("binds: /", json!({"Binds": ["/tmp/../:/m"]})),
        ("binds: /", json!({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/m"}]})),
        (
            "propagation: rshared",
            json!({"Mounts": [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/m",
            "BindOptions": {"Propagation": "rshared"}}]}),
        ),
        (
            "volume-mounts: bind",
            json!({"Mounts": [{"Type": "volume", "Target": "/m", "VolumeOptions": {"DriverConfig":
            {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}}}]}),
        ),
        (
            "sysctls: kernel.domainname",
            json!({"IpcMode": "private", "Sysctls": {"kernel.shm_rmid_forced": "1", "kernel.domainname": "x"}}),
        ),
        ("runtimes: io.containerd.kata.v2", json!({"Runtime": "io.containerd.kata.v2"})),
        ("annotations: run.oci.handler", json!({"Annotations": {"run.oci.handler": "krun"}})),
        ("oom-score-adj: -500", json!({"OomScoreAdj": -500})),
        ("oom-kill-disable: true", json!({"Memory": 1 << 30, "OomKillDisable": true})),
    ];
    let socket = tempfile::NamedTempFile::new().unwrap();
    for which in ["ci", "trusted"] {
        tenants.state.engine.tenant_listens_at(&id(which), socket.path().to_owned()).unwrap();
    }
    for (refusal, host_config) in rows {
        let create = json!({"Image": "box", "Cmd": ["x"], "HostConfig": host_config}).to_string();
        tenants.check(refusal, "POST", "/containers/create", &create).await;
        tenants.check(refusal, "POST", "/v1.48/containers/create", &create).await;
    }
    let old = json!({"Image": "box", "Cmd": ["x"], "HostConfig": {"Privileged": true}}).to_string();
    tenants.check("privileged: true", "POST", "/v1.24/containers/create", &old).await;
}

/// Rules of which `ci` allows all, since a job has these for itself: in a policy that does not.
#[tokio::test]
async fn what_ci_allows_can_be_taken_away() {
    let tenants = Tenants::new(CgroupVersion::V2).await;
    let narrow = r#"
        runtimes = false
        log-drivers = false
        publish = ["127.0.0.0/8:8000-8999", "[::1]:*"]
        cgroup-parent = ["/ci/*"]
        host-network = false
        ulimits = ["nofile=1024"]
        network-options = ["com.docker.network.driver.mtu"]
        calls = ["*", "!ImagePrune", "!ContainerRename"]
    "#;
    tenants.add(policy::parse("narrow", narrow).unwrap()).await;
    tenants.add(policy::parse("nothing", "publish = false").unwrap()).await;
    let bound =
        |address: &str, port: &str| json!({"PortBindings": {"80/tcp": [{"HostIp": address, "HostPort": port}]}});
    let driver_opts = json!({"DriverOpts": {"com.docker.network.endpoint.ifname": "eth7"}});
    let create = |part: &Value| {
        let mut body = json!({"Image": "box", "Cmd": ["x"]});
        body.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        body.to_string()
    };
    let of_host = |host_config: Value| create(&json!({"HostConfig": host_config}));
    let rows = [
        ("log-drivers: local", of_host(json!({"LogConfig": {"Type": "local"}}))),
        ("publish: *:*", of_host(json!({"PublishAllPorts": true}))),
        ("publish: *:8080", of_host(bound("", "8080"))),
        ("publish: *:8080", of_host(bound("0.0.0.0", "8080"))),
        ("publish: *:8080", of_host(bound("::", "8080"))),
        ("publish: 127.0.0.1:*", of_host(bound("127.0.0.1", ""))),
        ("publish: 127.0.0.1:*", of_host(bound("127.0.0.1", "0"))),
        ("publish: 127.0.0.1:7999", of_host(bound("127.0.0.1", "7999"))),
        ("publish: 127.0.0.1:8990-9000", of_host(bound("127.0.0.1", "8990-9000"))),
        ("cgroup-parent: /other", of_host(json!({"CgroupParent": "/other"}))),
        ("host-network: true", of_host(json!({"NetworkMode": "host"}))),
        ("host-network: true", create(&json!({"NetworkingConfig": {"EndpointsConfig": {"host": {}}}}))),
        ("ulimits: nofile=1025", of_host(json!({"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 1025}]}))),
        ("ulimits: nofile", of_host(json!({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": -1}]}))),
        ("ulimits: nproc=1", of_host(json!({"Ulimits": [{"Name": "nproc", "Soft": 1, "Hard": 1}]}))),
        (
            "network-options: com.docker.network.endpoint.ifname",
            create(&json!({"NetworkingConfig": {"EndpointsConfig": {"bridge": driver_opts}}})),
        ),
    ];
    for (refusal, body) in rows {
        tenants.check_of("narrow", refusal, "POST", "/containers/create", &body).await;
    }
    let network = json!({"Name": "n", "Options": {"com.docker.network.bridge.enable_icc": "false"}}).to_string();
    tenants
        .check_of(
            "narrow",
            "network-options: com.docker.network.bridge.enable_icc",
            "POST",
            "/networks/create",
            &network,
        )
        .await;
    tenants.check_of("narrow", "calls: ImagePrune", "POST", "/images/prune", "").await;
    tenants.check_of("narrow", "calls: ImagePrune", "POST", "/v1.25/images/prune", "").await;
    tenants
        .check_of(
            "nothing",
            "publish: 127.0.0.1:8080",
            "POST",
            "/containers/create",
            &of_host(bound("127.0.0.1", "8080")),
        )
        .await;
    for passing in [
        of_host(bound("127.0.0.2", "8000-8999")),
        of_host(bound("::1", "80")),
        of_host(json!({"CgroupParent": "/ci/a", "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1024}]})),
        of_host(json!({"LogConfig": {"Type": "none"}})),
    ] {
        let (status, answer) = tenants.ask_text("narrow", "POST", "/containers/create", passing.clone()).await;
        assert_eq!(status, 201, "{passing}: {answer}");
    }
    let (status, answer) = tenants.ask("nothing", "POST", "/containers/create", &json!({"Image": "box"})).await;
    assert!(status != 403, "{answer}");
}

/// Keys are read as Go reads them: whatever their case, and the last of several counts.
#[tokio::test]
async fn spelling_hides_nothing() {
    let tenants = Tenants::new(CgroupVersion::V2).await;
    for host_config in [
        r#"{"privileged":true}"#,
        r#"{"PRIVILEGED":true}"#,
        r#"{"Privileged":false,"privileged":true}"#,
        r#"{"Privileged":false,"Privileged":true}"#,
        r#"{"Privileg\u0065d":true}"#,
    ] {
        let body = format!(r#"{{"Image":"box","Cmd":["x"],"HostConfig":{host_config}}}"#);
        tenants.check("privileged: true", "POST", "/containers/create", &body).await;
        let body = format!(r#"{{"Image":"box","Cmd":["x"],"HostConfig":{{}},"hostconfig":{host_config}}}"#);
        tenants.check("privileged: true", "POST", "/containers/create", &body).await;
    }
    let (status, _) = tenants.ask("ci", "POST", "//containers//create", &json!({})).await;
    assert_eq!(status, 301, "a path is cleaned before it is a call");
}

#[tokio::test]
async fn dangers_of_other_calls_are_refused_by_their_rules() {
    let tenants = Tenants::new(CgroupVersion::V2).await;
    let rows = [
        ("exec-privileged: true", "/containers/web/exec", json!({"Cmd": ["x"], "Privileged": true})),
        ("update: memory", "/containers/web/update", json!({"Memory": 1i64 << 31, "MemorySwap": -1})),
        ("update: pids", "/containers/web/update", json!({"PidsLimit": -1})),
        ("update: cpu-shares", "/containers/web/update", json!({"CpuShares": 2048})),
        (
            "volume-mounts: bind",
            "/volumes/create",
            json!({"Name": "bb", "DriverOpts": {"type": "none", "o": "ro,rbind", "device": "/"}}),
        ),
        (
            "volume-mounts: ext4",
            "/volumes/create",
            json!({"Name": "dd", "DriverOpts": {"type": "ext4", "device": "/dev/loop0"}}),
        ),
        (
            "volume-mounts: nfs",
            "/volumes/create",
            json!({"Name": "nn", "DriverOpts": {"type": "nfs", "o": "addr=1.2.3.4", "device": ":/"}}),
        ),
        (
            "volume-mounts: bind",
            "/volumes/create",
            json!({"Name": "tt", "DriverOpts": {"type": "tmpfs", "o": "bind", "device": "/"}}),
        ),
        (
            "network-options: com.docker.network.bridge.name",
            "/networks/create",
            json!({"Name": "n", "Options": {"com.docker.network.bridge.name": "br7"}}),
        ),
    ];
    for (refusal, path, body) in rows {
        tenants.check(refusal, "POST", path, &body.to_string()).await;
    }
    for (path, body) in [
        ("/containers/web/update", json!({"Memory": 1 << 23, "MemorySwap": 1 << 24, "PidsLimit": 5, "CpuQuota": 1000})),
        ("/volumes/create", json!({"Name": "mm", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}})),
        ("/networks/create", json!({"Name": "m", "Options": {"com.docker.network.driver.mtu": "1400"}})),
        ("/containers/web/exec", json!({"Cmd": ["x"]})),
    ] {
        let (status, answer) = tenants.ask("ci", "POST", path, &body).await;
        assert!((200..300).contains(&status), "{path} {body}: {status} {answer}");
    }
}

#[tokio::test]
async fn builds_and_registries_are_judged_before_anything_is_done() {
    let tenants = Tenants::new(CgroupVersion::V2).await;
    let text = "registries = [\"*\", \"!evil.test\"]\npull = [\"docker.io/library/*\"]\npush = false\nload = false\ncalls = [\"*\", \"!ContainerKill\"]\n";
    tenants.add(policy::parse("own", text).unwrap()).await;
    let refused = async |policy: &str, refusal: &str, path: &str, body: &str| {
        tenants.refused(policy, refusal, "POST", path, body).await;
    };
    refused("ci", "build-host-network: true", "/build?networkmode=host", "").await;
    let limits = "/build?ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Hard%22%3A9999999%7D%5D";
    refused("strict", "ulimits: nofile=9999999", limits, "").await;
    refused("strict", "load: true", "/images/load", "").await;
    refused("strict", "push: reg.test/box", "/images/reg.test/box/push", "").await;
    refused("own", "registries: evil.test", "/images/create?fromImage=evil.test/box", "").await;
    refused("own", "registries: evil.test", "/auth", r#"{"serveraddress": "https://evil.test/v2/"}"#).await;
    refused("own", "pull: docker.io/someone/box", "/images/create?fromImage=someone/box", "").await;
    refused("own", "load: true", "/images/create?fromSrc=-", "").await;
    refused("own", "calls: ContainerKill", "/containers/web/kill", "").await;
    refused("own", "calls: ContainerKill", "/v1.24/containers/web/kill", "").await;
}
