//! Container objects.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Bench;
use crate::{
    backend::runtime::{Stdio, StoredContainer},
    model::{
        ErrorKind,
        id::{ContainerId, ExecId},
    },
};

/// Record and its updates come back unchanged.
pub async fn a_created_container_is_listed_with_its_record(bench: &Bench) {
    let runtime = bench.runtime();
    let new = bench.new_container();
    runtime.create_container(&new).await.unwrap();
    let listed = runtime.list_containers().await.unwrap();
    assert_eq!(listed, [StoredContainer { id: new.id.clone(), record: new.record }]);

    let record = format!("{{\"big\":\"{}\"}}", "x".repeat(100_000)).into_bytes();
    runtime.update_record(&new.id, record.clone()).await.unwrap();
    assert_eq!(runtime.list_containers().await.unwrap(), [StoredContainer { id: new.id.clone(), record }]);
    assert!(!runtime.rootfs(&new.id).await.unwrap().is_empty());
    runtime.usage(&new.id).await.unwrap();
    bench.remove(&new.id).await;
}

/// The first one stays as it was.
pub async fn a_second_container_with_the_same_id_is_conflict(bench: &Bench) {
    let runtime = bench.runtime();
    let new = bench.new_container();
    runtime.create_container(&new).await.unwrap();
    assert_eq!(runtime.create_container(&new).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(runtime.list_containers().await.unwrap().len(), 1);
    runtime.rootfs(&new.id).await.unwrap();
    bench.remove(&new.id).await;
}

/// Deletion may be repeated after a crash.
pub async fn a_deleted_container_is_gone_and_deleting_again_is_success(bench: &Bench) {
    let runtime = bench.runtime();
    let id = bench.container().await;
    runtime.delete_container(&id).await.unwrap();
    assert_eq!(runtime.list_containers().await.unwrap(), []);
    assert_eq!(runtime.rootfs(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    runtime.delete_container(&id).await.unwrap();
}

/// One kind for all that is not there; deletions are done.
pub async fn an_unknown_container_is_not_found_for_every_verb(bench: &Bench) {
    let runtime = bench.runtime();
    let (id, exec) = (ContainerId::random(), ExecId::random());
    let spec = bench.spec(&id, &["true"], Stdio::default());
    let errors = [
        runtime.update_record(&id, Vec::new()).await.unwrap_err(),
        runtime.create_task(&id, &spec, Stdio::default()).await.err().expect("no container"),
        runtime.start_task(&id).await.unwrap_err(),
        runtime.wait(&id, None).await.unwrap_err(),
        runtime.wait(&id, Some(&exec)).await.unwrap_err(),
        runtime.kill(&id, None, 9, false).await.unwrap_err(),
        runtime.pause(&id).await.unwrap_err(),
        runtime.resume(&id).await.unwrap_err(),
        runtime.pids(&id).await.unwrap_err(),
        runtime.start_exec(&id, &exec).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.message());
    }
    runtime.delete_exec(&id, &exec).await.unwrap();
    runtime.delete_task(&id).await.unwrap();
}

/// And the default one has a name and a version.
pub async fn an_unknown_runtime_is_refused(bench: &Bench) {
    let runtime = bench.runtime();
    let error = runtime.resolve_runtime("no-such-runtime").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    let default = runtime.resolve_runtime("").unwrap();
    assert_eq!(default, runtime.info().default_runtime);
    assert!(runtime.info().runtimes.iter().any(|program| program.name == default && !program.version.is_empty()));
}

/// Each with its whole life.
pub async fn many_containers_can_be_made_at_once(bench: &Bench) {
    let life = async |number: usize| {
        let bench = Arc::new(bench);
        let script = format!("exit {number}");
        let (id, _streams) = bench.run_new(&["sh", "-c", &script], Stdio::default()).await;
        let exit = bench.exit(&id, None).await;
        bench.remove(&id).await;
        exit.code
    };
    let codes = join_all((0..8).map(life)).await;
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.runtime().list_containers().await.unwrap(), []);
    assert_eq!(bench.runtime().list_tasks().await.unwrap(), []);
}
