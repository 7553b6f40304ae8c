//! What every [`Runtime`] must do, as one suite: the fake runs it in unit tests, containerd in `tests/`.
//!
//! `runtime_contract!(bench)` makes one test of each function; `bench` is a future of an `Option<Bench>`, `None`
//! where what is to be tested is absent.

mod containers;
mod execs;
mod tasks;

use std::{any::Any, sync::Arc, time::Duration};

use oci_spec::runtime::{Process, Spec};
use serde_json::json;
use tokio::io::AsyncReadExt;

pub use self::{containers::*, execs::*, tasks::*};
use super::{Exit, NewContainer, Runtime, Stdio, TaskIo};
use crate::model::id::{ContainerId, ExecId, TenantId};

/// Nothing in the suite takes longer, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A runtime to be tested, with a layer that has busybox in it.
pub struct Bench {
    runtime: Arc<dyn Runtime>,
    parent: String,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Bench {
    /// `parent` is the chain id of the layer; `guard` cleans up when dropped.
    pub fn new(runtime: Arc<dyn Runtime>, parent: &str, guard: impl Any + Send + Sync) -> Self {
        Self { runtime, parent: parent.to_owned(), _guard: Box::new(guard) }
    }

    /// The runtime.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// What a new container of this bench is made from.
    pub fn new_container(&self) -> NewContainer {
        NewContainer {
            id: ContainerId::random(),
            parent: self.parent.clone(),
            image: "test".to_owned(),
            labels: [("ringer.tenant".to_owned(), "default".to_owned())].into(),
            runtime: self.runtime.resolve_runtime("").expect("a default runtime"),
            record: b"{}".to_vec(),
        }
    }

    /// Makes a container.
    pub async fn container(&self) -> ContainerId {
        let new = self.new_container();
        self.runtime.create_container(&new).await.expect("creating a container");
        new.id
    }

    /// The smallest spec that runs a command.
    pub fn spec(&self, id: &ContainerId, args: &[&str], stdio: Stdio) -> Spec {
        let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).into();
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": process(args, stdio),
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            ],
            "linux": {"namespaces": namespaces, "cgroupsPath": self.runtime.cgroup_path(&TenantId::default_tenant(), id, "")},
        });
        serde_json::from_value(spec).expect("a valid spec")
    }

    /// Makes the task of a container and lets it run.
    pub async fn run(&self, id: &ContainerId, args: &[&str], stdio: Stdio) -> TaskIo {
        let spec = self.spec(id, args, stdio);
        let (pid, streams) = self.runtime.create_task(id, &spec, stdio).await.expect("creating a task");
        assert_ne!(pid, 0);
        self.runtime.start_task(id).await.expect("starting a task");
        streams
    }

    /// Container and task in one.
    pub async fn run_new(&self, args: &[&str], stdio: Stdio) -> (ContainerId, TaskIo) {
        let id = self.container().await;
        let streams = self.run(&id, args, stdio).await;
        (id, streams)
    }

    /// Waits for an end that must come.
    pub async fn exit(&self, id: &ContainerId, exec: Option<&ExecId>) -> Exit {
        within(self.runtime.wait(id, exec)).await.expect("waiting for an exit")
    }

    /// Takes everything of a container away.
    pub async fn remove(&self, id: &ContainerId) {
        self.runtime.delete_task(id).await.expect("deleting a task");
        self.runtime.delete_container(id).await.expect("deleting a container");
    }
}

/// A process for a spec or an exec.
fn process(args: &[&str], stdio: Stdio) -> serde_json::Value {
    json!({
        "terminal": stdio.terminal,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin"],
        "cwd": "/",
    })
}

/// The process of an exec.
pub fn exec_process(args: &[&str], stdio: Stdio) -> Process {
    serde_json::from_value(process(args, stdio)).expect("a valid process")
}

/// Fails a test that hangs.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

/// Both outputs until they end. Reads them at once, as the engine does.
pub async fn read_all(streams: TaskIo) -> (String, String) {
    let TaskIo { mut stdout, stderr, .. } = streams;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let errors = async {
        if let Some(mut stderr) = stderr {
            stderr.read_to_end(&mut err).await.expect("reading stderr");
        }
    };
    let outputs = async { stdout.read_to_end(&mut out).await.expect("reading stdout") };
    within(async { tokio::join!(outputs, errors) }).await;
    (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
}

/// Makes a `#[tokio::test]` of each function of the suite.
#[macro_export]
macro_rules! runtime_contract {
    ($bench:expr) => {
        $crate::runtime_contract!(@each $bench;
            a_created_container_is_listed_with_its_record
            a_second_container_with_the_same_id_is_conflict
            a_deleted_container_is_gone_and_deleting_again_is_success
            an_unknown_container_is_not_found_for_every_verb
            an_unknown_runtime_is_refused
            many_containers_can_be_made_at_once
            outputs_stay_apart_and_the_exit_code_is_told
            large_output_arrives_whole
            a_task_waits_for_its_start
            input_is_read_to_its_end
            without_input_a_reader_sees_the_end_at_once
            a_terminal_carries_everything_in_one_stream
            a_killed_task_ends_with_128_and_the_signal
            a_signal_to_an_ended_task_is_not_found
            all_waiters_are_told_the_same
            deleting_a_running_task_ends_it
            deleting_a_paused_task_ends_it
            deleting_a_task_that_was_never_started_is_success
            a_container_runs_again_after_its_task_is_deleted
            a_missing_program_is_named_and_leaves_no_task
            a_paused_task_goes_on_after_resume
            a_task_tells_what_it_has_used
            limits_of_a_running_task_can_be_changed
            an_exec_has_its_own_output_and_exit_code
            an_exec_reads_its_input_to_the_end
            output_of_an_exec_may_be_read_before_its_start
            an_exec_in_a_terminal_can_be_resized
            an_exec_of_a_missing_program_fails_at_its_start
            an_exec_can_be_killed_alone
            execs_count_among_the_processes
            many_execs_run_at_once
        );
    };
    (@each $bench:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(bench) = $bench.await else { return };
                $crate::backend::runtime::contract::$name(&bench).await;
            }
        )*
    };
}
