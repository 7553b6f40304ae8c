//! What the engine asks of a container runtime: containerd's containers, snapshots and tasks, or the fake.

#[doc(hidden)]
pub mod contract;
#[doc(hidden)]
pub mod fake;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::PathBuf,
    pin::Pin,
};

use async_trait::async_trait;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast,
};

use crate::model::{
    Result,
    id::{ContainerId, ExecId, TenantId},
    job::JobLimits,
    output::OutputStream,
    stats::ResourceUsage,
    time::Timestamp,
};

/// A container as it is stored: our own record is opaque bytes to the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredContainer {
    /// Its id.
    pub id: ContainerId,
    /// The engine's record, JSON.
    pub record: Vec<u8>,
}

/// What makes a container object and its writable layer.
#[derive(Clone, Debug, PartialEq)]
pub struct NewContainer {
    /// Its id, also the key of its snapshot.
    pub id: ContainerId,
    /// Chain id of the image's topmost layer; empty for none.
    pub parent: String,
    /// Name of the image record, so that tools that look into containerd see where it came from.
    pub image: String,
    /// Selectors: tenant and name. Docker's labels are in the record.
    pub labels: HashMap<String, String>,
    /// Which runtime: `runc`, `crun` or a shim's name. Fixed for the container's life.
    pub runtime: String,
    /// The engine's record, JSON.
    pub record: Vec<u8>,
}

/// A mount that the root file system consists of (containerd's `Mount`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsMount {
    /// `overlay`, `bind` …
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options, `lowerdir=…` among them.
    pub options: Vec<String>,
}

impl RootfsMount {
    /// Where what a container writes is, if the snapshotter has it in a folder; and what the kernel needs beside that.
    pub fn own_folders(rootfs: &[Self]) -> Option<(PathBuf, Option<PathBuf>)> {
        let [mount] = rootfs else { return None };
        let upper = mount.option("upperdir=");
        let files = upper.or_else(|| (mount.kind == "bind").then_some(mount.source.as_str())).map(PathBuf::from);
        files.filter(|folder| folder.is_absolute()).map(|folder| (folder, mount.option("workdir=").map(PathBuf::from)))
    }

    /// What an option says; its name is given with the `=`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| option.strip_prefix(name))
    }
}

/// How a task or exec is wired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Whether there is a terminal: then stdout carries everything.
    pub terminal: bool,
    /// Whether the process can read input; without it, it reads end of file.
    pub stdin: bool,
}

/// Output of a process. Ends when the process and all that inherited its output have closed it.
pub type OutputPipe = Pin<Box<dyn AsyncRead + Send>>;

/// Input of a process. After dropping it, `close_stdin` must be called for the process to see end of file.
pub type InputPipe = Pin<Box<dyn AsyncWrite + Send>>;

/// Our ends of a process's streams.
pub struct TaskIo {
    /// If asked for.
    pub stdin: Option<InputPipe>,
    /// Standard output, or the terminal.
    pub stdout: OutputPipe,
    /// Standard error; `None` with a terminal.
    pub stderr: Option<OutputPipe>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, 128 + signal for a killed one.
    pub code: i64,
    /// When.
    pub at: Timestamp,
    /// Whether the kernel killed a process of the container for want of memory since its task was made.
    pub oom_killed: bool,
}

/// A task found at start-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTask {
    /// Its container.
    pub id: ContainerId,
    /// Its process on the host; 0 when it has ended.
    pub pid: u32,
    /// Whether its process still runs.
    pub running: bool,
}

/// Versions for `/info` and `/version`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// containerd's version.
    pub containerd_version: String,
    /// containerd's commit.
    pub containerd_commit: String,
    /// Name of the default runtime, `runc` or `crun`.
    pub default_runtime: String,
    /// Known runtimes: name, path of the program, version, commit.
    pub runtimes: Vec<RuntimeProgram>,
    /// Path of the `docker-init` or `tini` program for `HostConfig.Init`, if there is one.
    pub init: Option<RuntimeProgram>,
    /// Folder of writable layers, if a new one has empty folders below it for what is written.
    pub layers: Option<PathBuf>,
}

/// One program that containers run under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeProgram {
    /// Name clients use, `runc`.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its version.
    pub version: String,
    /// Its commit.
    pub commit: String,
    /// Whether it can make mounts read-only with all below them, of files too: the option `rro` of the OCI
    /// specification, which older crun does not carry out for files.
    pub recursive_read_only: bool,
}

/// Carries out container life cycles.
///
/// Errors: `NotFound` for what is not there (also of a process that has ended already), texts of the OCI
/// runtime are passed on, since clients search in them ("executable file not found", "no such file or directory").
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Versions, asked once at start.
    fn info(&self) -> &RuntimeInfo;

    /// The runtime that a request means: the default one for an empty name. `InvalidParameter` for one that
    /// is not installed. The answer goes into [`NewContainer::runtime`].
    fn resolve_runtime(&self, name: &str) -> Result<String>;

    /// Makes the writable layer and the container object, under a lease. `Conflict` if the id is taken.
    async fn create_container(&self, container: &NewContainer) -> Result<()>;

    /// Replaces the engine's record.
    async fn update_record(&self, id: &ContainerId, record: Vec<u8>) -> Result<()>;

    /// Removes container object and writable layer; success if they are gone already.
    async fn delete_container(&self, id: &ContainerId) -> Result<()>;

    /// All containers of this instance, with their records.
    async fn list_containers(&self) -> Result<Vec<StoredContainer>>;

    /// Mounts of a container's root file system.
    async fn rootfs(&self, id: &ContainerId) -> Result<Vec<RootfsMount>>;

    /// Bytes in the writable layer.
    async fn usage(&self, id: &ContainerId) -> Result<u64>;

    /// Makes the task: the container's first process exists and waits for `start_task`. The spec is stored with the container.
    async fn create_task(&self, id: &ContainerId, spec: &Spec, stdio: Stdio) -> Result<(u32, TaskIo)>;

    /// Opens the streams of a task again, for a daemon that was started anew. What its predecessor had read
    /// is gone from them.
    async fn reopen_io(&self, id: &ContainerId, stdio: Stdio) -> Result<TaskIo>;

    /// Lets the first process run.
    async fn start_task(&self, id: &ContainerId) -> Result<()>;

    /// Waits for the end of the first process or of an exec. Survives a restart of containerd. `NotFound` if
    /// there is no such process, or if it is taken away meanwhile.
    async fn wait(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<Exit>;

    /// Sends a signal; `all` reaches every process of the container.
    async fn kill(&self, id: &ContainerId, exec: Option<&ExecId>, signal: u32, all: bool) -> Result<()>;

    /// Takes an ended task away (kills it first if it still runs). `NotFound` counts as done.
    async fn delete_task(&self, id: &ContainerId) -> Result<()>;

    /// Ends a task that an earlier daemon left, whatever it was doing with it. `NotFound` counts as done.
    async fn end_found_task(&self, id: &ContainerId) -> Result<()> {
        self.delete_task(id).await
    }

    /// What a container wrote that a daemon which was killed has not read; asked once, after its task was ended.
    fn take_unread(&self, _id: &ContainerId) -> Vec<(OutputStream, Vec<u8>)> {
        Vec::new()
    }

    /// Freezes all processes.
    async fn pause(&self, id: &ContainerId) -> Result<()>;

    /// Thaws them.
    async fn resume(&self, id: &ContainerId) -> Result<()>;

    /// Processes of the container, as the host numbers them.
    async fn pids(&self, id: &ContainerId) -> Result<Vec<u32>>;

    /// What its cgroup has counted. `NotFound` without a task.
    async fn stats(&self, id: &ContainerId) -> Result<ResourceUsage>;

    /// Changes the limits of a running container; what is not given stays.
    async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()>;

    /// Sets the terminal's size in characters.
    async fn resize(&self, id: &ContainerId, exec: Option<&ExecId>, width: u32, height: u32) -> Result<()>;

    /// Closes the runtime's side of standard input, after ours was dropped.
    async fn close_stdin(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<()>;

    /// Prepares a further process in a running container. Its output may be read at once: it does not end
    /// before `start_exec` failed or the process ended.
    async fn create_exec(&self, id: &ContainerId, exec: &ExecId, process: &Process, stdio: Stdio) -> Result<TaskIo>;

    /// Runs it; returns its process number on the host.
    async fn start_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<u32>;

    /// Takes an ended exec away. `NotFound` counts as done.
    async fn delete_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<()>;

    /// Tasks that are there, for the start-up of a daemon that was killed.
    async fn list_tasks(&self) -> Result<Vec<FoundTask>>;

    /// Containers for which something is there: tasks, and what a daemon that died had begun to make, of which the runtime may know nothing.
    async fn list_begun(&self) -> Result<HashSet<ContainerId>> {
        Ok(self.list_tasks().await?.into_iter().map(|task| task.id).collect())
    }

    /// Ends what is there for a container of which nothing should be.
    async fn end_begun(&self, id: &ContainerId) -> Result<()> {
        self.end_found_task(id).await
    }

    /// Containers in which the kernel kills for want of memory, as it happens (Docker's `oom` event).
    fn ooms(&self) -> broadcast::Receiver<ContainerId>;

    /// Takes away what is left when no container is: empty parent cgroups, state folders. For the end of the daemon.
    async fn tidy(&self);

    /// Makes the cgroup of a tenant, below which all its containers are from then on, with limits for all of them together.
    /// One that is there gets these limits.
    async fn make_parent(&self, tenant: &TenantId, limits: &JobLimits) -> Result<()>;

    /// Takes the cgroup of a tenant away, and what its containers left in it; success if it is gone already, `Unavailable` while a process is in it.
    async fn remove_parent(&self, tenant: &TenantId) -> Result<()>;

    /// What all that is in the cgroup of a tenant has used together, since that was made. `NotFound` where it has none of its own.
    async fn parent_stats(&self, tenant: &TenantId) -> Result<ResourceUsage>;

    /// Cgroup path that specs must use for a container of a tenant. `parent` is the `CgroupParent` that the client wants: where
    /// the tenant has a cgroup of its own it is below that, else it counts from the root of the hierarchy or, without a slash
    /// before it, from the instance's own parent.
    fn cgroup_path(&self, tenant: &TenantId, id: &ContainerId, parent: &str) -> String;

    /// Opens the cgroup of a process that helps a tenant and is in no container, with the tenant's limits: whoever writes `0` into each of
    /// these files is in it.
    fn open_cgroup(&self, tenant: &TenantId, id: &ContainerId) -> Result<Vec<File>>;

    /// Kills whatever is in that cgroup, and takes it away; success if it is gone already.
    async fn end_cgroup(&self, tenant: &TenantId, id: &ContainerId) -> Result<()>;

    /// Folder below which per-container files may be kept while it runs (hosts, resolv.conf, shm).
    fn state_dir(&self, id: &ContainerId) -> PathBuf;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> RootfsMount {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        RootfsMount { kind: kind.to_owned(), source: source.to_owned(), options }
    }

    #[test]
    fn own_files_are_in_the_upper_folder_or_in_all_that_is_bound() {
        let own = |mounts: &[RootfsMount]| RootfsMount::own_folders(mounts);
        let overlay = mount("overlay", "overlay", &["workdir=/s/2/work", "upperdir=/s/2/fs", "lowerdir=/s/1/fs"]);
        assert_eq!(own(&[overlay]), Some(("/s/2/fs".into(), Some("/s/2/work".into()))));
        assert_eq!(own(&[mount("bind", "/s/3/fs", &["rw", "rbind"])]), Some(("/s/3/fs".into(), None)));
        assert_eq!(own(&[mount("ext4", "/dev/mapper/s-4", &[])]), None);
        assert_eq!(own(&[mount("overlay", "overlay", &["upperdir={{ mount 0 }}/upper"])]), None);
        assert_eq!(own(&[]), None);
    }
}
