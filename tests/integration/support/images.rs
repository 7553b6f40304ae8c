//! A containerd of its own for each test, in a folder that goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use ringer::{
    backend::{
        builds::NoBuilders, images::samples, network::fake::FakeHosts, projects::fake::FakeProjects,
        runtime::fake::FakeRuntime,
    },
    containerd::{Child, ChildOptions, ConnectOptions, Containerd},
    engine::{Backends, Engine, config::EngineConfig},
    model::id::TenantId,
    oci::HostFacts,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::OnceCell;

use super::{place, registry::Registry};

/// A containerd that ends with the test, also with one that fails.
pub struct Store {
    /// The adapter to it.
    pub containerd: Containerd,
    child: Option<Child>,
    folder: tempfile::TempDir,
    engine: OnceCell<Engine>,
}

impl Store {
    /// Starts one.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("images-").tempdir().expect("a temporary folder");
        let options = ChildOptions::new(folder.path().join("data"), folder.path().join("run"));
        let child = Child::spawn(options).await.expect("containerd starts");
        let options = ConnectOptions::new(child.address(), folder.path().join("run"));
        let containerd = Containerd::connect(options).await.expect("containerd answers");
        Self { containerd, child: Some(child), folder, engine: OnceCell::new() }
    }

    /// An engine whose images are in it; its containers and networks are fakes.
    pub async fn engine(&self) -> Engine {
        let folder = self.folder.path();
        let open = async || {
            let config = EngineConfig {
                data_root: folder.join("engine"),
                exec_root: folder.join("engine-run"),
                instance: "images".to_owned(),
                ..EngineConfig::default()
            };
            let backends = Backends {
                runtime: Arc::new(FakeRuntime::new(folder)),
                images: Arc::new(self.containerd.clone()),
                network: Arc::new(FakeHosts::default()),
                builders: Arc::new(NoBuilders),
                projects: Arc::new(FakeProjects::default()),
            };
            Engine::open(HostFacts::detect(), config, backends).await.expect("an engine opens")
        };
        self.engine.get_or_init(open).await.clone()
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        if let Some(child) = self.child.take() {
            child.stop().await;
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.child.take().is_none() {
            return;
        }
        let file = self.folder.path().join("run/containerd/containerd.pid");
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = text.split(' ').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ended_already = kill_process(pid, Signal::KILL);
        }
    }
}

/// The tenant of all tests here.
pub fn tenant() -> TenantId {
    TenantId::default_tenant()
}

/// Looks until it is so.
pub async fn wait_until(look: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !look().await {
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An image of one platform as a docker-archive.
pub fn docker_archive(sample: &samples::Sample, tag: &str) -> Vec<u8> {
    let manifest = sample.manifest();
    let config = format!("{}.json", manifest.config.digest.hex());
    let layers: Vec<String> = (0..manifest.layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let list = serde_json::json!([{ "Config": config, "RepoTags": [tag], "Layers": layers }]).to_string();
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    for (path, layer) in layers.iter().zip(&manifest.layers) {
        files.push((path, sample.bytes(&layer.digest)));
    }
    files.push((&config, sample.bytes(&manifest.config.digest)));
    files.push(("manifest.json", list.as_bytes()));
    samples::tar(&files).to_vec()
}

/// Puts an image into a registry of ours, as `latest`.
pub fn publish(registry: &Registry, repository: &str, sample: &samples::Sample) {
    for (blob, bytes) in &sample.blobs {
        let (kind, digest) = (&blob.media_type, blob.digest.as_str());
        if kind.contains("manifest") || kind.contains("index") {
            let tag = if blob.digest == sample.target.digest { "latest" } else { digest };
            registry.put_manifest(repository, tag, kind, digest, bytes);
        } else {
            registry.put_blob(repository, digest, bytes);
        }
    }
}

/// A registry of ours at an address of a network namespace: on the loopback of a job's host, say.
pub fn registry_in(namespace: &Path, address: &str) -> Registry {
    let listener = place::listen(namespace, address.parse().expect("an address and a port")).expect("a free port");
    listener.set_nonblocking(true).expect("a listener of ours");
    Registry::serve_at(tokio::net::TcpListener::from_std(listener).expect("a listener of ours"))
}

/// Debian's docker-registry in a daemon's network namespace, so that ports of tests do not meet; at all addresses there.
pub struct DebianRegistry {
    process: std::process::Child,
    namespace: PathBuf,
}

impl DebianRegistry {
    /// Starts it with its data in `folder`.
    pub fn start(folder: &Path, daemon: u32) -> Self {
        Self::start_in(folder, format!("/proc/{daemon}/ns/net").into())
    }

    /// The same in a network namespace.
    pub fn start_in(folder: &Path, namespace: PathBuf) -> Self {
        let config = folder.join("registry.yml");
        let data = folder.join("registry");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: ':5000'}}\n",
            data.display()
        );
        fs::write(&config, text).expect("writing into the test's folder");
        let process = in_namespace(&namespace, "docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        Self { process, namespace }
    }

    /// Puts a docker-archive under a name, once it answers.
    pub async fn push(&self, archive: &str, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let output = in_namespace(&self.namespace, "skopeo")
                .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
                .arg(format!("docker-archive:{archive}"))
                .arg(format!("docker://{}", self.name(name)))
                .output()
                .expect("skopeo is installed");
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&output.stderr));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As seen by the daemon.
    pub fn host(&self) -> String {
        "127.0.0.1:5000".to_owned()
    }

    /// A reference to one of its images.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host())
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}

/// A program in a network namespace.
fn in_namespace(namespace: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg(program);
    command
}
