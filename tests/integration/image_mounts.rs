//! Images as mounts, for real.

use serde_json::{Value, json};

use crate::support::{
    boxes::{self, IMAGE},
    daemon::Daemon,
    images::wait_until,
};

fn mounted(subpath: &str) -> Value {
    let mount = json!({"Type": "image", "Source": "box", "Target": "/m", "ImageOptions": {"Subpath": subpath}});
    json!({"HostConfig": {"Mounts": [mount]}})
}

/// Mounts of images.
fn count(daemon: &Daemon) -> usize {
    let needle = format!("{}/run/containers/", daemon.folder().display());
    boxes::mounted(&[&needle, "/image-"]).len()
}

/// What an ended run has left goes behind the API's first answers.
async fn until_none(daemon: &Daemon) {
    wait_until(async || count(daemon) == 0).await;
}

#[tokio::test]
async fn an_image_is_seen_and_not_written() {
    let daemon = Daemon::with_box().await;
    let (code, output) =
        daemon.run("whole", "cat /m/data/seed; echo x > /m/new; echo x > /m/data/seed; ls /m/new", mounted("")).await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("from the image\n") && output.contains("Read-only file system"), "{output}");
    let (code, output) = daemon.run("part", "cat /m/seed", mounted("data")).await;
    assert_eq!((code, output.as_str()), (0, "from the image\n"));
    // A link of the image means the image's folder, not the host's.
    let (code, output) = daemon.run("linked", "ls /m | wc -l", mounted("var/run")).await;
    assert_eq!((code, output.trim()), (0, "0"));
    for name in ["whole", "part", "linked"] {
        daemon.remove(name).await;
    }
    assert_eq!(count(&daemon), 0);
}

#[tokio::test]
async fn an_image_stays_for_its_container() {
    let mut daemon = Daemon::with_box().await;
    let other = daemon.create("other", "sleep 1000", Value::Null).await;
    let id = daemon.create("user", "while :; do sleep 0.05; done", mounted("")).await;
    daemon.launch(&id).await;
    assert_eq!(count(&daemon), 1);
    daemon.remove(&other).await;
    // Killed and started again the daemon knows the mount, and takes away what is left of the run's.
    daemon.kill();
    daemon.restart().await;
    until_none(&daemon).await;
    let deleted = daemon.client().delete(&format!("/images/{IMAGE}?force=1")).await;
    assert_eq!(deleted.status, 200, "{}", deleted.message());
    daemon.launch(&id).await;
    let head = daemon.client().get("/containers/user/archive?path=/m/data/seed").await;
    assert_eq!(head.status, 200);
    assert_eq!(daemon.client().post("/containers/user/kill", Value::Null).await.status, 204);
    assert_eq!(daemon.exit_code(&id).await, 137);
    // It waits for the end of the run, which releases its mounts after the exit is told.
    let stopped = daemon.client().get("/containers/user/archive?path=/m/data/seed").await;
    assert_eq!((stopped.status, count(&daemon)), (200, 0), "the view of a stopped container has it too");
    daemon.remove(&id).await;
    assert!(daemon.end().success());
}

#[tokio::test]
async fn a_missing_path_is_told_at_the_start() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("lost", "true", mounted("no/such")).await;
    let started = daemon.client().post(&format!("/containers/{id}/start"), Value::Null).await;
    assert_eq!(started.status, 404);
    assert!(started.message().starts_with("cannot access path /"), "{}", started.message());
    assert!(started.message().ends_with("/no/such: no such file or directory"), "{}", started.message());
    assert_eq!(count(&daemon), 0);
    daemon.remove(&id).await;
}
