//! Further processes in a running container.

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;

use super::{Bench, exec_process, read_all, within};
use crate::{
    backend::runtime::{Stdio, TaskIo},
    model::id::{ContainerId, ExecId},
};

async fn idle(bench: &Bench) -> ContainerId {
    bench.run_new(&["sleep", "1000"], Stdio::default()).await.0
}

async fn create(bench: &Bench, id: &ContainerId, args: &[&str], stdio: Stdio) -> (ExecId, TaskIo) {
    let exec = ExecId::random();
    let process = exec_process(args, stdio);
    let streams = bench.runtime().create_exec(id, &exec, &process, stdio).await.expect("creating an exec");
    (exec, streams)
}

async fn run(bench: &Bench, id: &ContainerId, args: &[&str], stdio: Stdio) -> (ExecId, TaskIo) {
    let (exec, streams) = create(bench, id, args, stdio).await;
    assert_ne!(bench.runtime().start_exec(id, &exec).await.expect("starting an exec"), 0);
    (exec, streams)
}

/// The plain case.
pub async fn an_exec_has_its_own_output_and_exit_code(bench: &Bench) {
    let id = idle(bench).await;
    let script = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let (exec, streams) = run(bench, &id, &script, Stdio::default()).await;
    assert_eq!(read_all(streams).await, ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(bench.exit(&id, Some(&exec)).await.code, 3);
    bench.runtime().delete_exec(&id, &exec).await.unwrap();
    bench.runtime().delete_exec(&id, &exec).await.unwrap();
    bench.remove(&id).await;
}

/// `docker exec -i` with a file as its input.
pub async fn an_exec_reads_its_input_to_the_end(bench: &Bench) {
    let id = idle(bench).await;
    let (exec, mut streams) = run(bench, &id, &["cat"], Stdio { terminal: false, stdin: true }).await;
    let mut stdin = streams.stdin.take().expect("asked for");
    let writer = async {
        stdin.write_all(&[b'x'; 300_000]).await.unwrap();
        drop(stdin);
        bench.runtime().close_stdin(&id, Some(&exec)).await.unwrap();
    };
    let ((), (out, _)) = within(async { tokio::join!(writer, read_all(streams)) }).await;
    assert_eq!(out.len(), 300_000);
    assert_eq!(bench.exit(&id, Some(&exec)).await.code, 0);
    bench.runtime().delete_exec(&id, &exec).await.unwrap();
    bench.remove(&id).await;
}

/// The engine hands the streams on before it starts the process.
pub async fn output_of_an_exec_may_be_read_before_its_start(bench: &Bench) {
    let id = idle(bench).await;
    let (exec, streams) = create(bench, &id, &["echo", "late"], Stdio::default()).await;
    let start = async {
        tokio::task::yield_now().await;
        bench.runtime().start_exec(&id, &exec).await.unwrap();
    };
    let ((out, _), ()) = tokio::join!(read_all(streams), start);
    assert_eq!(out, "late\n");
    bench.remove(&id).await;
}

/// `docker exec -it`.
pub async fn an_exec_in_a_terminal_can_be_resized(bench: &Bench) {
    let id = idle(bench).await;
    let stdio = Stdio { terminal: true, stdin: true };
    let (exec, streams) = run(bench, &id, &["sh", "-c", "sleep 0.3; echo done"], stdio).await;
    bench.runtime().resize(&id, Some(&exec), 120, 40).await.unwrap();
    assert_eq!(read_all(streams).await.0, "done\r\n");
    bench.remove(&id).await;
}

/// Its streams end, and the container goes on.
pub async fn an_exec_of_a_missing_program_fails_at_its_start(bench: &Bench) {
    let id = idle(bench).await;
    let (exec, streams) = create(bench, &id, &["no-such-program"], Stdio::default()).await;
    let error = bench.runtime().start_exec(&id, &exec).await.unwrap_err();
    assert!(error.message().contains("no-such-program"), "{}", error.message());
    assert!(error.message().contains("not found in $PATH"), "{}", error.message());
    read_all(streams).await;
    bench.runtime().delete_exec(&id, &exec).await.unwrap();
    assert_eq!(bench.runtime().pids(&id).await.unwrap().len(), 1);
    bench.remove(&id).await;
}

/// TERM ends it, since it is not the first process of its namespace.
pub async fn an_exec_can_be_killed_alone(bench: &Bench) {
    let id = idle(bench).await;
    let (exec, _streams) = run(bench, &id, &["sleep", "1000"], Stdio::default()).await;
    bench.runtime().kill(&id, Some(&exec), 15, false).await.unwrap();
    assert_eq!(bench.exit(&id, Some(&exec)).await.code, 143);
    bench.runtime().delete_exec(&id, &exec).await.unwrap();
    assert!(bench.runtime().list_tasks().await.unwrap()[0].running);
    bench.remove(&id).await;
}

/// `docker top`.
pub async fn execs_count_among_the_processes(bench: &Bench) {
    let id = idle(bench).await;
    let (_exec, _streams) = run(bench, &id, &["sleep", "1000"], Stdio::default()).await;
    assert_eq!(bench.runtime().pids(&id).await.unwrap().len(), 2);
    bench.remove(&id).await;
}

/// In one container.
pub async fn many_execs_run_at_once(bench: &Bench) {
    let id = idle(bench).await;
    let life = async |number: usize| {
        let text = format!("number {number}");
        let (exec, streams) = run(bench, &id, &["echo", &text], Stdio::default()).await;
        let (out, _) = read_all(streams).await;
        let exit = bench.exit(&id, Some(&exec)).await;
        bench.runtime().delete_exec(&id, &exec).await.unwrap();
        assert_eq!((out, exit.code), (format!("{text}\n"), 0));
    };
    join_all((0..32).map(life)).await;
    bench.remove(&id).await;
}
