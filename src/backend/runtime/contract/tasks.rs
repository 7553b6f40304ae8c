//! The first process of a container.

use std::time::Duration;

use futures_util::future::join_all;
use oci_spec::runtime::{LinuxPidsBuilder, LinuxResources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Bench, read_all, within};
use crate::{
    backend::runtime::{FoundTask, Stdio},
    model::{ErrorKind, id::TenantId, job::JobLimits},
};

const INPUT: Stdio = Stdio { terminal: false, stdin: true };

/// The plain case.
pub async fn outputs_stay_apart_and_the_exit_code_is_told(bench: &Bench) {
    let (id, streams) = bench.run_new(&["sh", "-c", "echo out; echo err >&2; exit 7"], Stdio::default()).await;
    let (exit, (out, err)) = tokio::join!(bench.exit(&id, None), read_all(streams));
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    assert_eq!((exit.code, exit.oom_killed), (7, false));
    assert!(exit.at.elapsed() < Duration::from_secs(60));
    bench.remove(&id).await;
}

/// More than fits into any pipe, read after the process could have ended.
pub async fn large_output_arrives_whole(bench: &Bench) {
    let (id, streams) = bench.run_new(&["head", "-c", "3000000", "/dev/zero"], Stdio::default()).await;
    let (out, _) = read_all(streams).await;
    assert_eq!(out.len(), 3_000_000);
    assert_eq!(bench.exit(&id, None).await.code, 0);
    bench.remove(&id).await;
}

/// Between creation and start there is a process, but none of the container's own work.
pub async fn a_task_waits_for_its_start(bench: &Bench) {
    let runtime = bench.runtime();
    let id = bench.container().await;
    let spec = bench.spec(&id, &["echo", "ran"], Stdio::default());
    let (pid, streams) = runtime.create_task(&id, &spec, Stdio::default()).await.unwrap();
    assert_eq!(runtime.list_tasks().await.unwrap(), [FoundTask { id: id.clone(), pid, running: true }]);
    assert_eq!(
        runtime.create_task(&id, &spec, Stdio::default()).await.err().expect("it has one").kind(),
        ErrorKind::Conflict
    );
    runtime.start_task(&id).await.unwrap();
    assert_eq!(read_all(streams).await.0, "ran\n");
    bench.exit(&id, None).await;
    assert_eq!(runtime.list_tasks().await.unwrap(), [FoundTask { id: id.clone(), pid: 0, running: false }]);
    bench.remove(&id).await;
}

/// Everything written before the close arrives, then the end.
pub async fn input_is_read_to_its_end(bench: &Bench) {
    let (id, mut streams) = bench.run_new(&["cat"], INPUT).await;
    let mut stdin = streams.stdin.take().expect("asked for");
    let writer = async {
        stdin.write_all("line of input\n".repeat(30_000).as_bytes()).await.unwrap();
        drop(stdin);
        bench.runtime().close_stdin(&id, None).await.unwrap();
    };
    let ((), (out, _)) = within(async { tokio::join!(writer, read_all(streams)) }).await;
    assert_eq!(out.len(), 14 * 30_000);
    assert_eq!(bench.exit(&id, None).await.code, 0);
    bench.remove(&id).await;
}

/// As with `docker run` without `-i`.
pub async fn without_input_a_reader_sees_the_end_at_once(bench: &Bench) {
    let (id, streams) = bench.run_new(&["cat"], Stdio::default()).await;
    assert!(streams.stdin.is_none());
    assert_eq!(read_all(streams).await.0, "");
    assert_eq!(bench.exit(&id, None).await.code, 0);
    bench.remove(&id).await;
}

/// Lines end as a terminal ends them.
pub async fn a_terminal_carries_everything_in_one_stream(bench: &Bench) {
    let stdio = Stdio { terminal: true, stdin: true };
    let (id, streams) = bench.run_new(&["sh", "-c", "echo out; echo err >&2"], stdio).await;
    assert!(streams.stdin.is_some() && streams.stderr.is_none());
    assert_eq!(read_all(streams).await.0, "out\r\nerr\r\n");
    bench.remove(&id).await;
}

/// 137 for KILL.
pub async fn a_killed_task_ends_with_128_and_the_signal(bench: &Bench) {
    let (id, streams) = bench.run_new(&["sleep", "1000"], Stdio::default()).await;
    bench.runtime().kill(&id, None, 9, true).await.unwrap();
    assert_eq!(bench.exit(&id, None).await.code, 137);
    read_all(streams).await;
    bench.remove(&id).await;
}

/// `docker kill` tells the difference.
pub async fn a_signal_to_an_ended_task_is_not_found(bench: &Bench) {
    let (id, _streams) = bench.run_new(&["true"], Stdio::default()).await;
    bench.exit(&id, None).await;
    let error = bench.runtime().kill(&id, None, 9, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.message());
    bench.remove(&id).await;
}

/// Before and after the end.
pub async fn all_waiters_are_told_the_same(bench: &Bench) {
    let (id, _streams) = bench.run_new(&["sh", "-c", "sleep 0.2; exit 3"], Stdio::default()).await;
    let exits = join_all((0..4).map(|_| bench.exit(&id, None))).await;
    assert!(exits.iter().all(|exit| exit.code == 3));
    assert_eq!(bench.exit(&id, None).await, exits[0]);
    bench.remove(&id).await;
}

/// Without a word from the caller before.
pub async fn deleting_a_running_task_ends_it(bench: &Bench) {
    let (id, streams) = bench.run_new(&["sleep", "1000"], Stdio::default()).await;
    within(bench.runtime().delete_task(&id)).await.unwrap();
    read_all(streams).await;
    assert_eq!(bench.runtime().list_tasks().await.unwrap(), []);
    bench.remove(&id).await;
}

/// A frozen process cannot die before it thaws.
pub async fn deleting_a_paused_task_ends_it(bench: &Bench) {
    let (id, _streams) = bench.run_new(&["sleep", "1000"], Stdio::default()).await;
    bench.runtime().pause(&id).await.unwrap();
    within(bench.runtime().delete_task(&id)).await.unwrap();
    assert_eq!(bench.runtime().list_tasks().await.unwrap(), []);
    bench.remove(&id).await;
}

/// The undo of a failed start.
pub async fn deleting_a_task_that_was_never_started_is_success(bench: &Bench) {
    let runtime = bench.runtime();
    let id = bench.container().await;
    let spec = bench.spec(&id, &["true"], Stdio::default());
    let (_, streams) = runtime.create_task(&id, &spec, Stdio::default()).await.unwrap();
    within(runtime.delete_task(&id)).await.unwrap();
    read_all(streams).await;
    bench.remove(&id).await;
}

/// `docker restart`.
pub async fn a_container_runs_again_after_its_task_is_deleted(bench: &Bench) {
    let id = bench.container().await;
    for code in [4, 5] {
        let script = format!("echo {code}; exit {code}");
        let streams = bench.run(&id, &["sh", "-c", &script], Stdio::default()).await;
        assert_eq!(read_all(streams).await.0, format!("{code}\n"));
        assert_eq!(bench.exit(&id, None).await.code, code);
        bench.runtime().delete_task(&id).await.unwrap();
    }
    bench.remove(&id).await;
}

/// In the words of the OCI runtime.
pub async fn a_missing_program_is_named_and_leaves_no_task(bench: &Bench) {
    let runtime = bench.runtime();
    let id = bench.container().await;
    let spec = bench.spec(&id, &["no-such-program"], Stdio::default());
    let error = match runtime.create_task(&id, &spec, Stdio::default()).await {
        Err(error) => error,
        Ok(_) => runtime.start_task(&id).await.unwrap_err(),
    };
    assert!(error.message().contains("no-such-program"), "{}", error.message());
    assert!(error.message().contains("not found in $PATH"), "{}", error.message());
    runtime.delete_task(&id).await.unwrap();
    assert_eq!(runtime.list_tasks().await.unwrap(), []);
    let streams = bench.run(&id, &["echo", "still usable"], Stdio::default()).await;
    assert_eq!(read_all(streams).await.0, "still usable\n");
    bench.remove(&id).await;
}

/// And keeps its streams.
pub async fn a_paused_task_goes_on_after_resume(bench: &Bench) {
    let (id, mut streams) = bench.run_new(&["cat"], INPUT).await;
    bench.runtime().pause(&id).await.unwrap();
    let mut stdin = streams.stdin.take().expect("asked for");
    stdin.write_all(b"x").await.unwrap();
    bench.runtime().resume(&id).await.unwrap();
    assert_eq!(within(streams.stdout.read_u8()).await.unwrap(), b'x');
    drop(stdin);
    bench.runtime().close_stdin(&id, None).await.unwrap();
    assert_eq!(bench.exit(&id, None).await.code, 0);
    bench.remove(&id).await;
}

/// Until it is deleted, and so does the cgroup of its tenant, if that has one of its own.
pub async fn a_task_tells_what_it_has_used(bench: &Bench) {
    let (tenant, runtime) = (TenantId::of_build_cache(), bench.runtime());
    assert_eq!(runtime.parent_stats(&tenant).await.unwrap_err().kind(), ErrorKind::NotFound);
    runtime.make_parent(&tenant, &JobLimits::default()).await.unwrap();
    let id = bench.container().await;
    let mut spec = bench.spec(&id, &["sleep", "1000"], Stdio::default());
    let cgroup = runtime.cgroup_path(&tenant, &id, "");
    spec.linux_mut().as_mut().expect("it has namespaces").set_cgroups_path(Some(cgroup.into()));
    let (_, _streams) = runtime.create_task(&id, &spec, Stdio::default()).await.unwrap();
    runtime.start_task(&id).await.unwrap();
    for usage in [runtime.stats(&id).await.unwrap(), runtime.parent_stats(&tenant).await.unwrap()] {
        assert!(usage.cpu.total > 0 && usage.memory.usage > 0 && usage.memory.limit > 0, "{usage:?}");
    }
    // A moment after its start, the threads of the runtime's own init are still counted.
    let alone = async {
        while bench.runtime().stats(&id).await.unwrap().pids.current != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(alone).await;
    bench.runtime().delete_task(&id).await.unwrap();
    assert_eq!(bench.runtime().stats(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(runtime.parent_stats(&tenant).await.unwrap().cpu.total > 0, "it is the tenant's still");
    bench.remove(&id).await;
    runtime.remove_parent(&tenant).await.unwrap();
    assert_eq!(runtime.parent_stats(&tenant).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// While it runs; the rest stays.
pub async fn limits_of_a_running_task_can_be_changed(bench: &Bench) {
    let (id, _streams) = bench.run_new(&["sleep", "1000"], Stdio::default()).await;
    let pids = LinuxPidsBuilder::default().limit(77).build().expect("every field has a default");
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_pids(Some(pids));
    bench.runtime().update_resources(&id, &resources).await.unwrap();
    assert_eq!(bench.runtime().stats(&id).await.unwrap().pids.limit, 77);
    bench.runtime().delete_task(&id).await.unwrap();
    assert!(bench.runtime().update_resources(&id, &resources).await.is_err());
    bench.remove(&id).await;
}
