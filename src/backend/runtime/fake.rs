//! A runtime in memory, for the engine's unit tests. Its processes understand a few words of shell
//! ([`process`]), and any step can be told to fail.

mod process;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use tokio::sync::broadcast;

use self::process::{FakeProcess, SIGKILL, missing_program};
use super::{
    Exit, FoundTask, NewContainer, RootfsMount, Runtime, RuntimeInfo, RuntimeProgram, Stdio, StoredContainer, TaskIo,
};
use crate::model::{
    Error, ErrorKind, Result,
    error::Context,
    id::{ContainerId, ExecId, TenantId},
    job::JobLimits,
    stats::{CpuUsage, MemoryUsage, PidsUsage, ResourceUsage},
};

/// Steps that can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// [`Runtime::create_container`].
    CreateContainer,
    /// [`Runtime::update_record`].
    UpdateRecord,
    /// [`Runtime::delete_container`].
    DeleteContainer,
    /// [`Runtime::create_task`].
    CreateTask,
    /// [`Runtime::start_task`].
    StartTask,
    /// [`Runtime::kill`].
    Kill,
    /// [`Runtime::delete_task`].
    DeleteTask,
    /// [`Runtime::pause`].
    Pause,
    /// [`Runtime::resume`].
    Resume,
    /// [`Runtime::pids`].
    Pids,
    /// [`Runtime::update_resources`].
    UpdateResources,
    /// [`Runtime::create_exec`].
    CreateExec,
    /// [`Runtime::start_exec`].
    StartExec,
    /// [`Runtime::delete_exec`].
    DeleteExec,
}

/// The runtime. Share it in an `Arc`.
pub struct FakeRuntime {
    info: RuntimeInfo,
    root: PathBuf,
    state: Mutex<State>,
    ooms: broadcast::Sender<ContainerId>,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<ContainerId, FakeContainer>,
    failures: HashMap<Step, Vec<(ErrorKind, String)>>,
    last_pid: u32,
    /// Calls of [`Runtime::stats`], each of which has used a little more.
    readings: u64,
    parents: BTreeMap<TenantId, JobLimits>,
}

struct FakeContainer {
    record: Vec<u8>,
    task: Option<Task>,
}

struct Task {
    init: FakeProcess,
    execs: HashMap<ExecId, FakeProcess>,
    paused: bool,
    pids_limit: Option<i64>,
    oom_killed: bool,
}

impl FakeRuntime {
    /// A runtime whose containers' folders are made below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let runc = RuntimeProgram {
            name: "runc".to_owned(),
            path: "/usr/sbin/runc".to_owned(),
            version: "1.0-fake".to_owned(),
            commit: String::new(),
            recursive_read_only: true,
        };
        let root = root.into();
        let info = RuntimeInfo {
            containerd_version: "0.0-fake".to_owned(),
            default_runtime: "runc".to_owned(),
            runtimes: vec![runc],
            layers: Some(root.clone()),
            ..RuntimeInfo::default()
        };
        Self { info, root, state: Mutex::default(), ooms: broadcast::channel(16).0 }
    }

    /// The next call of `step` fails so. Several calls of this queue up.
    pub fn fail_next(&self, step: Step, kind: ErrorKind, text: &str) {
        self.lock().failures.entry(step).or_default().push((kind, text.to_owned()));
    }

    /// Kills a container as the kernel does for want of memory.
    pub fn oom(&self, id: &ContainerId) {
        if let Ok(task) = self.lock().task(id) {
            task.oom_killed = true;
            task.init.signal(SIGKILL);
        }
        // An error means that nobody listens.
        let _ = self.ooms.send(id.clone());
    }

    /// Whether anything is left.
    pub fn is_empty(&self) -> bool {
        self.lock().containers.is_empty()
    }

    /// Whether a container has a task, running or ended.
    pub fn has_task(&self, id: &ContainerId) -> bool {
        self.lock().task(id).is_ok()
    }

    /// Execs of a container that were not deleted.
    pub fn exec_count(&self, id: &ContainerId) -> usize {
        self.lock().task(id).map_or(0, |task| task.execs.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, step: Step) -> Result<()> {
        match self.lock().failures.get_mut(&step).filter(|failures| !failures.is_empty()) {
            Some(failures) => {
                let (kind, text) = failures.remove(0);
                Err(Error::new(kind, text))
            }
            None => Ok(()),
        }
    }

    fn folder(&self, id: &ContainerId, name: &str) -> PathBuf {
        self.root.join(id.as_str()).join(name)
    }
}

impl State {
    fn container(&mut self, id: &ContainerId) -> Result<&mut FakeContainer> {
        self.containers.get_mut(id).ok_or_else(|| Error::not_found(format!("container {id:?}: not found")))
    }

    fn task(&mut self, id: &ContainerId) -> Result<&mut Task> {
        let missing = || Error::not_found(format!("no running task found: task {id} not found: not found"));
        self.containers.get_mut(id).and_then(|container| container.task.as_mut()).ok_or_else(missing)
    }

    fn process(&mut self, id: &ContainerId, exec: Option<&ExecId>) -> Result<&mut FakeProcess> {
        let task = self.task(id)?;
        match exec {
            None => Ok(&mut task.init),
            Some(exec) => task.execs.get_mut(exec).ok_or_else(|| Error::not_found(format!("exec {exec}: not found"))),
        }
    }

    fn next_pid(&mut self) -> u32 {
        self.last_pid += 1;
        10_000 + self.last_pid
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn info(&self) -> &RuntimeInfo {
        &self.info
    }

    fn resolve_runtime(&self, name: &str) -> Result<String> {
        match name {
            "" | "runc" => Ok("runc".to_owned()),
            // A shim of another kind, which is here.
            "io.containerd.kata.v2" => Ok(name.to_owned()),
            _ => Err(Error::unknown_runtime(name)),
        }
    }

    async fn create_container(&self, container: &NewContainer) -> Result<()> {
        self.step(Step::CreateContainer)?;
        fs::create_dir_all(self.folder(&container.id, "rootfs")).context("making a layer")?;
        let mut state = self.lock();
        if state.containers.contains_key(&container.id) {
            return Err(Error::conflict(format!("container {}: already exists", container.id)));
        }
        let made = FakeContainer { record: container.record.clone(), task: None };
        state.containers.insert(container.id.clone(), made);
        Ok(())
    }

    async fn update_record(&self, id: &ContainerId, record: Vec<u8>) -> Result<()> {
        self.step(Step::UpdateRecord)?;
        self.lock().container(id)?.record = record;
        Ok(())
    }

    async fn delete_container(&self, id: &ContainerId) -> Result<()> {
        self.step(Step::DeleteContainer)?;
        self.lock().containers.remove(id);
        // Success if it is gone already.
        let _ = fs::remove_dir_all(self.root.join(id.as_str()));
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<StoredContainer>> {
        let stored = |(id, container): (&ContainerId, &FakeContainer)| StoredContainer {
            id: id.clone(),
            record: container.record.clone(),
        };
        Ok(self.lock().containers.iter().map(stored).collect())
    }

    async fn rootfs(&self, id: &ContainerId) -> Result<Vec<RootfsMount>> {
        self.lock().container(id)?;
        let source = self.folder(id, "rootfs").to_string_lossy().into_owned();
        Ok(vec![RootfsMount { kind: "bind".to_owned(), source, options: vec!["rbind".to_owned(), "rw".to_owned()] }])
    }

    async fn usage(&self, id: &ContainerId) -> Result<u64> {
        self.lock().container(id).map(|_| 0)
    }

    async fn create_task(&self, id: &ContainerId, spec: &Spec, stdio: Stdio) -> Result<(u32, TaskIo)> {
        self.step(Step::CreateTask)?;
        let mut state = self.lock();
        let pid = state.next_pid();
        let container = state.container(id)?;
        if container.task.is_some() {
            return Err(Error::conflict(format!("task {id}: already exists")));
        }
        let args = spec.process().as_ref().and_then(|process| process.args().clone()).unwrap_or_default();
        if let Some(error) = missing_program(&args, "create") {
            return Err(error);
        }
        let (init, streams) = FakeProcess::new(pid, args, stdio, true);
        container.task = Some(Task { init, execs: HashMap::new(), paused: false, pids_limit: None, oom_killed: false });
        Ok((pid, streams))
    }

    async fn reopen_io(&self, id: &ContainerId, _stdio: Stdio) -> Result<TaskIo> {
        self.lock().process(id, None)?.take_streams().ok_or_else(|| Error::system("the streams are in use"))
    }

    async fn start_task(&self, id: &ContainerId) -> Result<()> {
        self.step(Step::StartTask)?;
        self.lock().process(id, None)?.start()
    }

    async fn wait(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<Exit> {
        let mut exit = self.lock().process(id, exec)?.exit();
        let gone = |_| Error::not_found(format!("task {id}: not found"));
        let ended = exit.wait_for(Option::is_some).await.map_err(gone)?.to_owned();
        let oom_killed = exec.is_none() && self.lock().task(id).is_ok_and(|task| task.oom_killed);
        ended
            .map(|exit| Exit { oom_killed, ..exit })
            .ok_or_else(|| Error::system("waited for an exit that is not there"))
    }

    async fn kill(&self, id: &ContainerId, exec: Option<&ExecId>, signal: u32, all: bool) -> Result<()> {
        self.step(Step::Kill)?;
        let mut state = self.lock();
        let process = state.process(id, exec)?;
        if !process.is_running() {
            return Err(Error::not_found("process already finished: not found"));
        }
        process.signal(signal);
        if all {
            state.task(id)?.execs.values().for_each(|exec| exec.signal(signal));
        }
        Ok(())
    }

    async fn delete_task(&self, id: &ContainerId) -> Result<()> {
        self.step(Step::DeleteTask)?;
        let mut state = self.lock();
        if let Ok(task) = state.task(id) {
            task.init.signal(SIGKILL);
            task.execs.values().for_each(|exec| exec.signal(SIGKILL));
            state.container(id)?.task = None;
        }
        Ok(())
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.step(Step::Pause)?;
        self.lock().task(id)?.paused = true;
        Ok(())
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.step(Step::Resume)?;
        self.lock().task(id)?.paused = false;
        Ok(())
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<u32>> {
        self.step(Step::Pids)?;
        let mut state = self.lock();
        let task = state.task(id)?;
        let running = std::iter::once(&task.init).chain(task.execs.values()).filter(|process| process.is_running());
        Ok(running.map(FakeProcess::pid).collect())
    }

    async fn stats(&self, id: &ContainerId) -> Result<ResourceUsage> {
        let mut state = self.lock();
        state.readings += 1;
        let total = 1_000_000 * state.readings;
        let task = state.task(id)?;
        let running = 1 + task.execs.values().filter(|process| process.is_running()).count() as u64;
        let limit = task.pids_limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0);
        Ok(ResourceUsage { pids: PidsUsage { current: running, limit }, ..usage(total) })
    }

    async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        self.step(Step::UpdateResources)?;
        self.lock().task(id)?.pids_limit = resources.pids().map(|pids| pids.limit());
        Ok(())
    }

    async fn resize(&self, id: &ContainerId, exec: Option<&ExecId>, _width: u32, _height: u32) -> Result<()> {
        self.lock().process(id, exec).map(drop)
    }

    async fn close_stdin(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<()> {
        self.lock().process(id, exec)?.close_stdin();
        Ok(())
    }

    async fn create_exec(&self, id: &ContainerId, exec: &ExecId, process: &Process, stdio: Stdio) -> Result<TaskIo> {
        self.step(Step::CreateExec)?;
        let mut state = self.lock();
        let pid = state.next_pid();
        let task = state.task(id)?;
        if task.execs.contains_key(exec) {
            return Err(Error::conflict(format!("id {exec}: already exists")));
        }
        let args = process.args().clone().unwrap_or_default();
        let (made, streams) = FakeProcess::new(pid, args, stdio, false);
        task.execs.insert(exec.clone(), made);
        Ok(streams)
    }

    async fn start_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<u32> {
        self.step(Step::StartExec)?;
        let mut state = self.lock();
        let process = state.process(id, Some(exec))?;
        if let Some(error) = missing_program(process.args(), "exec") {
            process.abandon();
            return Err(error);
        }
        process.start()?;
        Ok(process.pid())
    }

    async fn delete_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<()> {
        self.step(Step::DeleteExec)?;
        if let Ok(task) = self.lock().task(id) {
            task.execs.remove(exec);
        }
        Ok(())
    }

    async fn list_tasks(&self) -> Result<Vec<FoundTask>> {
        let found = |(id, container): (&ContainerId, &FakeContainer)| {
            let init = &container.task.as_ref()?.init;
            let running = init.is_running();
            Some(FoundTask { id: id.clone(), pid: if running { init.pid() } else { 0 }, running })
        };
        Ok(self.lock().containers.iter().filter_map(found).collect())
    }

    fn ooms(&self) -> broadcast::Receiver<ContainerId> {
        self.ooms.subscribe()
    }

    async fn tidy(&self) {}

    async fn make_parent(&self, tenant: &TenantId, limits: &JobLimits) -> Result<()> {
        self.lock().parents.insert(tenant.clone(), *limits);
        Ok(())
    }

    async fn parent_stats(&self, tenant: &TenantId) -> Result<ResourceUsage> {
        let mut state = self.lock();
        if !state.parents.contains_key(tenant) {
            return Err(Error::not_found(format!("{tenant} has no cgroup of its own")));
        }
        state.readings += 1;
        Ok(usage(1_000_000 * state.readings))
    }

    async fn remove_parent(&self, tenant: &TenantId) -> Result<()> {
        self.lock().parents.remove(tenant);
        Ok(())
    }

    fn cgroup_path(&self, tenant: &TenantId, id: &ContainerId, parent: &str) -> String {
        if self.lock().parents.contains_key(tenant) {
            return format!("/ringer/{tenant}/{}/{id}", parent.trim_matches('/'));
        }
        let parent = if parent.is_empty() { "/ringer" } else { parent };
        format!("{parent}/{id}")
    }

    fn open_cgroup(&self, _: &TenantId, _: &ContainerId) -> Result<Vec<File>> {
        Ok(Vec::new())
    }

    async fn end_cgroup(&self, _: &TenantId, _: &ContainerId) -> Result<()> {
        Ok(())
    }

    fn state_dir(&self, id: &ContainerId) -> PathBuf {
        self.folder(id, "state")
    }
}

/// So many nanoseconds, and a page of memory.
fn usage(total: u64) -> ResourceUsage {
    ResourceUsage {
        cpu: CpuUsage { total, user: total, ..CpuUsage::default() },
        memory: MemoryUsage { usage: 4096, limit: u64::MAX, ..MemoryUsage::default() },
        ..ResourceUsage::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::contract::Bench, *};

    fn bench() -> Bench {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let runtime = Arc::new(FakeRuntime::new(folder.path()));
        Bench::new(runtime, "", folder)
    }

    crate::runtime_contract!(async { Some(bench()) });

    #[tokio::test]
    async fn a_step_fails_once_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::new(folder.path());
        runtime.fail_next(Step::DeleteContainer, ErrorKind::System, "disk on fire");
        let id = ContainerId::random();
        assert_eq!(runtime.delete_container(&id).await.unwrap_err().message(), "disk on fire");
        runtime.delete_container(&id).await.unwrap();
    }
}
