//! Bad moments: whoever goes, the next build works and nothing stays.

use std::{fs, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Builder, steps::sandboxes, until, until_none};
use crate::support::builder::processes_with;

/// A step that does not end, with something by which its process is known.
fn endless(mark: &str) -> String {
    format!("FROM box\nRUN sleep 4242{mark}\n")
}

/// As `kill -9` of a client.
pub fn kill_client(mut build: std::process::Child) {
    build.kill().expect("it runs");
    build.wait().expect("a child can be waited for");
}

/// A build that has come to its endless step.
pub async fn begun(builder: &Builder, mark: &str) -> std::process::Child {
    begun_at(builder, &builder.daemon.host(), mark).await
}

/// The same at another socket.
pub async fn begun_at(builder: &Builder, host: &str, mark: &str) -> std::process::Child {
    let context = builder.context(&endless(mark), &[]);
    let mut command = builder.cli.docker(host, &["build", "--no-cache", context.to_str().unwrap()]);
    let build = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the CLI is there");
    until("the step runs", async || runs(mark)).await;
    build
}

/// Whether such a step runs.
pub fn runs(mark: &str) -> bool {
    !processes_with(&format!("sleep 4242{mark}")).is_empty()
}

/// The namespace of the default tenant's builder.
pub const NAMESPACE: &str = "ringer-build-default";

/// What is there for builds that go on, of the default tenant: containers, tasks, networks, mounts.
pub fn of_steps(builder: &Builder) -> Vec<String> {
    let listed = |what: &str| builder.daemon.ctr(NAMESPACE, &[what, "ls", "-q"]);
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", builder.daemon.pid())).unwrap();
    let folders = ["data", "run"].map(|root| builder.daemon.folder().join(root).join("buildkit").display().to_string());
    let mounts = mounts.lines().filter(|mount| folders.iter().any(|folder| mount.contains(folder)));
    // Each buildkitd keeps a namespace for a step to come.
    let mounts = mounts.filter(|mount| !mount.contains("/net/cni/"));
    let mut all: Vec<_> = mounts.map(str::to_owned).collect();
    all.extend(
        ["containers", "tasks"].iter().flat_map(|what| listed(what).lines().map(str::to_owned).collect::<Vec<_>>()),
    );
    all.extend((0..sandboxes(builder)).map(|_| "a network".to_owned()));
    all
}

pub fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a number"), Signal::KILL).expect("it runs");
}

/// Another result each time.
pub fn builds(builder: &Builder) {
    let build = builder.build(&["--no-cache", "-t", "x"], "FROM box\nRUN echo again > /made\n", &[]);
    assert!(build.succeeded, "{}", build.text);
}

pub fn buildkitd(builder: &Builder) -> Vec<i32> {
    processes_with(&format!("--config {}", builder.daemon.folder().join("run/buildkit").display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_takes_its_step_with_it() {
    let Some(builder) = Builder::start().await else { return };
    kill_client(begun(&builder, "01").await);
    until("the step is gone", async || !runs("01")).await;
    builds(&builder);
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkitd_killed_in_a_step_leaves_nothing_and_the_next_build_works() {
    let Some(builder) = Builder::start().await else { return };
    let mut build = begun(&builder, "02").await;
    let found = buildkitd(&builder);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(!of_steps(&builder).is_empty());
    kill(found[0]);
    assert!(!build.wait().unwrap().success());
    until("the step is gone", async || !runs("02")).await;
    until_none("the step", || of_steps(&builder)).await;
    builds(&builder);
    let mut builder = builder;
    builder.daemon.end();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&builder.daemon.folder().display().to_string()), "{mounts}");
    assert!(buildkitd(&builder).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_killed_in_a_step_fails_its_build_and_the_next_one_works() {
    let Some(builder) = Builder::start().await else { return };
    let mut build = begun(&builder, "12").await;
    let text = std::fs::read_to_string(builder.daemon.folder().join("run/containerd/containerd.pid")).unwrap();
    kill(text.split_whitespace().next().unwrap().parse().unwrap());
    until("its client is told", async || build.try_wait().unwrap().is_some()).await;
    assert!(!build.wait().unwrap().success());
    until("the next build works", async || {
        builder.build(&["--no-cache", "-t", "x"], "FROM box\nRUN echo again > /made\n", &[]).succeeded
    })
    .await;
    until("the step is gone", async || !runs("12")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_killed_in_a_step_takes_buildkitd_with_it() {
    let Some(mut builder) = Builder::start().await else { return };
    let mut build = begun(&builder, "03").await;
    assert_eq!(buildkitd(&builder).len(), 1);
    builder.daemon.kill();
    assert!(!build.wait().unwrap().success());
    until("buildkitd is gone", async || buildkitd(&builder).is_empty()).await;
    builder.daemon.restart().await;
    until("the step is gone", async || !runs("03")).await;
    builds(&builder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_breaks_builds_off() {
    let Some(mut builder) = Builder::start().await else { return };
    let mut build = begun(&builder, "04").await;
    assert!(builder.daemon.end().success());
    assert!(!build.wait().unwrap().success());
    assert!(!runs("04") && buildkitd(&builder).is_empty());
    let parent = format!("ringer-{}", builder.daemon.instance());
    let trees = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|tree| tree.unwrap().path());
    let left: Vec<_> = [std::path::PathBuf::from("/sys/fs/cgroup")]
        .into_iter()
        .chain(trees)
        .map(|tree| tree.join(&parent))
        .filter(|parent| parent.exists())
        .collect();
    assert!(left.is_empty(), "cgroups stay: {left:?}");
}
