//! A containerd of its own for each test, with a layer that has busybox in it. Whatever a failed test leaves
//! running or mounted ends with the guard.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ringer::{
    backend::{images::ImageBackend, runtime::contract::Bench},
    containerd::{Child, ChildOptions, ConnectOptions, Containerd},
    model::{id::ContainerId, image::Descriptor},
};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

const APPLETS: [&str; 12] =
    ["cat", "echo", "env", "false", "head", "mkdir", "printf", "sh", "sleep", "stty", "tail", "true"];

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The machine's own.
    Installed,
    /// Unpacked where `RINGER_TEST_CONTAINERD_17` says.
    V17,
    /// Unpacked where `RINGER_TEST_CONTAINERD_21` says.
    V21,
}

impl Version {
    /// Its program; `None` where it is absent, which CI does not let pass.
    fn program(self) -> Option<Option<PathBuf>> {
        let variable = match self {
            Self::Installed => return Some(None),
            Self::V17 => "RINGER_TEST_CONTAINERD_17",
            Self::V21 => "RINGER_TEST_CONTAINERD_21",
        };
        match env::var_os(variable) {
            Some(folder) => Some(Some(Path::new(&folder).join("usr/bin/containerd"))),
            None => {
                assert!(
                    env::var_os("CI").is_none(),
                    "absent in CI: {variable} names no folder with an unpacked containerd"
                );
                eprintln!("absent: {variable} names no folder with an unpacked containerd");
                None
            }
        }
    }
}

/// One instance: containerd, adapter, layer.
pub struct Instance {
    /// The adapter.
    pub containerd: Containerd,
    /// Chain id of the busybox layer.
    pub parent: String,
    /// Cleans up.
    pub guard: Guard,
}

/// Ends what an instance started.
pub struct Guard {
    child: Option<Child>,
    folder: tempfile::TempDir,
    namespace: String,
}

impl Instance {
    /// Starts one; `None` where the version is absent.
    pub async fn start(version: Version) -> Option<Self> {
        let program = version.program()?;
        let folder = tempfile::Builder::new().prefix("runtime-").tempdir().expect("a temporary folder");
        let options =
            ChildOptions { program, ..ChildOptions::new(folder.path().join("data"), folder.path().join("run")) };
        let child = Child::spawn(options).await.expect("containerd starts");
        let namespace = format!("test-{}", ContainerId::random().short());
        let guard = Guard { child: Some(child), folder, namespace };
        let containerd = guard.connect().await;
        let parent = busybox_layer(&containerd).await;
        Some(Self { containerd, parent, guard })
    }

    /// For the contract suite.
    pub fn into_bench(self) -> Bench {
        Bench::new(Arc::new(self.containerd), &self.parent, self.guard)
    }
}

impl Guard {
    /// A further connection, as a daemon that was started anew has it.
    pub async fn connect(&self) -> Containerd {
        let child = self.child.as_ref().expect("running");
        let options = ConnectOptions {
            namespace: self.namespace.clone(),
            ..ConnectOptions::new(child.address(), self.folder.path().join("run"))
        };
        Containerd::connect(options).await.expect("containerd answers")
    }

    /// The instance's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The instance's folder.
    pub fn exec_root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Number of containerd's process.
    pub fn containerd_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.exec_root().join("containerd/containerd.pid")).ok()?;
        text.split(' ').next()?.parse().ok()
    }

    /// Ends containerd without a warning.
    pub fn kill_containerd(&self) {
        kill(self.containerd_pid().expect("a pid file"));
    }

    /// First processes of containers that are still there.
    fn task_pids(&self) -> Vec<i32> {
        let tasks = self.exec_root().join("containerd/state/io.containerd.runtime.v2.task").join(&self.namespace);
        let bundles = fs::read_dir(tasks).into_iter().flatten().flatten();
        bundles
            .filter_map(|bundle| fs::read_to_string(bundle.path().join("init.pid")).ok()?.trim().parse().ok())
            .collect()
    }

    /// Shims that are still there: only theirs have our namespace among their arguments.
    fn shim_pids(&self) -> Vec<i32> {
        let is_ours = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|argument| argument == self.namespace.as_bytes())
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
    }

    fn remove_cgroups(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for root in table.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4)) {
            let parent = Path::new(root).join(&self.namespace);
            for child in fs::read_dir(&parent).into_iter().flatten().flatten().filter(|child| child.path().is_dir()) {
                // Busy until the kernel has buried the processes.
                while fs::remove_dir(child.path()).is_err() && Instant::now() < deadline {
                    std::thread::yield_now();
                }
            }
            // One that is not there is as wanted.
            let _ = fs::remove_dir(parent);
        }
    }

    fn unmount_all(&self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let below: Vec<_> = points.filter(|point| point.starts_with(self.folder.path())).collect();
        for point in below.into_iter().rev() {
            // One that is gone is as wanted.
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Not stopped in order: that would need the runtime, which a failing test may have ended.
        drop(self.child.take());
        if let Some(pid) = self.containerd_pid() {
            kill(pid);
        }
        for pid in self.task_pids().into_iter().chain(self.shim_pids()) {
            kill(pid);
        }
        self.unmount_all();
        self.remove_cgroups();
    }
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has ended already is as wanted.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Puts the layer into the store under a lease that outlives the test.
async fn busybox_layer(containerd: &Containerd) -> String {
    let tar = busybox_tar();
    let layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar", &tar);
    let lease = containerd.lease().await.expect("a lease");
    if let Some(mut writer) = containerd.write_blob(&lease, &layer).await.expect("a writer") {
        writer.write(tar.into()).await.expect("writing the layer");
        writer.commit(HashMap::new()).await.expect("committing the layer");
    }
    // Of a layer that is not compressed, blob, diff id and chain id are one.
    let chain = layer.digest.to_string();
    containerd.unpack_layer(&lease, &layer, "", &chain, &layer.digest).await.expect("unpacking the layer");
    chain
}

fn busybox_tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["bin/", "dev/", "proc/", "sys/", "tmp/"] {
        let mut header = header(0, tar::EntryType::Directory);
        tar.append_data(&mut header, folder, &b""[..]).expect("a folder");
    }
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut file = header(busybox.len() as u64, tar::EntryType::Regular);
    tar.append_data(&mut file, "bin/busybox", busybox.as_slice()).expect("busybox");
    for applet in APPLETS {
        let mut link = header(0, tar::EntryType::Symlink);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox").expect("a link");
    }
    tar.into_inner().expect("a tar")
}

fn header(size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header
}
