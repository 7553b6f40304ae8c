//! A containerd of its own for each test, in a folder that goes with it.

use std::{fs, path::Path};

use ringer::containerd::{Child, ChildOptions, ConnectOptions, Containerd};
use rustix::process::{Pid, Signal, kill_process};

/// A containerd that ends with the test, also with one that fails.
pub struct Store {
    /// The adapter to it.
    pub containerd: Containerd,
    child: Option<Child>,
    folder: tempfile::TempDir,
}

impl Store {
    /// Starts one.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("images-").tempdir().expect("a temporary folder");
        let options = ChildOptions::new(folder.path().join("data"), folder.path().join("run"));
        let child = Child::spawn(options).await.expect("containerd starts");
        let options = ConnectOptions::new(child.address(), folder.path().join("run"));
        let containerd = Containerd::connect(options).await.expect("containerd answers");
        Self { containerd, child: Some(child), folder }
    }

    /// Its folder.
    #[allow(dead_code, reason = "each test file uses what it needs")]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        if let Some(child) = self.child.take() {
            child.stop().await;
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.child.take().is_none() {
            return;
        }
        let file = self.folder.path().join("run/containerd/containerd.pid");
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = text.split(' ').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ended_already = kill_process(pid, Signal::KILL);
        }
    }
}
