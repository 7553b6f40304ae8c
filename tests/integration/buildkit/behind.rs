//! The walls behind buildkitd: what steps ask that no Dockerfile can say, and what a buildkitd would get that asks containerd for more
//! than it was told to.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, DeleteContainerRequest, ListContainersRequest, container::Runtime,
        containers_client::ContainersClient,
    },
    tonic::{Code, Request, Status, transport::Channel},
};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Builder,
    deaths::{kill_client, runs},
    jobs::OfJob,
    until,
};
use crate::support::{builder::processes_with, part};

/// The graph of a build (`pb.Definition` and what is in it, of BuildKit's `ops.proto`) as far as a step needs it.
#[derive(Clone, PartialEq, Message)]
struct Definition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    operations: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Input>,
    #[prost(message, optional, tag = "2")]
    step: Option<Step>,
    #[prost(message, optional, tag = "3")]
    source: Option<Source>,
    #[prost(message, optional, tag = "10")]
    platform: Option<Platform>,
}

#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, Message)]
struct Platform {
    #[prost(string, tag = "1")]
    architecture: String,
    #[prost(string, tag = "2")]
    os: String,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(string, tag = "1")]
    identifier: String,
    #[prost(map = "string, string", tag = "2")]
    attributes: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(message, optional, tag = "1")]
    meta: Option<Meta>,
    #[prost(message, repeated, tag = "2")]
    mounts: Vec<Mount>,
    /// 1 is the host's.
    #[prost(int32, tag = "3")]
    network: i32,
    /// 1 is privileged.
    #[prost(int32, tag = "4")]
    security: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Meta {
    #[prost(string, repeated, tag = "1")]
    arguments: Vec<String>,
    #[prost(string, tag = "3")]
    folder: String,
    #[prost(string, tag = "10")]
    cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(string, tag = "3")]
    destination: String,
}

/// A step `sleep 4242MARK` on the image `box`, as no frontend makes it.
fn graph(mark: &str, step: Step) -> Vec<u8> {
    let platform = || Some(Platform { architecture: "amd64".to_owned(), os: "linux".to_owned() });
    let on = |operation: &[u8]| {
        let digest: String = Sha256::digest(operation).iter().map(|byte| format!("{byte:02x}")).collect();
        vec![Input { digest: format!("sha256:{digest}") }]
    };
    let attributes = HashMap::from([("image.resolvemode".to_owned(), "local".to_owned())]);
    let source = Source { identifier: "docker-image://docker.io/library/box:latest".to_owned(), attributes };
    let base = Operation { source: Some(source), platform: platform(), ..Operation::default() }.encode_to_vec();
    let meta = step.meta.unwrap_or_default();
    let arguments = ["/bin/sleep".to_owned(), format!("4242{mark}")].to_vec();
    let meta = Some(Meta { arguments, folder: "/".to_owned(), ..meta });
    let step = Step { meta, mounts: vec![Mount { destination: "/".to_owned() }], ..step };
    let step = Operation { inputs: on(&base), step: Some(step), platform: platform(), ..Operation::default() };
    let step = step.encode_to_vec();
    let end = Operation { inputs: on(&step), ..Operation::default() }.encode_to_vec();
    Definition { operations: vec![base, step, end] }.encode_to_vec()
}

/// BuildKit's own client, which sends a graph as it is; what it says is in the file.
fn build(job: &OfJob<'_>, graph: &[u8], allow: &[&str]) -> (Child, PathBuf) {
    let folder = job.builder.cli.context("graph", &[]);
    fs::create_dir_all(&folder).unwrap();
    let [graphs, said] = ["graph", "said"].map(|name| folder.join(name));
    fs::write(&graphs, graph).unwrap();
    let mut buildctl = Command::new(part("RINGER_TEST_BUILDKITD").expect("Builder has looked").join("buildctl"));
    buildctl.args(["--addr", &job.host(), "build", "--progress=plain", "--no-cache"]).args(allow);
    buildctl.stdin(File::open(&graphs).unwrap()).stdout(Stdio::null()).stderr(File::create(&said).unwrap());
    (buildctl.spawn().expect("buildctl is there"), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_no_dockerfile_can_say_is_judged_as_any_other() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    for (step, allow, reason) in [
        (Step { security: 1, ..Step::default() }, &[][..], "security.insecure is not allowed"),
        (Step { security: 1, ..Step::default() }, &["--allow=security.insecure"], "rule privileged: true"),
        (Step { network: 1, ..Step::default() }, &[], "network.host is not allowed"),
        (Step { network: 1, ..Step::default() }, &["--allow=network.host"], "rule build-host-network: true"),
    ] {
        let (mut client, said) = build(&job, &graph("20", step), allow);
        let succeeded = client.wait().unwrap().success();
        let said = fs::read_to_string(said).unwrap();
        assert!(!succeeded && said.contains(reason), "{reason}: {said}");
    }
    // Where it is not asked of anybody, it is where all of the job's are.
    let meta = Meta { cgroup_parent: "/elsewhere".to_owned(), ..Meta::default() };
    let (client, said) = build(&job, &graph("21", Step { meta: Some(meta), ..Step::default() }), &[]);
    until("the step runs", async || runs("21")).await;
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", processes_with("sleep 424221")[0])).unwrap();
    let is_of_job = |line: &str| line.contains(job.job.id()) && !line.contains("elsewhere");
    assert!(cgroups.lines().any(is_of_job) && !cgroups.contains("elsewhere"), "{cgroups}\n{said:?}");
    kill_client(client);
    until("the step is gone", async || !runs("21")).await;
}

/// Where a job's buildkitd finds containerd, asked in its place.
struct Behind {
    containers: ContainersClient<Channel>,
    namespace: String,
}

impl Behind {
    async fn of(job: &OfJob<'_>) -> Self {
        let socket = job.builder.daemon.folder().join("run/buildkit").join(job.job.id()).join("containerd.sock");
        let channel = containerd_client::connect(&socket).await.unwrap_or_else(|error| panic!("{socket:?}: {error}"));
        Self { containers: ContainersClient::new(channel), namespace: format!("ringer-build-{}", job.job.id()) }
    }

    fn call<T>(&self, message: T) -> Request<T> {
        let mut call = Request::new(message);
        call.metadata_mut().insert("containerd-namespace", self.namespace.parse().unwrap());
        call
    }

    /// Makes a container of a plain step with what is laid over it.
    async fn make(&mut self, lay: impl FnOnce(&mut Value)) -> Result<(), Status> {
        let own = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        let mut spec = json!({"ociVersion": "1.0.2", "process": {"args": ["true"], "cwd": "/"}, "linux": {
            "seccomp": {}, "namespaces": own, "cgroupsPath": "/elsewhere/step",
        }});
        lay(&mut spec);
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned();
        let spec = prost_types::Any { type_url: kind, value: spec.to_string().into_bytes() };
        let runtime = Runtime { name: "io.containerd.elsewhere.v1".to_owned(), options: None };
        let container =
            Container { id: "step".to_owned(), spec: Some(spec), runtime: Some(runtime), ..Container::default() };
        let call = self.call(CreateContainerRequest { container: Some(container) });
        self.containers.create(call).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_that_asks_for_more_gets_no_more_than_its_job_has() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    job.must_build(&["-t", "x"], "FROM box\nLABEL a=b\n");
    let mut behind = Behind::of(&job).await;
    let refused = |answer: Result<(), Status>, reason: &str| {
        let status = answer.expect_err(reason);
        assert!(status.code() == Code::PermissionDenied && status.message().contains(reason), "{reason}: {status}");
    };
    let no_network = |spec: &mut Value| drop(spec["linux"]["namespaces"].as_array_mut().unwrap().pop());
    refused(behind.make(no_network).await, "refused by the policy ci, rule build-host-network: true");
    let capable = |spec: &mut Value| spec["process"]["capabilities"] = json!({"bounding": ["CAP_SYS_ADMIN"]});
    refused(behind.make(capable).await, "rule capabilities");
    let mounts = |spec: &mut Value| {
        spec["mounts"] = json!([{"destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind"]}]);
    };
    refused(behind.make(mounts).await, "rule binds");
    let list = behind.call(ListContainersRequest::default());
    refused(behind.containers.list(list).await.map(drop), "not for builders");
    let own = std::mem::replace(&mut behind.namespace, "ringer".to_owned());
    refused(behind.make(|_| ()).await, "the namespace ringer is not for this builder");
    behind.namespace = own;
    let containers = |behind: &Behind, arguments: &[&str]| {
        builder.daemon.ctr(&behind.namespace, &[&["containers"], arguments].concat())
    };
    assert_eq!(containers(&behind, &["ls", "-q"]), "");

    // A plain one is made where the job's are, whatever else it says.
    behind.make(|_| ()).await.unwrap();
    let told: Value = serde_json::from_str(&containers(&behind, &["info", "step"])).unwrap();
    assert_ne!(told["Runtime"]["Name"], "io.containerd.elsewhere.v1");
    let cgroup = told["Spec"]["linux"]["cgroupsPath"].as_str().unwrap();
    assert!(cgroup.contains(job.job.id()) && !cgroup.contains("elsewhere"), "{cgroup}");
    let delete = behind.call(DeleteContainerRequest { id: "step".to_owned() });
    behind.containers.delete(delete).await.unwrap();
}
