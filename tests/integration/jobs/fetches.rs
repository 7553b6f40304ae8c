//! What the daemon fetches in the name of a job: it leaves from the job's host, finds what the job has there, and meets its walls.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use http::Request;
use http_body_util::Full;
use ringer::{
    backend::images::samples::{Packing, Sample, image, tar},
    model::image::ImageConfig,
};

use serde_json::{Value, json};

use super::Job;
use crate::support::{
    daemon::{Daemon, http::Client},
    images::{DebianRegistry, docker_archive, publish, registry_in},
    registry::Guard,
};

/// For a server that starts.
const LIMIT: Duration = Duration::from_secs(30);

/// An address of the machine that is not loopback.
const MACHINE: &str = "10.98.7.1";

/// Where clouds tell a machine its secrets.
const METADATA: &str = "169.254.169.254";

const ADDRESSES: [&str; 3] = ["127.0.0.1", MACHINE, METADATA];

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// A shell with a Docker socket: that of a job, or the default one.
fn shell(socket: &str, script: &str) -> Output {
    Command::new("sh")
        .args(["-ec", script])
        .env("DOCKER_HOST", socket)
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::null())
        .output()
        .expect("a shell")
}

/// A registry with an image of its own, called `lib/NAME:1`.
pub(super) async fn registry(daemon: &Daemon, name: &str, namespace: PathBuf) -> DebianRegistry {
    let folder = daemon.folder().join(format!("registry-of-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    let layer = tar(&[("name", name.as_bytes())]);
    let sample = image("linux/amd64", ImageConfig::default(), &[(layer, Packing::Gzip)]);
    let archive = folder.join("image.tar");
    std::fs::write(&archive, docker_archive(&sample, "x:1")).unwrap();
    let registry = DebianRegistry::start_in(&folder, namespace);
    registry.push(&archive.display().to_string(), &format!("lib/{name}:1")).await;
    registry
}

/// A registry that a job publishes is at its localhost, as on dockerd; that of the machine is another.
#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_the_jobs_own() {
    let daemon = Daemon::start().await;
    let (one, two) = (Job::create(&daemon, &[]), Job::create(&daemon, &[]));
    let of_machine = registry(&daemon, "machine", format!("/proc/{}/ns/net", daemon.pid()).into()).await;
    let of_job = registry(&daemon, "job", one.namespace(&daemon)).await;
    assert_eq!(of_machine.host(), of_job.host());

    let at = |rest: &str| of_job.name(rest);
    let script = format!(
        "docker pull {0}; docker tag {0} {1}; docker push {1}; docker rmi {0} {1}; docker pull {1}",
        at("lib/job:1"),
        at("lib/pushed:1")
    );
    let output = shell(&one.host(), &script);
    assert!(output.status.success() && text(&output).contains("Pull complete"), "{}\n{}", text(&output), daemon.log());
    for (socket, name, expected) in [
        (one.host(), "lib/machine:1", "manifest unknown"),
        (two.host(), "lib/job:1", "connection refused"),
        (two.host(), "lib/machine:1", "connection refused"),
        (daemon.host(), "lib/job:1", "manifest unknown"),
    ] {
        let output = shell(&socket, &format!("docker pull {}", at(name)));
        assert!(!output.status.success() && text(&output).contains(expected), "{name}: {}", text(&output));
    }
    let output = shell(&daemon.host(), &format!("docker pull {}", at("lib/machine:1")));
    assert!(output.status.success(), "{}", text(&output));
    one.remove(&daemon);
    super::remains::gone_of(&daemon, one.id()).await;
}

/// What the operator has named is asked from the machine for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn registries_of_the_operator_are_asked_from_the_machine() {
    let daemon = Daemon::start_with(&["--insecure-registry=127.0.0.1:5000"]).await;
    let of_machine = registry(&daemon, "machine", format!("/proc/{}/ns/net", daemon.pid()).into()).await;
    let job = Job::create(&daemon, &[]);
    let output = shell(&job.host(), &format!("docker pull {}", of_machine.name("lib/machine:1")));
    assert!(output.status.success(), "{}", text(&output));
}

/// An image that nobody has yet.
fn sample(of: &str) -> Sample {
    image("linux/amd64", ImageConfig::default(), &[(tar(&[("of", of.as_bytes())]), Packing::Gzip)])
}

/// A web server in the daemon's network namespace, on all its addresses, with a secret and what looks like a repository.
struct Web(Child);

impl Web {
    async fn start(daemon: &Daemon) -> Self {
        let folder = daemon.folder().join("web");
        std::fs::create_dir_all(folder.join("repository.git/info")).unwrap();
        std::fs::write(folder.join("secret"), "of the machine\n").unwrap();
        std::fs::write(folder.join("Dockerfile"), "FROM scratch\nLABEL a=b\n").unwrap();
        std::fs::write(folder.join("token"), r#"{"token":"good","access_token":"good"}"#).unwrap();
        for address in ADDRESSES {
            let moved = sample(&format!("moved to {address}"));
            std::fs::write(folder.join(address), moved.bytes(&moved.manifest().layers[0].digest)).unwrap();
        }
        std::fs::write(folder.join("repository.git/info/refs"), "").unwrap();
        std::fs::write(folder.join("repository.git/HEAD"), "ref: refs/heads/master\n").unwrap();
        let script = format!(
            "ip addr add {MACHINE}/32 dev lo; ip addr add {METADATA}/32 dev lo; exec busybox httpd -f -p 8000 -h {}",
            folder.display()
        );
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", daemon.pid())).args(["sh", "-ec", &script]).stdin(Stdio::null());
        let web = Self(command.spawn().expect("nsenter"));
        let deadline = Instant::now() + LIMIT;
        let namespace = format!("/proc/{}/ns/net", daemon.pid());
        let address = format!("{MACHINE}:8000").parse().unwrap();
        while crate::support::place::connect(namespace.as_ref(), address).is_err() {
            assert!(Instant::now() < deadline, "no web server");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        web
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}

/// What a client is told where the daemon fetches something in its name from an address, because of a request or of what a registry beside
/// the client says.
async fn fetches(daemon: &Daemon, client: &Client, namespace: &Path, address: &str) -> Vec<(&'static str, String)> {
    let at = format!("http://{address}:8000");
    let dockerfile = format!("FROM scratch\nADD {at}/secret /\n");
    let context = Request::post("/build").header("content-type", "application/x-tar");
    let context = context.body(Full::new(tar(&[("Dockerfile", dockerfile.as_bytes())]))).unwrap();
    let mut told = vec![("ADD", client.whole(context).await.text())];
    for (way, path) in [("a Dockerfile", "Dockerfile"), ("a repository", "repository.git")] {
        told.push((way, client.post(&format!("/build?remote={at}/{path}"), Value::Null).await.text()));
    }
    // The port of a registry may come again in another namespace.
    let (name, told_before) = (format!("x-{address}"), daemon.log().lines().count());
    let (by_token, by_redirect) = (registry_in(namespace, "127.0.0.1:0"), registry_in(namespace, "127.0.0.1:0"));
    let (guarded, moved) = (sample(&format!("token of {address}")), sample(&format!("moved to {address}")));
    by_token.guard(Guard::Elsewhere(format!("{at}/token")));
    by_redirect.move_blob(&name, moved.manifest().layers[0].digest.as_str(), &format!("{at}/{address}"));
    for (way, registry, image) in [("a realm", by_token, guarded), ("a redirect", by_redirect, moved)] {
        publish(&registry, &name, &image);
        let pull = format!("/images/create?fromImage={}/{name}&tag=latest", registry.host());
        let repository = format!("{}/{name}", registry.host());
        told.push((
            way,
            tokio::select! {
                answer = client.post(&pull, Value::Null) => answer.text(),
                line = broken(daemon, told_before, &repository) => line,
            },
        ));
    }
    told
}

/// Waits for the word that a layer of a repository did not come. It is asked for five times; the first is enough.
async fn broken(daemon: &Daemon, told_before: usize, repository: &str) -> String {
    loop {
        let log = daemon.log();
        let line =
            log.lines().skip(told_before).find(|line| line.contains("broke at 0: ") && line.contains(repository));
        if let Some(line) = line {
            return line.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a container of a client's gets from an address within some seconds.
async fn asks(client: &Client, network: &str, address: &str, patience: u8) -> String {
    let script = format!("printf 'GET /secret HTTP/1.0\\r\\n\\r\\n' | nc -w {patience} {address} 8000 2>&1");
    let (_, said) = client.run("asks", &script, json!({"HostConfig": {"NetworkMode": network}})).await;
    client.remove("asks").await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_for_a_job_meets_its_walls() {
    let daemon = Daemon::with_box().await;
    let _web = Web::start(&daemon).await;
    let job = Job::create(&daemon, &["--policy", "trusted"]);
    let walled = Job::with_box(&daemon, &[]).await;
    for address in ADDRESSES {
        for (way, said) in fetches(&daemon, &job.client, &job.namespace(&daemon), address).await {
            let words = ["refused", "unreachable", "timeout", "timed out", "no route", "couldn't connect"];
            let is_refused = words.iter().any(|word| said.to_lowercase().contains(word));
            assert!(is_refused, "{way} of {address}: {said}");
        }
        for network in ["bridge", "host"] {
            let said = asks(&walled.client, network, address, 3).await;
            assert!(said.starts_with("nc: can't connect to remote host"), "{network}, {address}: {said}");
        }
    }
    // Without walls all of them are there: who asks through the default socket reaches them.
    let machine = PathBuf::from(format!("/proc/{}/ns/net", daemon.pid()));
    for address in ADDRESSES {
        for (way, said) in fetches(&daemon, daemon.client(), &machine, address).await {
            let is_reached = said.contains("sha256:") && !said.contains("error") || said.contains("remote ref");
            assert!(is_reached, "{way} of {address}: {said}");
        }
        let network = if address == "127.0.0.1" { "host" } else { "bridge" };
        let said = asks(daemon.client(), network, address, 30).await;
        assert!(said.ends_with("of the machine\n"), "{network}, {address}: {said}");
    }
    for job in [&job, &walled] {
        job.remove(&daemon);
        super::remains::gone_of(&daemon, job.id()).await;
    }
}
