//! A job that exchanges its files with links to the host's while they are written from outside. The races of single calls, with ten
//! thousand rounds each, are beside the code (`src/rootfs/tests/races.rs`).

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustix::fs::{Mode, OFlags, RenameFlags};
use serde_json::json;

use crate::support::daemon::Daemon;

/// A file of the host and one beside it that is exchanged; the host's must stay as it is.
struct Host {
    folder: tempfile::TempDir,
    before: Vec<u64>,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "of the host").unwrap();
        let mut host = Self { folder, before: Vec::new() };
        host.before = host.told();
        host
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    fn told(&self) -> Vec<u64> {
        let stat = fs::metadata(self.file()).unwrap();
        let numbers = [i64::from(stat.mode()), i64::from(stat.uid()), stat.mtime(), stat.ctime_nsec()];
        numbers.into_iter().map(i64::cast_unsigned).chain([stat.nlink(), stat.len()]).collect()
    }

    fn assert_untouched(&self) {
        assert_eq!(self.told(), self.before, "the host's file was reached");
    }
}

/// Exchanges `name` in a folder with a link to the host, as a process in a container does, until it is dropped.
struct Swapper {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    fn start(folder: &Path, kept: &Path, name: &'static str, target: PathBuf) -> Self {
        let open = |path: &Path| -> OwnedFd {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
        };
        let (folder, kept) = (open(folder), open(kept));
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let work = move || {
            while !ended.load(Ordering::Relaxed) {
                // What was exchanged may be a folder of the daemon's by now.
                let _ = rustix::fs::unlinkat(&kept, "other", rustix::fs::AtFlags::empty());
                let _ = rustix::fs::unlinkat(&kept, "other", rustix::fs::AtFlags::REMOVEDIR);
                let _ = rustix::fs::symlinkat(&target, &kept, "other");
                for _ in 0..2 {
                    let _ = rustix::fs::renameat_with(&kept, "other", &folder, name, RenameFlags::EXCHANGE);
                }
            }
        };
        Self { end, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().expect("dropped once").join();
    }
}

/// So many requests as `RINGER_TEST_RUSH` says, or only a few.
fn requests(few: usize) -> usize {
    std::env::var("RINGER_TEST_RUSH")
        .ok()
        .and_then(|text| text.parse::<usize>().ok())
        .map_or(few, |factor| few * factor)
}

fn folders(name: &str, count: usize) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    for _ in 0..count {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o4777);
        header.set_uid(7);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        tar.append_data(&mut header, name, &b""[..]).unwrap();
    }
    tar.into_inner().unwrap().into()
}

#[tokio::test]
async fn archive_put_into_a_running_container_changes_nothing_of_the_host() {
    let daemon = Daemon::with_box().await;
    let host = Host::new();
    let id = daemon.create("job", "sleep 600", json!({})).await;
    daemon.launch(&id).await;
    let pid = daemon.inspect(&id).await["State"]["Pid"].as_u64().unwrap();
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    fs::create_dir_all(root.join("tmp/d")).unwrap();
    fs::create_dir_all(root.join("run/kept")).unwrap();
    let swapper = Swapper::start(&root.join("tmp"), &root.join("run/kept"), "d", host.file());
    let body = folders("d/", 200);
    for _ in 0..requests(20) {
        let request = Request::put("/containers/job/archive?path=/tmp").body(Full::new(body.clone())).unwrap();
        let status = daemon.client().whole(request).await.status;
        assert!(status == 200 || status == 500, "{status}");
    }
    drop(swapper);
    host.assert_untouched();
    daemon.remove("job").await;
}

#[tokio::test]
async fn volume_is_filled_without_reaching_the_host() {
    let daemon = Daemon::with_box().await;
    let host = Host::new();
    let file = "FROM box\nRUN busybox mkdir -p /many/d && busybox chmod 4777 /many/d && for i in $(seq 50); do \
                busybox mkdir /many/d/$i; done\n";
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(file.len() as u64);
    tar.append_data(&mut header, "Dockerfile", file.as_bytes()).unwrap();
    let request = Request::post("/build?networkmode=none&t=many").header("content-type", "application/x-tar");
    let built = daemon.client().whole(request.body(Full::from(tar.into_inner().unwrap())).unwrap()).await;
    assert!(built.text().contains("Successfully tagged"), "{}", built.text());
    for _ in 0..requests(10) {
        let volume = daemon.client().post("/volumes/create", json!({"Name": "shared"})).await.json();
        let folder = PathBuf::from(volume["Mountpoint"].as_str().unwrap());
        let swapper = Swapper::start(&folder, host.folder.path(), "d", host.file());
        let extra = json!({"Image": "many", "HostConfig": {"Binds": ["shared:/many"]}});
        let answer = daemon.try_create("filler", "true", extra).await;
        drop(swapper);
        host.assert_untouched();
        if answer.status == 201 {
            daemon.remove("filler").await;
        }
        let removed = daemon.client().delete("/volumes/shared").await;
        assert_eq!(removed.status, 204, "{}", removed.text());
    }
}
