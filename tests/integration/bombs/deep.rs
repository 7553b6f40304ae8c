//! Trees that are deeper than any path can be long: they are read, measured and removed, and the daemon lives on.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustix::fs::{Mode, OFlags};
use serde_json::json;

use crate::support::daemon::Daemon;

/// As deep as the names of an archive reach.
const NESTED: usize = 1500;

/// Recursion on this overflows the stack of a thread.
const BOTTOMLESS: usize = 10_000;

fn nested() -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    let mut path = String::new();
    for _ in 0..NESTED {
        path.push_str("d/");
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, &path, &b""[..]).unwrap();
    }
    tar.into_inner().unwrap().into()
}

/// As a job makes it that walks down: no call has the whole path.
fn dig(folder: &Path, depth: usize) {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut here: OwnedFd = rustix::fs::open(folder, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, "d", flags, Mode::empty()).unwrap();
    }
}

#[tokio::test]
async fn nested_folders_go_in_and_come_out_again() {
    let daemon = Daemon::with_box().await;
    daemon.create("job", "true", json!({})).await;
    let request = Request::put("/containers/job/archive?path=/tmp").body(Full::new(nested())).unwrap();
    let answer = daemon.client().whole(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for path in ["archive?path=/tmp/d", "export"] {
        let answer = daemon.client().get(&format!("/containers/job/{path}")).await;
        assert_eq!(answer.status, 200);
        let mut archive = tar::Archive::new(&answer.body[..]);
        let entries = archive.entries().unwrap();
        let depth = entries.map(|entry| entry.unwrap().path_bytes().split(|byte| *byte == b'/').count()).max();
        assert!(depth >= Some(NESTED + 1), "{path} gave {depth:?}");
    }
}

/// A failed test must not leave it to the removal of its temporary folder, which recurses.
struct Bottomless(PathBuf);

impl Drop for Bottomless {
    fn drop(&mut self) {
        let _ = Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

#[tokio::test]
async fn bottomless_volume_is_measured_and_removed() {
    let daemon = Daemon::with_box().await;
    let volume = daemon.client().post("/volumes/create", json!({"Name": "deep"})).await.json();
    let _content = Bottomless(daemon.folder().join("data/volumes"));
    dig(Path::new(volume["Mountpoint"].as_str().unwrap()), BOTTOMLESS);
    let usage = daemon.client().get("/v1.44/system/df").await.json();
    assert_eq!(usage["Volumes"][0]["UsageData"]["Size"], 0, "{usage}");
    let removed = daemon.client().delete("/volumes/deep").await;
    assert_eq!(removed.status, 204, "{}", removed.text());
    // The content goes in the background.
    let gone = daemon.folder().join("data/volumes/.removed");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while gone.read_dir().unwrap().next().is_some() {
        assert!(std::time::Instant::now() < deadline, "not removed:\n{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(daemon.client().get("/_ping").await.status, 200);
}
