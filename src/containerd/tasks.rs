//! Processes: the first one of a container (the task) and execs.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use containerd_client::{
    services::v1::{
        CloseIoRequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, KillRequest,
        ListPidsRequest, ListTasksRequest, PauseTaskRequest, ResizePtyRequest, ResumeTaskRequest, StartRequest,
        UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    tonic::{Code, Status},
    types::{
        Mount,
        v1::{Process as TaskProcess, Status as TaskStatus},
    },
};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use prost_types::Any;
use tracing::{debug, warn};

use super::{
    Containerd,
    begun_execs::BegunExec,
    child, containers, from_status,
    io::{self, Fifos},
    limits::is_over_limit,
    lost_exits::Lost,
    runtimes::as_of_runc,
    snapshots,
    status::is_lost_connection,
    usage,
};
use crate::{
    backend::runtime::{Exit, FoundTask, Stdio, TaskIo},
    model::{
        Error, ErrorKind, Result,
        error::Context,
        id::{ContainerId, ExecId},
        stats::ResourceUsage,
        time::Timestamp,
    },
};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
const SIGKILL: u32 = 9;

/// How long a task may be in the way of a new one, and how far apart it is tried: containerd gives the clearing away of a shim whose
/// start was broken off five seconds.
const IN_THE_WAY: Duration = Duration::from_secs(20);
const IN_THE_WAY_PAUSE: Duration = Duration::from_millis(100);

/// Pauses of `wait` while containerd is away.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long after the end of a container its other processes may go on, if it is not told meanwhile.
const REST_PATIENCE: Duration = Duration::from_secs(2);

/// How far apart they are killed: an exec that was about to begin may only then come into the container.
const REST_PAUSE: Duration = Duration::from_millis(500);

/// How long after that its exit may take to come from the shim through containerd.
const EXIT_PATIENCE: Duration = Duration::from_secs(8);

/// How much longer where nobody else can tell the exit: containerd 1.6 stands still for half a minute when many execs start.
const ONLY_WITNESS_PATIENCE: Duration = Duration::from_secs(120);

/// Makes the task from the container's layer and this spec. What a daemon that died was about to make of the container is waited for
/// and taken away first: a containerd that outlived it goes on with that for a while.
pub(super) async fn create(
    containerd: &Containerd,
    id: &ContainerId,
    spec: &Spec,
    stdio: Stdio,
) -> Result<(u32, TaskIo)> {
    let (rootfs, stored) =
        tokio::join!(snapshots::mounts(containerd, id.as_str()), containers::update_spec(containerd, id, spec),);
    stored?;
    let rootfs = rootfs?;
    let begun = Instant::now();
    loop {
        match create_once(containerd, id, spec, stdio, rootfs.clone()).await? {
            Ok(made) => {
                containerd.own_tasks().insert(id.clone());
                return Ok(made);
            }
            // Not what we made ourselves: whoever has it goes on.
            Err(status)
                if is_in_the_way(&status) && !containerd.own_tasks().contains(id) && begun.elapsed() < IN_THE_WAY =>
            {
                debug!(container.id = %id, %status, "something of container {id} is in the way");
                end_begun(containerd, id).await?;
                tokio::time::sleep(IN_THE_WAY_PAUSE).await;
            }
            Err(status) => return Err(as_of_runc(from_status(status), program_of(spec.process().as_ref()))),
        }
    }
}

/// Whether there is a task already, or what belongs to one that is just being made or taken away, be it under the hands of the new one: its
/// folder, what the OCI runtime knows of it.
fn is_in_the_way(status: &Status) -> bool {
    let message = status.message();
    // Some versions say what they were about, "failed to start shim: mkdir …", others say "mkdir …" alone.
    let of_shim = message.contains("failed to start shim") || message.starts_with("mkdir ");
    let of_folder = message.contains(": file exists") || message.contains("/address: no such file or directory");
    let of_runtime = message.contains("container with given ID already exists");
    status.code() == Code::AlreadyExists || (of_shim && of_folder) || of_runtime
}

async fn create_once(
    containerd: &Containerd,
    id: &ContainerId,
    spec: &Spec,
    stdio: Stdio,
    rootfs: Vec<Mount>,
) -> Result<Result<(u32, TaskIo), Status>> {
    containerd.oom().forget(id);
    let fifos = fifos(containerd, id, "init", stdio);
    let (streams, hold) = fifos.create()?;
    let request = CreateTaskRequest {
        container_id: id.to_string(),
        rootfs,
        stdin: fifos.stdin(),
        stdout: fifos.stdout(),
        stderr: fifos.stderr(),
        terminal: stdio.terminal,
        ..CreateTaskRequest::default()
    };
    let cgroup =
        spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.to_string_lossy());
    let cgroup = cgroup.as_deref().unwrap_or_default();
    let making = containerd.cgroup_parents().begin(containerd.cgroups(), cgroup);
    let created = containerd.client().tasks().create(request).await;
    drop(making);
    match created {
        Ok(answer) => {
            drop(hold);
            let pid = answer.into_inner().pid;
            containerd.lost_exits().watch(id, pid, containerd.cgroups());
            if fifos.has_empty_stdin() {
                close_stdin(containerd, id, None).await?;
            }
            Ok(Ok((pid, streams)))
        }
        Err(status) => {
            // What a task that was there before has is its own.
            if status.code() != Code::AlreadyExists {
                fifos.remove();
                // crun leaves it when the container's own init fails.
                if !cgroup.is_empty() {
                    containerd.cgroups().remove_soon(cgroup).await;
                }
                containerd.cgroup_parents().end(containerd.cgroups(), id);
            }
            Ok(Err(status))
        }
    }
}

/// The pipes of a new process.
fn fifos(containerd: &Containerd, id: &ContainerId, process: &str, stdio: Stdio) -> Fifos {
    let fifos = Fifos::new(io_folder(containerd, id), process, stdio);
    if containerd.runtimes().give_devices_away() { fifos.with_empty_stdin(process) } else { fifos }
}

/// What a process runs.
fn program_of(process: Option<&Process>) -> &str {
    process.and_then(|process| process.args().as_ref()?.first()).map_or("", String::as_str)
}

/// Opens the task's streams again.
pub(super) fn reopen_io(containerd: &Containerd, id: &ContainerId, stdio: Stdio) -> Result<TaskIo> {
    Fifos::new(io_folder(containerd, id), "init", stdio).reopen()
}

/// Lets a process run: the task's without an exec.
pub(super) async fn start(containerd: &Containerd, id: &ContainerId, exec: Option<&ExecId>) -> Result<u32> {
    let request = StartRequest { container_id: id.to_string(), exec_id: exec_text(exec) };
    Ok(containerd.client().tasks().start(request).await.map_err(from_status)?.into_inner().pid)
}

/// Waits for an exit, across restarts of containerd.
pub(super) async fn wait(containerd: &Containerd, id: &ContainerId, exec: Option<&ExecId>) -> Result<Exit> {
    let waiting = async {
        let exit = wait_patiently(containerd, id, exec).await?;
        let oom_killed = exec.is_none() && had_oom_kill(containerd, id).await;
        Ok::<_, Error>(Exit { oom_killed, ..exit })
    };
    tokio::select! {
        exit = waiting => exit,
        exit = unheard_exit(containerd, id, exec) => Ok(exit),
    }
}

async fn wait_patiently(containerd: &Containerd, id: &ContainerId, exec: Option<&ExecId>) -> Result<Exit> {
    let mut pause = FIRST_PAUSE;
    let mut was_away = false;
    loop {
        let request = WaitRequest { container_id: id.to_string(), exec_id: exec_text(exec) };
        match containerd.client().tasks().wait(request).await {
            Ok(answer) => return Ok(to_exit(answer.into_inner())),
            Err(status) if is_lost_connection(&status) => debug!(%status, "containerd went away during wait"),
            // While it was away, the process has ended, and containerd has thrown its shim away.
            Err(status) if was_away && exec.is_none() && status.code() == Code::NotFound => {
                match containerd.lost_exits().find(id) {
                    Lost::Ended(exit) => return Ok(exit),
                    Lost::NeverKnown => return Err(from_status(status)),
                    Lost::Lives => {}
                }
            }
            Err(status) => return Err(from_status(status)),
        }
        was_away = true;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The exit of a task whose process has ended while containerd and its shim say nothing of it.
async fn unheard_exit(containerd: &Containerd, id: &ContainerId, exec: Option<&ExecId>) -> Exit {
    if exec.is_none() {
        containerd.lost_exits().process_ended(id).await;
        tokio::time::sleep(REST_PATIENCE).await;
        // Without a pid namespace of its own, an exec that hangs outlives the container, and holds up its shim.
        let told_late = tokio::time::Instant::now() + EXIT_PATIENCE;
        while tokio::time::Instant::now() < told_late {
            containerd.lost_exits().kill_rest(id);
            tokio::time::sleep(REST_PAUSE).await;
        }
        if !containerd.lost_exits().tells_exit(id) {
            tokio::time::sleep(ONLY_WITNESS_PATIENCE).await;
        }
        if let Lost::Ended(exit) = containerd.lost_exits().find(id) {
            warn!(container.id = %id, "containerd does not tell the end of container {id}: seen without it");
            return exit;
        }
    }
    std::future::pending().await
}

fn to_exit(answer: WaitResponse) -> Exit {
    let at = answer.exited_at.unwrap_or_default();
    let at = Timestamp::from_unix(at.seconds, u32::try_from(at.nanos).unwrap_or(0));
    Exit { code: i64::from(answer.exit_status), at, oom_killed: false }
}

/// The cgroup is there until the task is deleted, which comes after the wait.
async fn had_oom_kill(containerd: &Containerd, id: &ContainerId) -> bool {
    let cgroup = containers::stored_cgroup(containerd, id).await.unwrap_or_default();
    cgroup.is_some_and(|cgroup| containerd.cgroups().had_oom_kill(&cgroup)) || containerd.oom().seen(id)
}

/// Sends a signal.
pub(super) async fn kill(
    containerd: &Containerd,
    id: &ContainerId,
    exec: Option<&ExecId>,
    signal: u32,
    all: bool,
) -> Result<()> {
    let request = KillRequest { container_id: id.to_string(), exec_id: exec_text(exec), signal, all };
    match containerd.client().tasks().kill(request).await {
        Ok(_) => Ok(()),
        // The shim may be held up by an exec that hangs, or containerd by whatever: the process is there all the same.
        Err(status) if is_over_limit(&status) && exec.is_none() && containerd.lost_exits().signal(id, signal) => {
            warn!(container.id = %id, signal, "the runtime does not pass a signal on to container {id}: sent directly");
            Ok(())
        }
        Err(status) => Err(from_status(status)),
    }
}

/// Ends a task that an earlier daemon left, with whatever that one was about to do to it.
pub(super) async fn end_found(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    // A shim that was about to start an exec waits for the other ends of its pipes, and lets nothing else be done.
    let _held = io::hold_all(&io_folder(containerd, id));
    let _gone = kill(containerd, id, None, SIGKILL, true).await;
    let (pipes, unread) = (io_folder(containerd, id), containerd.exec_root().join(io::UNREAD));
    let kept = tokio::task::spawn_blocking(move || io::keep_unread(&[pipes], &unread)).await;
    kept.context("saving output")?;
    delete(containerd, id).await
}

/// Takes the task away; one that still runs is killed first.
pub(super) async fn delete(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    // The refusal of a living process has no code of its own, so any but these is taken for one.
    match delete_once(containerd, id).await {
        Err(error) if error.kind() != ErrorKind::Unavailable => {
            kill_and_wait(containerd, id).await?;
            delete_once(containerd, id).await?;
        }
        result => result?,
    }
    containerd.cgroup_parents().end(containerd.cgroups(), id);
    containerd.oom().forget(id);
    containerd.lost_exits().forget(id);
    containerd.begun_execs().forget_container(id);
    // Whatever pipes execs left are there too.
    remove_pipes(containerd, id);
    containerd.own_tasks().remove(id);
    Ok(())
}

async fn delete_once(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    let request = DeleteTaskRequest { container_id: id.to_string() };
    gone_is_fine(containerd.client().tasks().delete(request).await.map(drop).map_err(from_status))
}

async fn kill_and_wait(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    gone_is_fine(kill(containerd, id, None, SIGKILL, true).await)?;
    // A frozen process dies when it thaws. Of one that is not frozen, this is refused and does no harm.
    let _ = resume(containerd, id).await;
    gone_is_fine(wait(containerd, id, None).await.map(drop))
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Freezes the container.
pub(super) async fn pause(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    let request = PauseTaskRequest { container_id: id.to_string() };
    containerd.client().tasks().pause(request).await.map(drop).map_err(from_status)
}

/// Thaws it.
pub(super) async fn resume(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    let request = ResumeTaskRequest { container_id: id.to_string() };
    containerd.client().tasks().resume(request).await.map(drop).map_err(from_status)
}

/// Processes in the container.
pub(super) async fn pids(containerd: &Containerd, id: &ContainerId) -> Result<Vec<u32>> {
    let request = ListPidsRequest { container_id: id.to_string() };
    let answer = containerd.client().tasks().list_pids(request).await.map_err(from_status)?;
    Ok(answer.into_inner().processes.into_iter().map(|process| process.pid).collect())
}

/// What the container has used.
pub(super) async fn stats(containerd: &Containerd, id: &ContainerId) -> Result<ResourceUsage> {
    // The cgroup goes with the task.
    let missing = || Error::not_found(format!("container {id} has no task: not found"));
    let cgroup = containers::stored_cgroup(containerd, id).await?.ok_or_else(missing)?;
    usage::find(containerd.cgroups(), cgroup).await?.ok_or_else(missing)
}

/// Changes limits.
pub(super) async fn update_resources(
    containerd: &Containerd,
    id: &ContainerId,
    resources: &LinuxResources,
) -> Result<()> {
    let value = serde_json::to_vec(resources).context("writing resources")?;
    let resources = Some(Any { type_url: RESOURCES_TYPE.to_owned(), value });
    let request = UpdateTaskRequest { container_id: id.to_string(), resources, ..UpdateTaskRequest::default() };
    containerd.client().tasks().update(request).await.map(drop).map_err(from_status)
}

/// Sets the size of a terminal.
pub(super) async fn resize(
    containerd: &Containerd,
    id: &ContainerId,
    exec: Option<&ExecId>,
    width: u32,
    height: u32,
) -> Result<()> {
    let request = ResizePtyRequest { container_id: id.to_string(), exec_id: exec_text(exec), width, height };
    containerd.client().tasks().resize_pty(request).await.map(drop).map_err(from_status)
}

/// Closes the writing end that the shim holds. Ours must be closed before, or input may be lost.
pub(super) async fn close_stdin(containerd: &Containerd, id: &ContainerId, exec: Option<&ExecId>) -> Result<()> {
    let request = CloseIoRequest { container_id: id.to_string(), exec_id: exec_text(exec), stdin: true };
    containerd.client().tasks().close_io(request).await.map(drop).map_err(from_status)
}

/// Prepares an exec. The writing ends stay open until it was started, so that its output may be read before.
pub(super) async fn create_exec(
    containerd: &Containerd,
    id: &ContainerId,
    exec: &ExecId,
    process: &Process,
    stdio: Stdio,
) -> Result<TaskIo> {
    let value = serde_json::to_vec(process).context("writing the process's spec")?;
    let fifos = fifos(containerd, id, exec.as_str(), stdio);
    let starting = containerd.begun_execs().may_start(id).await;
    let (streams, hold) = fifos.create()?;
    let request = ExecProcessRequest {
        container_id: id.to_string(),
        exec_id: exec.to_string(),
        stdin: fifos.stdin(),
        stdout: fifos.stdout(),
        stderr: fifos.stderr(),
        terminal: stdio.terminal,
        spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value }),
    };
    if let Err(status) = containerd.client().tasks().exec(request).await {
        fifos.remove();
        return Err(from_status(status));
    }
    containerd.begun_execs().keep(id, exec, BegunExec::new(fifos, hold, starting, program_of(Some(process))));
    Ok(streams)
}

/// Runs it.
pub(super) async fn start_exec(containerd: &Containerd, id: &ContainerId, exec: &ExecId) -> Result<u32> {
    let started = start(containerd, id, Some(exec)).await;
    let begun = containerd.begun_execs().release_hold(id, exec).unwrap_or_default();
    let pid = started.map_err(|error| as_of_runc(error, &begun.program))?;
    // A process that has ended meanwhile needs no end of its input.
    if begun.has_empty_stdin
        && let Err(error) = gone_is_fine(close_stdin(containerd, id, Some(exec)).await)
    {
        warn!(container.id = %id, "closing the input of an exec: {error}");
    }
    Ok(pid)
}

/// Takes it away.
pub(super) async fn delete_exec(containerd: &Containerd, id: &ContainerId, exec: &ExecId) -> Result<()> {
    let request = DeleteProcessRequest { container_id: id.to_string(), exec_id: exec.to_string() };
    let result = containerd.client().tasks().delete_process(request).await.map(drop).map_err(from_status);
    gone_is_fine(result)?;
    containerd.begun_execs().remove(id, exec);
    Ok(())
}

/// Tasks of this namespace.
pub(super) async fn list(containerd: &Containerd) -> Result<Vec<FoundTask>> {
    let answer = containerd.client().tasks().list(ListTasksRequest::default()).await.map_err(from_status)?;
    let found: Vec<_> = answer.into_inner().tasks.into_iter().map(to_found).collect();
    for task in found.iter().filter(|task| task.running) {
        containerd.lost_exits().watch(&task.id, task.pid, containerd.cgroups());
    }
    Ok(found)
}

/// Those, and containers for which something goes on that is in no list of containerd's.
pub(super) async fn list_begun(containerd: &Containerd) -> Result<HashSet<ContainerId>> {
    let (address, namespace, runtime) = containerd.place();
    let unknown = tokio::task::spawn_blocking(move || child::begun(&address, &namespace, &runtime));
    let mut begun: HashSet<_> = list(containerd).await?.into_iter().map(|task| task.id).collect();
    begun.extend(unknown.await.context("looking for shims")?.into_iter().map(ContainerId::from_stored));
    Ok(begun)
}

/// Ends shims of which containerd knows nothing: one that died while it deleted a task does not find its shim again.
pub(super) async fn end_forgotten(containerd: &Containerd, known: &[FoundTask]) {
    let begun = list_begun(containerd).await.unwrap_or_default();
    for id in begun.iter().filter(|id| known.iter().all(|task| task.id != **id)) {
        if let Err(error) = end_begun(containerd, id).await {
            tracing::warn!("ending what is left of container {id}: {}", error.chain());
        }
    }
}

/// Ends the task of a container, and what goes on without one.
pub(super) async fn end_begun(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    let ended = end_found(containerd, id).await;
    let ((address, namespace, runtime), name) = (containerd.place(), id.to_string());
    let ending = tokio::task::spawn_blocking(move || child::end_begun(&address, &namespace, &runtime, &name));
    ending.await.context("ending a shim")?;
    // The OCI runtime knows a container until its shim says that it is gone, which that one cannot any more.
    remove_runtime_state(containerd, id);
    ended
}

/// Takes away what the OCI runtime has stored of a container whose processes have ended.
pub(super) fn remove_runtime_state(containerd: &Containerd, id: &ContainerId) {
    let (_, _, runtime) = containerd.place();
    let _not_there = std::fs::remove_dir_all(runtime.join(id.as_str()));
}

/// Takes away the pipes of a container, also those of a task that a killed daemon did not come to make.
pub(super) fn remove_pipes(containerd: &Containerd, id: &ContainerId) {
    let _not_there = std::fs::remove_dir_all(io_folder(containerd, id));
}

fn to_found(process: TaskProcess) -> FoundTask {
    // Over an ended task, some shims report the number that its process had.
    let running = !matches!(process.status(), TaskStatus::Stopped | TaskStatus::Unknown);
    FoundTask { id: ContainerId::from_stored(process.id), pid: if running { process.pid } else { 0 }, running }
}

fn exec_text(exec: Option<&ExecId>) -> String {
    exec.map(ToString::to_string).unwrap_or_default()
}

fn io_folder(containerd: &Containerd, id: &ContainerId) -> PathBuf {
    containerd.exec_root().join("io").join(id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_finds_in_its_way_is_known_however_containerd_says_it() {
        let folder = "/run/containerd/io.containerd.runtime.v2.task/ringer/0a1b";
        for message in [
            format!("failed to start shim: mkdir {folder}: file exists: unknown"),
            format!("mkdir {folder}: file exists"),
            "OCI runtime create failed: runc create failed: container with given ID already exists: unknown".to_owned(),
            format!("failed to start shim: start failed: open {folder}/address: no such file or directory: unknown"),
        ] {
            assert!(is_in_the_way(&Status::unknown(message.clone())), "{message}");
        }
        assert!(is_in_the_way(&Status::already_exists("task 0a1b: already exists")));
        for message in [
            "OCI runtime create failed: exec: \"x\": executable file not found in $PATH: unknown",
            "OCI runtime create failed: mkdir /proc/x: file exists: unknown",
        ] {
            assert!(!is_in_the_way(&Status::unknown(message)), "{message}");
        }
    }
}
