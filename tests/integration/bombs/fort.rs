//! A daemon that may have 128 MiB: its process alone stands in a memory cgroup, containerd, shims and containers outside.
//! Where there is no such cgroup, what it had at most is looked up, and a hard limit keeps the machine alive.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::Value;

use crate::support::daemon::{Daemon, http::Answer};

/// What a daemon may have.
pub const MEMORY: usize = 128 << 20;

/// A daemon that has lost its bounds must not take the machine with it.
const HARD: u64 = 1 << 30;

/// What a bomb may add to the log, the tests' own requests included.
const LOG: usize = 256 << 10;

/// For a `_ping` after a bomb, on a busy machine.
const PING: Duration = Duration::from_secs(20);

/// The controller of a hybrid machine.
const CONTROLLER: &str = "/sys/fs/cgroup/memory";

/// A daemon under its limit.
pub struct Fort {
    daemon: Daemon,
    group: Option<Group>,
}

impl Fort {
    /// A daemon with the image `box`.
    pub async fn build() -> Self {
        let daemon = Daemon::with_box().await;
        let pid = daemon.pid();
        let process = Pid::from_raw(i32::try_from(pid).expect("a process number"));
        let limit = Rlimit { current: Some(HARD), maximum: Some(HARD) };
        rustix::process::prlimit(process, Resource::Data, limit).expect("root may limit its child");
        Self { group: Group::around(pid), daemon }
    }

    /// The daemon.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Sends a tar, or what is said to be one.
    pub async fn send_tar(&self, path: &str, tar: impl Into<Bytes>) -> Answer {
        let request = Request::post(path).header("content-type", "application/x-tar");
        self.daemon.client().whole(request.body(Full::from(tar.into())).expect("a test's path is a URI")).await
    }

    /// The log so far, for [`Self::stands`].
    pub fn log_length(&self) -> usize {
        self.daemon.log().len()
    }

    /// After a bomb: it answers, it never had more than it may have, and it did not write the bomb down.
    pub async fn stands(&self, bomb: &str, log_before: usize) {
        let began = Instant::now();
        let ping = tokio::time::timeout(PING, self.daemon.client().get("/_ping")).await;
        let ping = ping.unwrap_or_else(|_| panic!("{bomb}: no answer to a ping"));
        assert_eq!(ping.status, 200, "{bomb}");
        let peak = self.peak();
        eprintln!("{bomb}: at most {} MiB so far, ping after {:?}", peak >> 20, began.elapsed());
        assert!(peak <= MEMORY, "{bomb}: {} MiB", peak >> 20);
        let logged = self.log_length() - log_before;
        assert!(logged < LOG, "{bomb}: {logged} bytes of log");
    }

    /// At the end of a suite of bombs: a container still runs.
    pub async fn runs_a_container(&self) {
        let (code, output) = self.daemon.run("after", "echo fine", Value::Null).await;
        assert_eq!((code, output.as_str()), (0, "fine\n"));
        self.daemon.remove("after").await;
    }

    /// Bytes that it had at most.
    fn peak(&self) -> usize {
        match &self.group {
            Some(group) => group.peak(),
            None => status(self.daemon.pid(), "VmHWM:") - status(self.daemon.pid(), "RssFile:"),
        }
    }
}

/// A line of `/proc/PID/status`, in bytes.
fn status(pid: u32, key: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a key of the kernel's");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// A memory cgroup; it goes with its value, after the daemon.
struct Group {
    path: PathBuf,
    /// What the process had when it came in: that is not counted here.
    before: usize,
}

impl Group {
    /// With a process in it, which may still get what it does not have already.
    fn around(pid: u32) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(CONTROLLER).join(format!("ringer-bombs-{}-{number}", std::process::id()));
        if !PathBuf::from(CONTROLLER).join("cgroup.procs").exists() {
            return None;
        }
        fs::create_dir(&path).expect("root makes cgroups");
        let group = Self { path, before: status(pid, "RssAnon:") };
        group.write("memory.limit_in_bytes", &(MEMORY - group.before).to_string());
        group.write("cgroup.procs", &pid.to_string());
        Some(group)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Without the files that it has read or written, which the kernel gives back by itself; a daemon that asks for
    /// more than its limit is killed.
    fn peak(&self) -> usize {
        let stat = fs::read_to_string(self.path.join("memory.stat")).expect("the cgroup is there");
        let cache = stat.lines().find_map(|line| line.strip_prefix("total_cache ")?.parse::<usize>().ok()).unwrap_or(0);
        let most = fs::read_to_string(self.path.join("memory.max_usage_in_bytes")).expect("the cgroup is there");
        self.before + most.trim().parse::<usize>().expect("a number").saturating_sub(cache)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.path).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
