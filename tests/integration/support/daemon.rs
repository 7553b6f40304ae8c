//! Our real program on a socket of its own, in a network namespace of its own, with its own containerd and
//! folders. It ends with the test; what a failed test leaves running or mounted is taken away with the guard.

pub mod http;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use self::http::Client;
use super::place::Place;

/// A cold start of containerd on a busy machine included.
const START_LIMIT: Duration = Duration::from_secs(90);

/// More than the daemon's own limit for its shutdown.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Where a containerd that is not the daemon's own has its folders.
pub const OUTER: &str = "outer";

/// A running daemon.
pub struct Daemon {
    folder: tempfile::TempDir,
    process: Child,
    client: Client,
    /// What starts it, if anything does, and the verb with its flags: the same at every start.
    under: Vec<String>,
    words: Vec<String>,
}

impl Daemon {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with further flags of `ringer serve`.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(Self::folder_of_its_own(), flags).await
    }

    /// A folder for a daemon, for tests that prepare it.
    pub fn folder_of_its_own() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("ringer-test-").tempdir().expect("a temporary folder")
    }

    /// Starts one by a program that takes a command: `prlimit`, say.
    pub async fn start_under(program: &[&str], flags: &[&str]) -> Self {
        let mut daemon = Self::spawn(Self::folder_of_its_own(), program, &[&["serve"], flags].concat());
        daemon.wait_until_it_answers().await;
        daemon
    }

    /// Starts one that launches runners, by `ringer run` with this configuration, at such a place.
    pub async fn launching(place: &Place, config: &str) -> Self {
        Self::launching_under(place, &[], config).await
    }

    /// The same by a program that takes a command: `env`, say.
    pub async fn launching_under(place: &Place, program: &[&str], config: &str) -> Self {
        Self::launching_in(Self::folder_of_its_own(), place, program, config).await
    }

    /// The same, which sees these lines as its `/etc/hosts`.
    pub async fn launching_with_hosts(place: &Place, hosts: &str, config: &str) -> Self {
        let folder = Self::folder_of_its_own();
        let names = folder.path().join("hosts");
        fs::write(&names, hosts).expect("a file in our folder");
        let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", names.display());
        let program = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", &mount, "sh"];
        Self::launching_in(folder, place, &program, config).await
    }

    async fn launching_in(folder: tempfile::TempDir, place: &Place, program: &[&str], config: &str) -> Self {
        let path = folder.path().join("config.toml");
        fs::write(&path, config).expect("a file in our folder");
        let entry = place.entry();
        let under: Vec<&str> = entry.iter().map(String::as_str).chain(program.iter().copied()).collect();
        let mut daemon = Self::spawn(folder, &under, &["run", &format!("--config={}", path.display())]);
        daemon.wait_until_it_answers().await;
        daemon
    }

    /// Starts one in a network namespace that others share and that outlives it.
    pub async fn start_at(place: &Place, flags: &[&str]) -> Self {
        Self::start_under(&place.entry().each_ref().map(String::as_str), flags).await
    }

    /// Starts one in a folder that was prepared.
    pub async fn start_in(folder: tempfile::TempDir, flags: &[&str]) -> Self {
        let mut daemon = Self::spawn(folder, &[], &[&["serve"], flags].concat());
        daemon.wait_until_it_answers().await;
        daemon
    }

    /// Starts one on a containerd that is not its own, and outlives it; below [`OUTER`], so that it ends with the folder's guard.
    pub async fn on_outer_containerd() -> Self {
        let folder = Self::folder_of_its_own();
        let outer = folder.path().join(OUTER);
        let child = ringer::containerd::Child::spawn(ringer::containerd::ChildOptions::new(&outer, &outer)).await;
        let address = child.expect("containerd starts").address().display().to_string();
        Self::start_in(folder, &[&format!("--containerd={address}"), "--containerd-namespace=ringer"]).await
    }

    fn spawn(folder: tempfile::TempDir, under: &[&str], words: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (under, words) = (owned(under), owned(words));
        let process = Self::program(folder.path(), &under, &words);
        let client = Client::new(folder.path().join("docker.sock"));
        Self { folder, process, client, under, words }
    }

    fn program(folder: &Path, under: &[String], words: &[String]) -> Child {
        let path = |name: &str| folder.join(name);
        let log = fs::File::options().create(true).append(true).open(path("log")).expect("a log file");
        Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .args(under)
            .arg(env!("CARGO_BIN_EXE_ringer"))
            .args(words)
            .arg(format!("--host=unix://{}", path("docker.sock").display()))
            .arg(format!("--data-root={}", path("data").display()))
            .arg(format!("--exec-root={}", path("run").display()))
            .arg("--debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file again"))
            .stderr(log)
            .spawn()
            .expect("unshare is there")
    }

    async fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while self.client.try_get("/_ping").await.is_none_or(|answer| answer.status != 200) {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                panic!("the daemon ended at start, {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the daemon does not answer:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its folders: `data`, `run`, `docker.sock`, `log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `unix://…`, for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder().join("docker.sock").display())
    }

    /// It reads its configuration again.
    pub fn hang_up(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::HUP).expect("the daemon runs");
    }

    /// Its process number; the network namespace is `/proc/PID/ns/net`.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where its admin socket is, as `RINGER_ADMIN_HOST`.
    pub fn admin_host(&self) -> String {
        format!("unix://{}", self.folder().join("run/admin.sock").display())
    }

    /// What containerd's client prints of a namespace.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> String {
        let address = self.folder().join("run/containerd/containerd.sock");
        let output =
            Command::new("ctr").arg("--address").arg(address).args(["--namespace", namespace]).args(arguments).output();
        String::from_utf8_lossy(&output.expect("ctr is installed with containerd").stdout).into_owned()
    }

    /// Our program as a client of its admin socket: `ringer job …`.
    pub fn ringer(&self, arguments: &[&str]) -> Command {
        let mut ringer = Command::new(env!("CARGO_BIN_EXE_ringer"));
        ringer
            .args(arguments)
            .env("RINGER_ADMIN_HOST", self.admin_host())
            .env("DOCKER_CONFIG", self.folder().join("docker-config"));
        ringer
    }

    /// What it calls its cgroups, links and rules.
    pub fn instance(&self) -> String {
        let data_root = self.folder().join("data");
        let digest = Sha256::digest(data_root.as_os_str().as_encoded_bytes());
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// The docker CLI on this daemon.
    pub fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.folder().join("docker-config"));
        docker
    }

    /// Sends TERM and waits for the end; what is left can be looked at.
    pub fn end(&mut self) -> std::process::ExitStatus {
        self.terminate().expect("the daemon ends after TERM")
    }

    /// Sends TERM, waits for the end, and gives the folder's path; the folder itself is gone then.
    pub fn stop(mut self) -> (std::process::ExitStatus, PathBuf) {
        (self.end(), self.folder().to_owned())
    }

    /// Starts the program again on the same folders, after `kill`.
    pub async fn restart(&mut self) {
        self.process = Self::program(self.folder.path(), &self.under, &self.words);
        self.wait_until_it_answers().await;
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().expect("the daemon runs");
        self.process.wait().expect("a child can be waited for");
    }

    fn terminate(&mut self) -> Option<std::process::ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).ok()?)?;
        if self.process.try_wait().ok()?.is_none() {
            kill_process(pid, Signal::TERM).ok()?;
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().ok()? {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

/// What its API answers is asked of the daemon itself.
impl std::ops::Deref for Daemon {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if self.terminate().is_none() {
            let _ended_already = self.process.kill();
            let _reaped_already = self.process.wait();
        }
        sweep(self.folder.path());
        sweep_cgroups(&self.instance());
    }
}

/// Removes the cgroups of jobs that were left when their daemon ended: they would wait for its next life.
fn sweep_cgroups(instance: &str) {
    let pattern = format!("*/ringer-{instance}*");
    let mut find = Command::new("find");
    find.args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &pattern, "-exec", "rmdir", "{}", "+"]);
    let _nothing_may_be_left = find.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Ends processes that were started with the folder in their arguments, and unmounts what is mounted below it.
fn sweep(folder: &Path) {
    let needle = folder.as_os_str().as_encoded_bytes();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = arguments.windows(needle.len()).any(|part| part == needle);
        if ours && let Some(pid) = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid()) {
            let _ended_already = kill_process(pid, Signal::KILL);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below =
        mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|at| Path::new(at).starts_with(folder));
    for at in below {
        let _gone_already = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
    }
}
