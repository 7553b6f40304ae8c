//! Parts of volumes as mounts, for real.

use serde_json::{Value, json};

use crate::support::{boxes, daemon::Daemon, images::wait_until};

fn part_of(volume: &str, subpath: &str, target: &str) -> Value {
    let options = json!({"Subpath": subpath});
    let mount = json!({"Type": "volume", "Source": volume, "Target": target, "VolumeOptions": options});
    json!({"HostConfig": {"Mounts": [mount]}})
}

fn whole(volume: &str) -> Value {
    json!({"HostConfig": {"Binds": [format!("{volume}:/v")]}})
}

/// Mounts of parts.
fn count(daemon: &Daemon) -> usize {
    let needle = format!("{}/run/containers/", daemon.folder().display());
    boxes::mounted(&[&needle, "/volume-"]).len()
}

/// What is left below the run's folder of containers.
fn places(daemon: &Daemon) -> Vec<std::path::PathBuf> {
    let containers = std::fs::read_dir(daemon.folder().join("run/containers")).into_iter().flatten();
    let entries = containers.flat_map(|container| std::fs::read_dir(container.unwrap().path()).unwrap());
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.to_string_lossy().contains("/volume-")).collect()
}

/// What an ended run has left goes behind the API's first answers.
async fn until_none(daemon: &Daemon) {
    wait_until(async || (count(daemon), places(daemon)) == (0, vec![])).await;
}

async fn fill(daemon: &Daemon, script: &str) {
    let (code, output) = daemon.run("fill", script, whole("vol")).await;
    assert_eq!((code, output.as_str()), (0, ""));
    daemon.remove("fill").await;
}

#[tokio::test]
async fn a_folder_and_a_file_of_a_volume_are_seen_and_written() {
    let daemon = Daemon::with_box().await;
    fill(&daemon, "cd /v && busybox mkdir -p a/b && echo one > a/b/file && busybox ln -s a/b link").await;
    let (code, output) = daemon.run("folder", "cat /m/file && echo two > /m/new", part_of("vol", "a/b", "/m")).await;
    assert_eq!((code, output.as_str()), (0, "one\n"));
    let (code, output) = daemon.run("linked", "cat /m/new; ls /m", part_of("vol", "link", "/m")).await;
    assert_eq!((code, output.as_str()), (0, "two\nfile\nnew\n"));
    let (code, output) = daemon.run("file", "cat /m; echo more >> /m", part_of("vol", "a/b/file", "/m")).await;
    assert_eq!((code, output.as_str()), (0, "one\n"));
    let (code, output) = daemon.run("heir", "cat /m", json!({"HostConfig": {"VolumesFrom": ["file"]}})).await;
    assert_eq!((code, output.as_str()), (0, "one\nmore\n"));
    for name in ["folder", "heir"] {
        let mount = daemon.inspect(name).await["Mounts"][0].clone();
        let mountpoint = daemon.client().get("/volumes/vol").await.json()["Mountpoint"].clone();
        assert_eq!((&mount["Source"], &mount["Name"]), (&mountpoint, &json!("vol")), "the whole volume is told");
    }
    let head = daemon.client().get("/containers/folder/archive?path=/m/new").await;
    assert_eq!(head.status, 200, "the view of a stopped container has it too");
    until_none(&daemon).await;
}

#[tokio::test]
async fn a_part_is_filled_from_the_image_if_it_is_empty() {
    let daemon = Daemon::with_box().await;
    fill(&daemon, "cd /v && busybox mkdir empty full && echo mine > full/own && busybox ln -s /etc out").await;
    let (code, output) = daemon.run("empty", "cat /data/seed", part_of("vol", "empty", "/data")).await;
    assert_eq!((code, output.as_str()), (0, "from the image\n"));
    let (code, output) = daemon.run("full", "ls /data", part_of("vol", "full", "/data")).await;
    assert_eq!((code, output.as_str()), (0, "own\n"));
    let out = daemon.try_create("out", "true", part_of("vol", "out", "/data")).await;
    assert_eq!(out.status, 400);
    let text = out.message();
    assert!(text.starts_with("failed to populate volume: path concatenation escapes the base directory"), "{text}");
    let (code, output) = daemon.run("all", "ls /v", whole("vol")).await;
    assert_eq!((code, output.as_str()), (0, "empty\nfull\nout\n"), "the rest of the volume is as it was");
}

#[tokio::test]
async fn a_link_to_elsewhere_is_refused_at_the_start() {
    let daemon = Daemon::with_box().await;
    fill(&daemon, "cd /v && busybox ln -s ../../../.. up && busybox ln -s /etc host && busybox mkdir in").await;
    for (subpath, status, text) in [
        ("up", 400, "path concatenation escapes the base directory, base: "),
        ("host/passwd", 400, "path concatenation escapes the base directory, base: "),
        ("none", 404, "cannot access path "),
    ] {
        let id = daemon.create("away", "true", part_of("vol", subpath, "/m")).await;
        let started = daemon.client().post(&format!("/containers/{id}/start"), Value::Null).await;
        assert_eq!(started.status, status, "{subpath}");
        assert!(started.message().starts_with(text), "{}", started.message());
        assert_eq!(daemon.inspect(&id).await["State"]["ExitCode"], 128);
        daemon.remove(&id).await;
    }
    assert_eq!((count(&daemon), places(&daemon)), (0, vec![]));
}

#[tokio::test]
async fn a_part_that_is_swapped_meanwhile_never_shows_the_host() {
    let daemon = Daemon::with_box().await;
    fill(&daemon, "cd /v && busybox mkdir part && echo inside > part/mark").await;
    let swap = "cd /v; while :; do busybox mv part real; busybox ln -s ../../../../.. part; busybox rm part; \
                busybox ln -s / part; busybox rm part; busybox mv real part; done";
    let swapper = daemon.create("swapper", swap, whole("vol")).await;
    daemon.launch(&swapper).await;
    let mut seen = 0;
    for _ in 0..40 {
        let id = daemon.create("victim", "ls /m", part_of("vol", "part", "/m")).await;
        let started = daemon.client().post(&format!("/containers/{id}/start"), Value::Null).await;
        if started.status == 204 {
            assert_eq!(daemon.exit_code(&id).await, 0);
            assert_eq!(daemon.output(&id).await, "mark\n");
            seen += 1;
        } else {
            assert!([400, 404].contains(&started.status), "{}: {}", started.status, started.message());
        }
        daemon.remove(&id).await;
    }
    daemon.remove(&swapper).await;
    assert!(seen > 0, "the part was there now and then");
    assert_eq!((count(&daemon), places(&daemon)), (0, vec![]));
}

#[tokio::test]
async fn nothing_is_left_of_a_part_after_stop_restart_and_a_killed_daemon() {
    let mut daemon = Daemon::with_box().await;
    fill(&daemon, "busybox mkdir /v/part && echo kept > /v/part/file && echo file > /v/single").await;
    let mounts = ["part", "single"].map(|subpath| {
        let target = format!("/{subpath}");
        part_of("vol", subpath, &target)["HostConfig"]["Mounts"][0].clone()
    });
    let script = "while :; do sleep 0.05; done";
    let id = daemon.create("user", script, json!({"HostConfig": {"Mounts": mounts}})).await;
    daemon.launch(&id).await;
    assert_eq!(count(&daemon), 2);
    let restarted = daemon.client().post(&format!("/containers/{id}/restart?t=0"), Value::Null).await;
    assert_eq!((restarted.status, count(&daemon)), (204, 2));
    daemon.kill();
    daemon.restart().await;
    assert_eq!(daemon.inspect(&id).await["State"]["Running"], false);
    // Put away behind the listeners.
    until_none(&daemon).await;
    daemon.launch(&id).await;
    assert_eq!(daemon.exec(&id, &["cat", "/part/file", "/single"]).await, (0, "kept\nfile\n".to_owned()));
    daemon.remove(&id).await;
    assert_eq!((count(&daemon), places(&daemon)), (0, vec![]));
    let (code, output) = daemon.run("after", "cat /v/part/file", whole("vol")).await;
    assert_eq!((code, output.as_str()), (0, "kept\n"));
    assert!(daemon.end().success());
}

#[tokio::test]
async fn nothing_is_left_of_a_start_that_a_killed_daemon_began() {
    let mut daemon = Daemon::with_box().await;
    fill(&daemon, "busybox mkdir /v/part").await;
    let id = daemon.create("begun", "true", part_of("vol", "part", "/m")).await;
    let place = daemon.folder().join("run/containers").join(&id).join("volume-0");
    std::fs::create_dir_all(&place).unwrap();
    rustix::mount::mount_bind(&place, &place).unwrap();
    assert_eq!(count(&daemon), 1);
    daemon.remove(&id).await;
    // The files of a container go in the background; the end waits for that.
    assert!(daemon.end().success());
    assert_eq!((count(&daemon), places(&daemon)), (0, vec![]));
}
