//! The embedded containerd, for real: start, restart after a death, take-over, stop.

use std::{fs, ops::Deref, path::Path, time::Duration};

use ringer::containerd::{Child, ChildOptions, ConnectOptions, Containerd};
use tokio::time::Instant;

/// A folder whose containerd ends with it, also when a test fails.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(pid) = read_pid(self).filter(|pid| lives(*pid)) {
            kill(pid);
        }
    }
}

fn options(folder: &Path) -> ChildOptions {
    ChildOptions::new(folder.join("data"), folder.join("run"))
}

fn pid_of(folder: &Path) -> u32 {
    read_pid(folder).expect("a pid file")
}

fn read_pid(folder: &Path) -> Option<u32> {
    let text = fs::read_to_string(folder.join("run/containerd/containerd.pid")).ok()?;
    text.split(' ').next()?.parse().ok()
}

fn lives(pid: u32) -> bool {
    // A zombie that nobody has reaped yet does not live.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killing our own containerd");
}

async fn connect(child: &Child, folder: &Path) -> ringer::model::Result<Containerd> {
    Containerd::connect(ConnectOptions::new(child.address(), folder.join("run"))).await
}

#[tokio::test]
async fn it_serves_after_spawn_and_leaves_no_process_after_stop() {
    let folder = Folder::new();
    let child = Child::spawn(options(&folder)).await.unwrap();
    let pid = pid_of(&folder);
    connect(&child, &folder).await.unwrap();
    child.stop().await;
    assert!(!lives(pid));
    assert!(!folder.join("run/containerd/containerd.sock").exists());
}

#[tokio::test]
async fn it_is_started_again_when_it_dies() {
    let folder = Folder::new();
    let child = Child::spawn(options(&folder)).await.unwrap();
    let first = pid_of(&folder);
    kill(first);
    let deadline = Instant::now() + Duration::from_secs(30);
    while pid_of(&folder) == first || connect(&child, &folder).await.is_err() {
        assert!(Instant::now() < deadline, "containerd did not come back");
        tokio::task::yield_now().await;
    }
    child.stop().await;
}

#[tokio::test]
async fn one_that_a_killed_daemon_left_is_replaced() {
    let folder = Folder::new();
    let first = Child::spawn(options(&folder)).await.unwrap();
    let pid = pid_of(&folder);
    drop(first);
    let second = Child::spawn(options(&folder)).await.unwrap();
    assert_ne!(pid_of(&folder), pid);
    assert!(!lives(pid));
    second.stop().await;
}

#[tokio::test]
async fn one_with_another_config_is_replaced() {
    let folder = Folder::new();
    drop(Child::spawn(options(&folder)).await.unwrap());
    let pid = pid_of(&folder);
    let changed = ChildOptions { log_level: "debug".to_owned(), ..options(&folder) };
    let second = Child::spawn(changed).await.unwrap();
    assert_ne!(pid_of(&folder), pid);
    assert!(!lives(pid));
    second.stop().await;
}

#[tokio::test]
async fn a_containerd_that_cannot_start_tells_why() {
    let folder = Folder::new();
    let missing = ChildOptions { program: Some("/nonexistent/containerd".into()), ..options(&folder) };
    let error = Child::spawn(missing).await.err().expect("nothing to start");
    assert!(error.message().contains("cannot start /nonexistent/containerd"), "{}", error.message());

    let refusing = ChildOptions { log_level: "loudest".to_owned(), ..options(&folder) };
    let error = Child::spawn(refusing).await.err().expect("a bad log level");
    assert!(error.message().contains("containerd ended at start"), "{}", error.message());
}
