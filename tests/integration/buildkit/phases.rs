//! A client that is killed in each phase of its build: what it began ends, and the next build works.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use chrono::{DateTime, TimeDelta, Utc};
use ringer::{
    backend::images::samples::{self, Packing},
    model::image::ImageConfig,
};

use super::{
    Builder,
    deaths::{NAMESPACE, buildkitd, builds, kill_client, of_steps},
    until, until_none,
    walls::registry_beside,
};
use crate::support::{images::publish, memory_of};

/// What has come of a large context when its client is killed, and what none of it may be in, in KiB.
const COME: u64 = 128 << 10;
const IN_MEMORY: u64 = 192 << 10;

/// Builds that go on with what they have, and what is being written. A lease of BuildKit's may stay for five minutes, and then ends by itself.
fn going_on(builder: &Builder) -> Vec<String> {
    let builds = builder.must(&["buildx", "history", "ls", "--format={{.Status}}"]);
    let writes = builder.daemon.ctr(NAMESPACE, &["content", "active"]);
    let running = builds.lines().filter(|status| *status == "Running");
    running.chain(writes.lines().skip(1)).map(str::to_owned).chain(of_steps(builder)).collect()
}

/// What no build holds any more, once its cache is pruned: layers, and leases that do not end by themselves within five minutes. What it was
/// lent of images is ours.
fn held(builder: &Builder) -> Vec<String> {
    let listed = |what: &str| builder.daemon.ctr(NAMESPACE, &[what, "ls"]);
    let soon = Utc::now() + TimeDelta::minutes(5);
    let ends = |lease: &str| {
        let end = lease.split("containerd.io/gc.expire=").nth(1).and_then(|rest| rest.split([',', ' ']).next());
        end.and_then(|end| DateTime::parse_from_rfc3339(end).ok()).is_some_and(|end| end <= soon)
    };
    let (layers, leases) = (listed("snapshots"), listed("leases"));
    let leases = leases.lines().skip(1).filter(|lease| !lease.starts_with("ringer-") && !ends(lease));
    layers.lines().skip(1).chain(leases).map(str::to_owned).collect()
}

/// How much the daemon has on its disk, in KiB.
fn stored(builder: &Builder) -> u64 {
    let data = builder.daemon.folder().join("data");
    let output = Command::new("du").arg("-sk").arg(data).output().expect("du is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a number")
}

/// Begins a build, kills its client once it is in that phase, and waits until nothing of it goes on.
async fn killed(
    builder: &Builder,
    flags: &[&str],
    context: &Path,
    phase: &str,
    mut is_in_it: impl AsyncFnMut(&str) -> bool,
) {
    let said = context.with_extension("said");
    let mut docker = builder.command(&[&["build", "--no-cache"], flags, &[context.to_str().unwrap()]].concat());
    let client = docker.stdout(File::create(&said).unwrap()).stderr(File::options().append(true).open(&said).unwrap());
    let mut client = client.spawn().expect("the CLI is there");
    until(phase, async || {
        let text = fs::read_to_string(&said).unwrap();
        // First: it may have come to its end since.
        let is_in_it = is_in_it(&text).await;
        assert!(is_in_it || client.try_wait().unwrap().is_none(), "{phase}: {text}");
        is_in_it
    })
    .await;
    kill_client(client);
    until_none(phase, || going_on(builder)).await;
}

/// A context of one file, which needs no place before it is read.
fn large(builder: &Builder, name: &str, size: u64) -> PathBuf {
    let context = builder.cli.context(name, &[("Dockerfile", "FROM box\nCOPY large /\n"), ("large", "")]);
    File::options().write(true).open(context.join("large")).unwrap().set_len(size).unwrap();
    context
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_in_any_phase_leaves_nothing_behind() {
    let Some(builder) = Builder::start().await else { return };
    builds(&builder);
    let (images, before) = (builder.must(&["images", "-aq"]), stored(&builder));
    let pids = [builder.daemon.pid(), u32::try_from(buildkitd(&builder)[0]).unwrap()];

    let comes = async |_: &str| {
        for pid in pids {
            let memory = memory_of(pid);
            assert!(memory < IN_MEMORY, "{memory} KiB of {pid} of {pids:?}, the daemon and buildkitd");
        }
        stored(&builder) > before + COME && !going_on(&builder).is_empty()
    };
    killed(&builder, &[], &large(&builder, "sent", 1 << 30), "its context", comes).await;
    until("what came of it is gone", async || stored(&builder) < before + COME / 2).await;

    let registry = registry_beside(&builder);
    let base =
        samples::image("linux/amd64", ImageConfig::default(), &[(samples::busybox_tar().unwrap(), Packing::Gzip)]);
    publish(&registry, "base", &base);
    let gate = registry.hold_blob("base", base.manifest().layers[0].digest.as_str());
    let dockerfile = format!("FROM {}/base\nRUN true\n", registry.host());
    let context = builder.cli.context("fetched", &[("Dockerfile", &dockerfile)]);
    let fetches = format!("GET /v2/base/blobs/{}", base.manifest().layers[0].digest);
    killed(&builder, &[], &context, "fetching its base", async |_| registry.count(&fetches) > 0).await;
    gate.add_permits(100);

    let context = large(&builder, "packed", 0);
    let noise = File::open("/dev/urandom").unwrap();
    std::io::copy(&mut noise.take(100 << 20), &mut File::create(context.join("large")).unwrap()).unwrap();
    killed(&builder, &[], &context, "packing its result", async |said| said.contains("exporting layers")).await;

    let uploads = "/v2/pushed/blobs/uploads/";
    registry.fail(uploads, &[(503, "{}"); 100]);
    let name = format!("{}/pushed", registry.host());
    let context = builder.cli.context("pushed", &[("Dockerfile", "FROM box\nRUN true\n")]);
    let asked = format!("POST {uploads}");
    killed(&builder, &["--push", "-t", &name], &context, "pushing it", async |_| registry.count(&asked) > 0).await;

    assert_eq!(builder.must(&["ps", "-aq"]), "");
    builder.must(&["builder", "prune", "-af"]);
    builder.must(&["image", "prune", "-f"]);
    builder.docker(&["rmi", &name]);
    until_none("all phases", || held(&builder)).await;
    assert_eq!(builder.must(&["images", "-aq"]), images);
    builds(&builder);
}
