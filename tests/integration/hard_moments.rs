//! What goes wrong around a daemon: containerd dies, the disk is full, archives lie.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::{boxes::unframed, daemon::Daemon};

/// Mounts a small file system; the daemon's guard unmounts what is below its folder.
pub fn mount_small_disk(at: &Path, size: &str) {
    std::fs::create_dir_all(at).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).status();
    assert!(mounted.unwrap().success());
}

/// `docker import`: the CLI takes an answer that comes before all is sent. Success and what it said.
fn import(daemon: &Daemon, name: &str, tar: &[u8]) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    let output = daemon.docker().arg("import").arg(file.path()).arg(name).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn tar_of(path: &str, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, vec![7; size].as_slice()).unwrap();
    tar.into_inner().unwrap()
}

#[tokio::test]
async fn containers_outlive_a_containerd_that_dies() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("survivor", "sleep 2; echo survived; exit 6", Value::Null).await;
    daemon.launch(&id).await;
    let pid_file = daemon.folder().join("run/containerd/containerd.pid");
    let pid_text = std::fs::read_to_string(pid_file).expect("the embedded containerd has a pid file");
    let pid = Pid::from_raw(pid_text.split_whitespace().next().unwrap().parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(daemon.exit_code(&id).await, 6, "the exit is seen by the containerd that follows");
    assert_eq!(daemon.output(&id).await, "survived\n");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = daemon.try_create("after", "echo fine", Value::Null).await;
        if answer.status == 201 {
            break;
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(Instant::now() < deadline, "containerd does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.launch("after").await;
    assert_eq!(daemon.exit_code("after").await, 0);
}

#[tokio::test]
async fn full_disk_is_an_error_and_leaves_nothing() {
    let folder = Daemon::folder_of_its_own();
    let data = folder.path().join("data");
    mount_small_disk(&data, "24m");
    let daemon = Daemon::start_in(folder, &[]).await;
    let (success, said) = import(&daemon, "big", &tar_of("big", 64 << 20));
    assert!(!success && said.contains("no space left on device"), "{said}");
    assert_eq!(daemon.client().get("/images/json?all=1").await.json(), json!([]));
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (success, said) = import(&daemon, "small", &tar_of("small", 1 << 20));
        if success {
            break;
        }
        assert!(Instant::now() < deadline, "what the failed import took is not given back: {said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_log_that_fills_the_disk_stops_neither_its_container_nor_the_daemon() {
    const LINES: usize = 6_000_000;
    let folder = Daemon::folder_of_its_own();
    let data = folder.path().join("data");
    mount_small_disk(&data, "32m");
    let daemon = Daemon::start_in(folder, &[]).await;
    daemon.import_box().await;
    let script = format!("yes 123456789 | head -n {LINES}; exit 7");
    let id = daemon.create("loud", &script, Value::Null).await;
    let path = format!("/containers/{id}/attach?stream=1&stdout=1");
    let (_, mut attached) = daemon.client().hijack(&path, Value::Null).await;
    daemon.launch(&id).await;
    let mut seen = Vec::new();
    attached.read_to_end(&mut seen).await.unwrap();
    assert_eq!(unframed(&seen).len(), LINES * 10, "who is attached misses nothing");
    assert_eq!(daemon.exit_code(&id).await, 7);
    assert!(daemon.log().contains("No space left on device"), "the daemon tells of it");

    // Now nothing that needs room can be made, and what cannot is not half there.
    let mut refused = None;
    for n in 0..200 {
        let big = json!({"Labels": {"filler": "x".repeat(100_000)}});
        let answer = daemon.try_create(&format!("next{n}"), "true", big).await;
        if answer.status != 201 {
            refused = Some((n, answer));
            break;
        }
    }
    let (n, answer) = refused.expect("records of 20 MB do not fit");
    assert!(answer.status == 500 && answer.message().contains("no space left on device"), "{}", answer.text());
    assert_eq!(daemon.client().get(&format!("/containers/next{n}/json")).await.status, 404);

    for n in 0..n {
        daemon.remove(&format!("next{n}")).await;
    }
    daemon.remove("loud").await;
    assert_eq!(daemon.run("quiet", "echo fine", Value::Null).await, (0, "fine\n".to_owned()));
}

#[tokio::test]
async fn archives_cannot_leave_the_container() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("jail", "ln -s / /tmp/out; sleep 100", Value::Null).await;
    daemon.launch(&id).await;
    let victim = tempfile::NamedTempFile::new().unwrap();
    let name = victim.path().file_name().unwrap().to_str().unwrap();
    let up = format!("{}tmp/{name}", "../".repeat(12));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    // The safe setters refuse such a name; a hostile client does not.
    let field = header.as_gnu_mut().unwrap();
    field.name[..up.len()].copy_from_slice(up.as_bytes());
    header.set_cksum();
    tar.append(&header, b"evil".as_slice()).unwrap();
    let request = Request::put("/containers/jail/archive?path=/tmp")
        .header("content-type", "application/x-tar")
        .body(Full::from(Bytes::from(tar.into_inner().unwrap())))
        .unwrap();
    let answer = daemon.client().whole(request).await;
    assert!(answer.status >= 400 || answer.status == 200, "an answer, not a broken connection");
    assert_eq!(std::fs::read(victim.path()).unwrap(), b"", "the host's file is as it was");
    let through_link = Request::get(format!("/containers/jail/archive?path=/tmp/out/tmp/{name}"));
    let answer = daemon.client().whole(through_link.body(Full::default()).unwrap()).await;
    if answer.status == 200 {
        assert_ne!(std::fs::read(victim.path()).unwrap(), b"evil");
    }
    daemon.remove("jail").await;
}
