//! Many builds at once, and steps that take all there is: others are unhurt, and nothing stays.

use std::process::{Child, Stdio};

use super::{Builder, jobs::OfJob, until};
use crate::{
    hard_moments::mount_small_disk,
    support::{builder::processes_with, daemon::Daemon},
};

/// Starts a build of these files.
fn start(job: &OfJob<'_>, name: &str, tag: &str, dockerfile: &str) -> Child {
    let context = job.builder.cli.context(name, &[("Dockerfile", dockerfile)]);
    let mut docker = job.builder.cli.docker(&job.host(), &["build", "-q", "-t", tag, context.to_str().unwrap()]);
    docker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the CLI is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_builds_at_once_of_one_name_end_with_one_image_and_nothing_beside_it() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let build = |n: usize| start(&job, &format!("crowd-{n}"), "crowd", &format!("FROM box\nRUN echo {n} > /made\n"));
    let builds: Vec<_> = (0..20).map(build).collect();
    for mut build in builds {
        assert!(build.wait().unwrap().success(), "{}", builder.daemon.log());
    }
    let made: usize = job.run("crowd", &["cat", "/made"]).trim().parse().expect("a number");
    assert!(made < 20);
    assert_eq!(job.must(&["images", "-q", "crowd"]).lines().count(), 1);
    // The others have lost their name, and go as any image without one.
    job.must(&["image", "prune", "-f"]);
    assert_eq!(job.must(&["images", "-aq"]).lines().count(), 2, "it and the box");
    assert_eq!(job.must(&["ps", "-aq"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_forks_without_end_ends_with_its_client_and_hurts_nobody() {
    let Some(builder) = Builder::start().await else { return };
    let (job, other) = (OfJob::new(&builder, &["--pids", "200"]).await, OfJob::new(&builder, &[]).await);
    // busybox's shell ends when it cannot fork: the one that does so is not the step's own, which stays with what was forked.
    let bomb = "FROM box\nRUN (while true; do sh -c 'sleep 424230' & done) 2> /dev/null; exec sleep 424231\n";
    let mut build = start(&job, "bomb", "bomb", bomb);
    let sleepers = || processes_with("sleep 424230").len();
    until("it has forked", async || sleepers() > 50).await;
    other.must_build(&["-t", "x"], "FROM box\nRUN echo unhurt > /made\n");
    assert!(sleepers() <= 200);
    build.kill().unwrap();
    build.wait().unwrap();
    until("all of it is gone", async || sleepers() == 0).await;
    job.must_build(&["-t", "x"], "FROM box\nRUN echo again > /made\n");
    assert_eq!(job.must(&["ps", "-aq"]), "");
}

/// Half of it is the step's layer, and the other half would be what is exported of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_while_a_result_is_exported_is_told_and_has_room_again() {
    let folder = Daemon::folder_of_its_own();
    mount_small_disk(&folder.path().join("data"), "80m");
    let Some(builder) = Builder::start_in(folder, &[]).await else { return };
    let full = builder.build(&["-t", "big"], "FROM box\nRUN head -c 45000000 /dev/urandom > /big\n", &[]);
    assert!(
        !full.succeeded
            && ["exporting layers", "no space left on device"].iter().all(|words| full.text.contains(words)),
        "{}",
        full.text
    );
    assert_eq!(builder.must(&["images", "-aq"]).lines().count(), 1, "the box");
    builder.must(&["builder", "prune", "-af"]);
    let fits = || builder.build(&["-t", "x"], "FROM box\nRUN head -c 15000000 /dev/urandom > /made\n", &[]).succeeded;
    until("there is room", async || fits()).await;
    assert_eq!(builder.must(&["run", "--rm", "--network=none", "x", "sh", "-c", "wc -c </made"]).trim(), "15000000");
    assert_eq!(builder.must(&["ps", "-aq"]), "");
}
