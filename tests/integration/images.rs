//! Images for real: our store on containerd, our registry client against Debian's docker-registry, on loopback.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use ringer::{
    backend::images::{
        ImageBackend, contract,
        samples::{Packing, Sample, busybox_tar, image, index, tar},
    },
    engine::images::{DeleteOptions, PullRequest},
    model::{
        Result,
        image::{ImageConfig, Platform},
        reference::Digest,
    },
};

use crate::{
    jobs::Job,
    support::{
        daemon::Daemon,
        images::{DebianRegistry, Store, docker_archive, publish, registry_in, tenant, wait_until},
        registry::Registry,
    },
};

#[tokio::test]
async fn containerd_keeps_the_contract() {
    let store = Store::start().await;
    contract::image_backend(&store.containerd).await;
    store.stop().await;
}

/// busybox and a layer of zstd, for this machine and another.
fn sample() -> Sample {
    let config = ImageConfig { cmd: Some(vec!["/bin/echo".into(), "hello".into()]), ..ImageConfig::default() };
    let busybox = busybox_tar().expect("package busybox-static is installed");
    let ours = image("linux/amd64", config, &[(busybox, Packing::Gzip), (tar(&[("etc/top", b"top")]), Packing::Zstd)]);
    let other = image("linux/s390x", ImageConfig::default(), &[(tar(&[("other", b"other")]), Packing::Gzip)]);
    index(&[ours, other])
}

async fn pull(store: &Store, name: &str) -> Result<Vec<String>> {
    let request =
        PullRequest { image: name.to_owned(), platform: Some("linux/amd64".parse()?), ..PullRequest::default() };
    let engine = store.engine().await;
    let mut stream = engine.image_pull(&engine.scope_of(&tenant())?, &request).await?;
    let mut lines = Vec::new();
    while let Some(message) = stream.next().await {
        lines.extend(message?.status);
    }
    Ok(lines)
}

/// Docker's and OCI's types, packed in each way, alone or in an index.
#[tokio::test]
async fn every_form_of_an_image_is_pulled_and_of_an_index_this_machines_part_alone() {
    let (store, registry) = (Store::start().await, Registry::start().await);
    let engine = store.engine().await;
    let scope = engine.scope_of(&tenant()).unwrap();
    let of = |architecture: &str, packing: Packing| {
        let layer = tar(&[("of", format!("{architecture} {packing:?}").as_bytes())]);
        image(&format!("linux/{architecture}"), ImageConfig::default(), &[(layer, packing)])
    };
    for (form, packing) in [("plain", Packing::Plain), ("gzip", Packing::Gzip), ("zstd", Packing::Zstd)] {
        let (own, other) = (of(&Platform::host().architecture, packing), of("s390x", packing));
        publish(&registry, form, &own);
        publish(&registry, &format!("{form}-index"), &index(&[other.clone(), own.clone()]));
        for repository in [form.to_owned(), format!("{form}-index")] {
            let name = format!("{}/{repository}:latest", registry.host());
            engine
                .image_pull_whole(&scope, &PullRequest { image: name.clone(), ..PullRequest::default() })
                .await
                .unwrap();
            let found = engine.image_for_container(&scope, &name, None).await.unwrap();
            assert_eq!(found.manifest.digest, own.target.digest, "{repository}");
            assert!(store.containerd.snapshot_size(&found.chain_id).await.unwrap() > 0, "{repository}");
        }
        let is_others = |line: &String| other.blobs.iter().any(|(blob, _)| line.contains(blob.digest.as_str()));
        assert_eq!(registry.log().into_iter().find(is_others), None, "nothing of the other platform is fetched");
    }
    store.stop().await;
}

#[tokio::test]
async fn pulled_image_stays_through_collections_and_goes_with_its_name() {
    let (store, registry, sample) = (Store::start().await, Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let busybox = sample.blobs[0].0.clone();
    registry.break_blob("lib/x", busybox.digest.as_str(), &[300_000, 400_000]);
    let name = format!("{}/lib/x:latest", registry.host());
    let lines = pull(&store, &name).await.unwrap();
    assert!(lines.last().unwrap().starts_with("Status: Downloaded newer image"), "{lines:#?}");
    assert!(registry.count(&format!("GET /v2/lib/x/blobs/{} bytes=", busybox.digest)) >= 2);

    store.containerd.collect_garbage().await.unwrap();
    let engine = store.engine().await;
    let found = engine.image_for_container(&engine.scope_of(&tenant()).unwrap(), &name, None).await.unwrap();
    assert_eq!(found.id, sample.target.digest);
    assert!(store.containerd.snapshot_size(&found.chain_id).await.unwrap() > 0);
    assert!(store.containerd.blob_info(&busybox.digest).await.unwrap().is_some());

    engine.image_delete(&engine.scope_of(&tenant()).unwrap(), &name, DeleteOptions::default()).await.unwrap();
    assert!(store.containerd.blob_info(&busybox.digest).await.unwrap().is_none());
    assert!(store.containerd.snapshot_size(&found.chain_id).await.is_err());
    store.stop().await;
}

#[tokio::test]
async fn corrupt_layer_is_an_error_and_nothing_of_it_stays() {
    let (store, registry, sample) = (Store::start().await, Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let corrupt = sample.blobs[1].0.clone();
    registry.put_blob("lib/x", corrupt.digest.as_str(), &vec![0; usize::try_from(corrupt.size).unwrap()]);
    let name = format!("{}/lib/x:latest", registry.host());
    let error = pull(&store, &name).await.unwrap_err();
    assert_eq!(error.message(), format!("filesystem layer verification failed for digest {}", corrupt.digest));
    for (blob, _) in &sample.blobs {
        wait_until(async || store.containerd.blob_info(&blob.digest).await.unwrap().is_none()).await;
    }
    // The same name works once the registry is mended.
    registry.put_blob("lib/x", corrupt.digest.as_str(), sample.bytes(&corrupt.digest));
    pull(&store, &name).await.unwrap();
    store.stop().await;
}

#[tokio::test]
async fn pull_that_its_client_left_can_be_started_again_at_once() {
    let (store, registry, sample) = (Store::start().await, Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let gate = registry.hold_blob("lib/x", sample.blobs[0].0.digest.as_str());
    let name = format!("{}/lib/x:latest", registry.host());
    let left = tokio::time::timeout(Duration::from_millis(300), pull(&store, &name)).await;
    assert!(left.is_err(), "the registry holds the layer back");
    gate.add_permits(9);
    pull(&store, &name).await.unwrap();
    store.stop().await;
}

fn docker(daemon: &Daemon, arguments: &[&str]) -> (bool, String) {
    let output = daemon.docker().args(arguments).output().expect("the docker CLI is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn write_archive(folder: &Path, sample: &Sample, tag: &str) -> String {
    let path = folder.join("image.tar");
    std::fs::write(&path, docker_archive(sample, tag)).expect("writing into the test's folder");
    path.display().to_string()
}

#[tokio::test]
async fn docker_cli_loads_runs_saves_imports_and_removes() {
    let daemon = Daemon::start().await;
    let busybox = busybox_tar().expect("package busybox-static is installed");
    let config = ImageConfig { cmd: Some(vec!["/bin/echo".into(), "hello".into()]), ..ImageConfig::default() };
    let sample = image("linux/amd64", config, &[(busybox.clone(), Packing::Plain)]);
    let archive = write_archive(daemon.folder(), &sample, "test/busybox:1");
    assert_eq!(docker(&daemon, &["load", "-q", "-i", &archive]), (true, "Loaded image: test/busybox:1\n".into()));
    assert_eq!(docker(&daemon, &["run", "--rm", "--network=none", "test/busybox:1"]), (true, "hello\n".into()));

    let saved = daemon.folder().join("saved.tar").display().to_string();
    assert!(docker(&daemon, &["save", "-o", &saved, "test/busybox:1"]).0);
    assert!(docker(&daemon, &["rmi", "test/busybox:1"]).1.starts_with("Untagged: test/busybox:1\nDeleted: sha256:"));
    assert!(docker(&daemon, &["load", "-i", &saved]).1.contains("Loaded image: test/busybox:1"));

    let tar = daemon.folder().join("rootfs.tar");
    std::fs::write(&tar, &busybox).unwrap();
    let tar = tar.display().to_string();
    let (imported, _) = docker(&daemon, &["import", "-c", "ENV A=b", "-c", "CMD [\"/bin/env\"]", &tar, "imported:1"]);
    assert!(imported);
    assert!(docker(&daemon, &["run", "--rm", "--network=none", "imported:1"]).1.contains("A=b"));

    let (pulled, text) = docker(&daemon, &["pull", "127.0.0.1:1/nosuch:1"]);
    assert!(!pulled && text.contains("connection refused"), "{text}");
    let (inspected, text) = docker(&daemon, &["image", "inspect", "nosuch"]);
    assert!(!inspected && text.contains("No such image: nosuch"), "{text}");
}

#[tokio::test]
async fn docker_cli_pulls_from_debians_registry() {
    let daemon = Daemon::start().await;
    let registry = DebianRegistry::start(daemon.folder(), daemon.pid());
    let archive = write_archive(daemon.folder(), &image_for_registry(), "x:1");
    registry.push(&archive, "lib/x:1").await;
    let name = registry.name("lib/x:1");
    let (pulled, text) = docker(&daemon, &["pull", &name]);
    assert!(pulled && text.contains("Pull complete"), "{text}");
    assert!(text.contains(&format!("Status: Downloaded newer image for {name}")), "{text}");
    assert_eq!(docker(&daemon, &["run", "--rm", "--network=none", &name]).1, "hello\n");
    let (pulled, text) = docker(&daemon, &["pull", &registry.name("lib/x:2")]);
    assert!(!pulled && text.contains("not found: manifest unknown: manifest unknown"), "{text}");
    let (known, text) = docker(&daemon, &["login", "-u", "u", "-p", "p", &registry.host()]);
    assert!(known && text.contains("Login Succeeded"), "{text}");
}

/// Runs `script` in a job of its own; what it printed.
fn in_a_job(daemon: &Daemon, script: &str) -> String {
    let output = daemon.ringer(&["job", "run", "--quiet", "--", "sh", "-ec", script]).output().expect("ringer runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}\n{}", daemon.log());
    text
}

#[tokio::test]
async fn the_second_job_pulls_no_layer_and_sees_nothing_that_it_did_not_pull() {
    let daemon = Daemon::start_with(&["--insecure-registry=127.0.0.1:5000"]).await;
    let registry = DebianRegistry::start(daemon.folder(), daemon.pid());
    let archive = write_archive(daemon.folder(), &image_for_registry(), "x:1");
    registry.push(&archive, "lib/x:1").await;
    let name = registry.name("lib/x:1");
    let first = in_a_job(
        &daemon,
        &format!("docker pull {name}; docker tag {name} mine:1; docker run --rm --network=none {name}"),
    );
    assert!(first.contains("Pull complete") && first.ends_with("hello\n"), "{first}");
    let numbers = format!(
        "curl --silent --unix-socket {} http://admin/metrics",
        daemon.folder().join("run/admin.sock").display()
    );
    let second = in_a_job(
        &daemon,
        &format!(
            "docker images -q; ! docker image inspect mine:1 {name} 2>/dev/null >&2; docker pull {name}; {numbers} | grep bytes; \
             docker run --rm --network=none {name}"
        ),
    );
    assert!(!second.contains("Pull complete") && second.ends_with("hello\n"), "{second}");
    assert!(second.starts_with("1: Pulling from lib/x\n"), "no image is there before: {second}");
    let number = |name: &str, labels: &str| -> u64 {
        let mut lines = second.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines
            .next()
            .and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {second}"))
    };
    let layer = number("ringer_pulled_bytes_total", "");
    assert!(layer > 100_000, "busybox is more: {second}");
    let of_second = |from: &str| number("ringer_job_layer_bytes{job=\"job-", &format!("from=\"{from}\""));
    assert_eq!((of_second("registry"), of_second("here")), (0, layer), "{second}");
    assert_eq!(number("ringer_shared_bytes_total", ""), layer, "{second}");
    let (listed, text) = docker(&daemon, &["images", "-qa"]);
    assert_eq!((listed, text.as_str()), (true, ""), "nor is one there for the default socket");
}

/// The cache has room for one of two images. What goes from it while a job pulls what is made on it is not taken from under the pull, though
/// containerd collects all that nothing refers to; when the job has gone it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_from_the_cache_stays_for_a_pull_that_needs_it() {
    let daemon = Daemon::start_with(&["--cache-max-bytes=6m", "--insecure-registry=127.0.0.1:5000"]).await;
    let registry = registry_in(format!("/proc/{}/ns/net", daemon.pid()).as_ref(), "127.0.0.1:5000");
    let program = (busybox_tar().expect("package busybox-static is installed"), Packing::Plain);
    let of = |layers: &[(Bytes, Packing)]| image("linux/amd64", ImageConfig::default(), layers);
    let (base, top) = (of(std::slice::from_ref(&program)), of(&[program, (tar(&[("top", b"top\n")]), Packing::Plain)]));
    let large = |name: &str| of(&[(tar(&[(name, &vec![1; 2 << 20])]), Packing::Plain)]);
    for (name, sample) in [("base", &base), ("top", &top), ("other", &large("other")), ("last", &large("last"))] {
        publish(&registry, name, sample);
    }
    let name = |rest: &str| format!("{}/{rest}:latest", registry.host());
    let layers = top.manifest().layers;
    let (shared, own) = (&layers[0].digest, &layers[1].digest);
    let has = |digest: &Digest| daemon.ctr("ringer", &["content", "ls", "--quiet"]).contains(digest.as_str());
    // The end of a lease can wait for containerd's collector.
    let collect = || {
        daemon.ctr("ringer", &["leases", "create", "--id", "collect"]);
        daemon.ctr("ringer", &["leases", "delete", "--sync", "collect"]);
    };
    let goes = async |sample: &Sample| {
        let said = format!("image {} goes from the cache", sample.target.digest);
        wait_until(async || daemon.log().contains(&said)).await;
        collect();
    };

    in_a_job(&daemon, &format!("docker pull {}", name("base")));
    collect();
    assert!(has(shared) && has(&base.target.digest), "it is kept for other jobs");
    let gate = registry.hold_blob("top", own.as_str());
    let job = Job::create(&daemon, &[]);
    let docker = |arguments: &[&str]| {
        let mut docker = Command::new("docker");
        docker.args(arguments).env("DOCKER_HOST", job.host()).stdin(Stdio::null());
        docker
    };
    let mut pulling = docker(&["pull", &name("top")]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(pulling.stdout.take().unwrap()).lines().map_while(std::result::Result::ok);
    assert!(lines.any(|line| line.ends_with("Already exists")), "{}", daemon.log());
    in_a_job(&daemon, &format!("docker pull {}", name("other")));
    goes(&base).await;
    assert!(!has(&base.target.digest) && has(shared), "the pull has nothing but what it needs");
    gate.add_permits(9);
    lines.for_each(drop);
    assert!(pulling.wait().unwrap().success(), "{}", daemon.log());
    let run = docker(&["run", "--rm", "--network=none", &name("top"), "/bin/busybox", "cat", "/top"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stdout), "top\n", "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(registry.count(&format!("GET /v2/top/blobs/{shared}")), 0);

    job.remove(&daemon);
    in_a_job(&daemon, &format!("docker pull {}", name("last")));
    goes(&top).await;
    assert!(!has(shared) && !has(own), "nobody needs it any more");
}

#[tokio::test]
async fn preloaded_images_are_pulled_at_start_and_every_job_has_them() {
    let flags = ["--preload", "127.0.0.1:5000/lib/x:1", "--preload", "box"];
    let daemon = Daemon::start_with(&flags).await;
    daemon.import_box().await;
    // It is not there yet when the daemon first asks.
    let registry = DebianRegistry::start(daemon.folder(), daemon.pid());
    let (archive, name) = (write_archive(daemon.folder(), &image_for_registry(), "x:1"), registry.name("lib/x:1"));
    registry.push(&archive, "lib/x:1").await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !docker(&daemon, &["image", "inspect", &name]).0 {
        assert!(std::time::Instant::now() < deadline, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    drop(registry);
    let script = format!(
        "docker run --rm {name}; docker run --rm box echo box; docker rmi box >/dev/null; docker images -q | wc -l"
    );
    for _ in 0..2 {
        assert_eq!(in_a_job(&daemon, &script), "hello\nbox\n1\n", "a job takes its names alone with it");
    }
}

#[tokio::test]
async fn docker_cli_commits_diffs_exports_and_pushes_to_debians_registry() {
    let daemon = Daemon::start().await;
    let registry = DebianRegistry::start(daemon.folder(), daemon.pid());
    let archive = write_archive(daemon.folder(), &image_for_registry(), "test/busybox:1");
    registry.push(&archive, "lib/x:1").await;
    assert!(docker(&daemon, &["pull", "-q", &registry.name("lib/x:1")]).0);

    let script = "echo new > /new; rm /bin/seq; mkdir /d";
    let run =
        docker(&daemon, &["run", "--name=com", "--network=none", &registry.name("lib/x:1"), "/bin/sh", "-c", script]);
    assert!(run.0, "{}", run.1);
    assert_eq!(docker(&daemon, &["diff", "com"]).1, "C /bin\nD /bin/seq\nA /d\nA /new\n");
    let exported = daemon.folder().join("exported.tar").display().to_string();
    assert!(docker(&daemon, &["export", "-o", &exported, "com"]).0);
    let names = Command::new("tar").args(["-tf", &exported]).output().unwrap().stdout;
    let names = String::from_utf8_lossy(&names);
    assert!(names.contains("\nnew\n") && names.contains("bin/busybox") && !names.contains("bin/seq"), "{names}");

    let name = registry.name("made/y:1");
    assert!(docker(&daemon, &["commit", "-c", "CMD [\"/bin/cat\",\"/new\"]", "com", &name]).0);
    let (pushed, text) = docker(&daemon, &["push", &name]);
    assert!(pushed && text.contains("Mounted from lib/x") && text.contains("Pushed"), "{text}");
    let (_, again) = docker(&daemon, &["push", &name]);
    assert_eq!(again.matches("Layer already exists").count(), 2, "{again}");
    assert!(docker(&daemon, &["rmi", &name]).0);
    assert_eq!(docker(&daemon, &["run", "--rm", "--network=none", "-q", &name]).1, "new\n");
    assert!(docker(&daemon, &["system", "df"]).1.contains("Images"));
    let (pruned, text) = docker(&daemon, &["image", "prune", "-a", "-f"]);
    assert!(pruned && text.contains(&format!("untagged: {name}")), "{text}");
}

fn image_for_registry() -> Sample {
    let config = ImageConfig { cmd: Some(vec!["/bin/echo".into(), "hello".into()]), ..ImageConfig::default() };
    image("linux/amd64", config, &[(busybox_tar().expect("package busybox-static is installed"), Packing::Gzip)])
}

/// Programs that these tests start.
#[test]
fn tools_are_installed() {
    for tool in ["docker", "docker-registry", "skopeo"] {
        assert!(Command::new(tool).arg("--version").output().is_ok(), "{tool} is missing");
    }
}
