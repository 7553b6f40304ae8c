//! Verbs on fakes: what happens when a step in the middle fails, and what must be left then.

mod records;
mod references;
mod turns;

use std::sync::Arc;

use futures_util::StreamExt;

use crate::{
    backend::{
        network::fake::FakeNetwork,
        runtime::fake::{FakeRuntime, Step},
    },
    engine::{
        Engine,
        container::exec::{Exec, ExecRequest, ExecStart},
        containers::{delete::DeleteOptions, list::ListOptions, stop::StopOptions, wait::WaitCondition},
        tenants::Scope,
        testing::Fakes,
    },
    model::{
        ErrorKind, Result,
        container::{Config, ContainerCreateRequest, HostConfig},
        filters::Filters,
        id::ContainerId,
        volume::VolumeRequest,
    },
};

struct Bench {
    engine: Engine,
    runtime: Arc<FakeRuntime>,
    network: Arc<FakeNetwork>,
    scope: Scope,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let Fakes { engine, runtime, network, folder, .. } = Fakes::with_box().await;
        Self { scope: engine.default_scope(), engine, runtime, network, _folder: folder }
    }

    async fn create(&self, name: &str, script: &str, host_config: HostConfig) -> Result<ContainerId> {
        let request = ContainerCreateRequest {
            name: Some(name.to_owned()),
            config: Config {
                image: "box".to_owned(),
                cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
                ..Config::default()
            },
            host_config,
            ..ContainerCreateRequest::default()
        };
        Ok(self.engine.container_create(&self.scope, request).await?.id)
    }

    async fn start(&self, name: &str) -> Result<()> {
        self.engine.container_start(&self.scope, name).await
    }

    async fn wait(&self, name: &str, condition: WaitCondition) -> i64 {
        self.engine.container_wait(&self.scope, name, condition).await.unwrap().await.status_code
    }

    /// An exec that can be started.
    async fn exec(&self, name: &str, request: ExecRequest) -> Arc<Exec> {
        let id = self.engine.container_exec(&self.scope, name, request).await.unwrap();
        self.engine.exec_startable(&self.scope, id.as_str()).await.unwrap()
    }

    /// Ends when the tear-down of a container's run is over.
    async fn settled(&self, name: &str) {
        if let Ok(container) = self.engine.containers.get(self.scope.tenant(), name) {
            drop(container.turn_torn_down().await);
        }
    }

    fn actions(&self) -> Vec<String> {
        self.engine.events.subscribe(self.scope.tenant()).0.into_iter().map(|event| event.action).collect()
    }
}

#[tokio::test]
async fn a_run_leaves_neither_task_nor_sandbox() {
    let bench = Bench::new().await;
    let id = bench.create("one", "exit 3", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    assert_eq!(bench.wait("one", WaitCondition::NotRunning).await, 3);
    bench.settled("one").await;
    assert!(!bench.runtime.has_task(&id));
    assert!(bench.network.state().sandboxes.is_empty());
}

#[tokio::test]
async fn start_that_fails_at_any_step_is_undone_and_can_be_tried_again() {
    for step in [Step::CreateTask, Step::StartTask] {
        let bench = Bench::new().await;
        let id = bench.create("one", "exit 0", HostConfig::default()).await.unwrap();
        bench.runtime.fail_next(step, ErrorKind::System, "broken");
        let error = bench.start("one").await.unwrap_err();
        assert!(error.message().contains("broken"), "{error}");
        assert!(!bench.runtime.has_task(&id), "{step:?}");
        assert!(bench.network.state().sandboxes.is_empty(), "{step:?}");
        let record = bench.engine.containers.get(bench.scope.tenant(), "one").unwrap().record();
        assert_eq!((record.state.as_str(), record.state.ended().unwrap().exit_code), ("created", 128));
        bench.start("one").await.unwrap();
        assert_eq!(bench.wait("one", WaitCondition::NotRunning).await, 0);
    }
}

#[tokio::test]
async fn start_without_network_is_undone() {
    let bench = Bench::new().await;
    bench.create("one", "exit 0", HostConfig::default()).await.unwrap();
    bench.network.fail("attach");
    assert!(bench.start("one").await.is_err());
    bench.network.recover();
    assert!(bench.network.state().sandboxes.is_empty());
    bench.start("one").await.unwrap();
}

#[tokio::test]
async fn create_that_fails_leaves_neither_name_nor_volume() {
    let bench = Bench::new().await;
    bench.runtime.fail_next(Step::CreateContainer, ErrorKind::System, "disk full");
    let with_volume = || HostConfig { binds: Some(vec!["kept:/v".to_owned()]), ..HostConfig::default() };
    assert!(bench.create("one", "true", with_volume()).await.is_err());
    assert!(bench.runtime.is_empty());
    bench.create("one", "true", with_volume()).await.expect("the name is free");
    let used =
        bench.engine.volume_create(&bench.scope, VolumeRequest { name: "kept".to_owned(), ..VolumeRequest::default() });
    assert!(used.await.is_ok());
}

#[tokio::test]
async fn a_name_is_free_when_its_removal_is_answered() {
    let bench = Bench::new().await;
    bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    let refused = bench.engine.container_delete(&bench.scope, "one", DeleteOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let force = DeleteOptions { force: true, volumes: true };
    bench.engine.container_delete(&bench.scope, "one", force).await.unwrap();
    bench.create("one", "true", HostConfig::default()).await.expect("the name is free");
    let actions = bench.actions();
    let order: Vec<_> =
        actions.iter().map(String::as_str).filter(|action| ["kill", "die", "destroy"].contains(action)).collect();
    assert_eq!(order, ["kill", "die", "destroy"]);
}

#[tokio::test]
async fn removal_that_could_not_be_stored_can_be_tried_again() {
    let bench = Bench::new().await;
    bench.create("one", "true", HostConfig::default()).await.unwrap();
    bench.runtime.fail_next(Step::UpdateRecord, ErrorKind::Unavailable, "containerd is not available");
    let delete = || bench.engine.container_delete(&bench.scope, "one", DeleteOptions::default());
    assert_eq!(delete().await.unwrap_err().kind(), ErrorKind::Unavailable);
    delete().await.unwrap();
    assert!(
        bench
            .engine
            .container_list(&bench.scope, &ListOptions { all: true, ..ListOptions::default() })
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_removal_that_makes_room() {
    let bench = Bench::new().await;
    bench.create("one", "true", HostConfig::default()).await.unwrap();
    for step in [Step::UpdateRecord, Step::DeleteContainer] {
        bench.runtime.fail_next(step, ErrorKind::System, "write meta.db: no space left on device");
    }
    bench.engine.container_delete(&bench.scope, "one", DeleteOptions::default()).await.unwrap();
    bench.engine.shutdown().await;
    assert!(bench.runtime.is_empty());
}

#[tokio::test]
async fn auto_removed_container_can_be_waited_for_and_is_gone() {
    let bench = Bench::new().await;
    let auto = HostConfig { auto_remove: true, ..HostConfig::default() };
    bench.create("one", "exit 4", auto).await.unwrap();
    let removed = bench.engine.container_wait(&bench.scope, "one", WaitCondition::Removed).await.unwrap();
    bench.start("one").await.unwrap();
    assert_eq!(removed.await.status_code, 4);
    assert!(bench.engine.containers.get(bench.scope.tenant(), "one").is_err());
    assert_eq!(bench.wait("one", WaitCondition::NotRunning).await, 4);
}

#[tokio::test]
async fn exec_that_cannot_start_has_an_exit_code_and_leaves_nothing() {
    let bench = Bench::new().await;
    let id = bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    let request = ExecRequest { command: vec!["nope".to_owned()], attach_stdout: true, ..ExecRequest::default() };
    let exec = bench.exec("one", request).await;
    let error = bench.engine.exec_start(&exec, ExecStart::default()).await.err().expect("it has no process");
    // The process of the fake has no root folder, as one that has just ended: that is no fault of the command.
    assert_eq!(error.kind(), ErrorKind::System);
    assert_eq!(*exec.state.borrow(), crate::engine::container::exec::ExecState::Exited(128));
    assert_eq!(bench.runtime.exec_count(&id), 0);
    let again = bench.engine.exec_start(&exec, ExecStart::default()).await.err().expect("it has run");
    assert_eq!(again.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn an_exec_that_meets_the_end_of_its_container_is_told_that_it_does_not_run() {
    let bench = Bench::new().await;
    let id = bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    let request = ExecRequest { command: vec!["true".to_owned()], attach_stdout: true, ..ExecRequest::default() };
    let exec = bench.exec("one", request).await;
    bench.engine.container_stop(&bench.scope, "one", StopOptions::default()).await.unwrap();
    let error = bench.engine.exec_start(&exec, ExecStart::default()).await.err().expect("it has no process");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, &*format!("container {id} is not running")));
}

#[tokio::test]
async fn a_look_that_meets_the_end_of_its_container_is_told_that_it_does_not_run() {
    let bench = Bench::new().await;
    let id = bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    for _ in 0..2 {
        bench.runtime.fail_next(Step::Pids, ErrorKind::System, "ttrpc: closed");
    }
    let (looked, killed) = tokio::join!(
        bench.engine.container_top(&bench.scope, "one", ""),
        bench.engine.container_kill(&bench.scope, "one", None),
    );
    killed.unwrap();
    let error = looked.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, &*format!("container {id} is not running")));
}

#[tokio::test]
async fn a_refused_pause_says_of_which_container() {
    let bench = Bench::new().await;
    let id = bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    bench.runtime.fail_next(Step::Pause, ErrorKind::System, "cannot pause a stopped container");
    let error = bench.engine.container_pause(&bench.scope, "one").await.unwrap_err();
    assert_eq!(error.message(), format!("cannot pause container {id}: cannot pause a stopped container"));
}

#[tokio::test]
async fn memory_kill_is_recorded_and_told() {
    let bench = Bench::new().await;
    let id = bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    bench.runtime.oom(&id);
    assert_eq!(bench.wait("one", WaitCondition::NotRunning).await, 137);
    let record = bench.engine.containers.get(bench.scope.tenant(), "one").unwrap().record();
    assert!(record.state.ended().unwrap().oom_killed);
    let mut told = bench.engine.events.subscribe(bench.scope.tenant());
    while !told.0.iter().any(|event| event.action == "oom") {
        told.0.push(told.1.recv().await.unwrap());
    }
}

#[tokio::test]
async fn prune_takes_what_does_not_run_and_nothing_else() {
    let bench = Bench::new().await;
    bench.create("runs", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("runs").await.unwrap();
    let with_volume = HostConfig { binds: Some(vec!["kept:/v".to_owned()]), ..HostConfig::default() };
    let idle = bench.create("idle", "true", with_volume).await.unwrap();
    let filters = |text: &str| Filters::parse(text).unwrap();
    let prune = |text: &str| bench.engine.container_prune(&bench.scope, filters(text));
    assert_eq!(prune(r#"{"label":["x"]}"#).await.unwrap().containers, []);
    assert_eq!(prune(r#"{"until":["1h"]}"#).await.unwrap().containers, []);
    assert_eq!(prune("").await.unwrap().containers, [idle]);
    assert!(bench.engine.containers.get(bench.scope.tenant(), "runs").is_ok());
    assert!(bench.engine.volume_inspect(&bench.scope, "kept").await.is_ok());
    assert_eq!(bench.actions().last().unwrap(), "prune");
    assert_eq!(prune(r#"{"dangling":["1"]}"#).await.unwrap_err().message(), "invalid filter 'dangling'");
}

#[tokio::test]
async fn prune_of_volumes_spares_names_users_and_options() {
    let bench = Bench::new().await;
    let make = |name: &str, options: &[(&str, &str)]| {
        let driver_opts = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request =
            VolumeRequest { name: name.to_owned(), driver_opts: Some(driver_opts), ..VolumeRequest::default() };
        bench.engine.volume_create(&bench.scope, request)
    };
    let anonymous = make("", &[]).await.unwrap();
    std::fs::write(anonymous.mountpoint.join("file"), "12345").unwrap();
    make("named", &[]).await.unwrap();
    make("mounted", &[("type", "tmpfs"), ("device", "tmpfs")]).await.unwrap();
    let with_volume = HostConfig { binds: Some(vec!["used:/v".to_owned()]), ..HostConfig::default() };
    bench.create("one", "true", with_volume).await.unwrap();
    let prune = |text: &str| bench.engine.volume_prune(&bench.scope, Filters::parse(text).unwrap());
    let pruned = prune("").await.unwrap();
    assert_eq!((pruned.volumes, pruned.reclaimed), (vec![anonymous.volume.name.clone()], 5));
    assert_eq!(prune(r#"{"all":["true"]}"#).await.unwrap().volumes, ["named"]);
}

#[tokio::test]
async fn stats_are_zeros_until_a_container_runs_and_end_with_it() {
    let bench = Bench::new().await;
    bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    let idle = bench.engine.container_stats(&bench.scope, "one", false).await.unwrap();
    assert!(idle.usage.is_none() && idle.read.is_zero());
    bench.start("one").await.unwrap();
    let once = bench.engine.container_stats(&bench.scope, "one", true).await.unwrap();
    assert!(once.cpu.usage.total > 0 && once.cpu.system > 0 && once.read_before.is_zero());
    let mut stream = std::pin::pin!(bench.engine.container_stats_stream(&bench.scope, "one").unwrap());
    let first = stream.next().await.unwrap();
    let second = stream.next().await.unwrap();
    assert_eq!((second.read_before, second.cpu_before), (first.read, first.cpu));
    let force = DeleteOptions { force: true, volumes: false };
    bench.engine.container_delete(&bench.scope, "one", force).await.unwrap();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_update_that_the_runtime_refuses_changes_nothing() {
    let bench = Bench::new().await;
    bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    let limit = |limit: i64| HostConfig { pids_limit: Some(limit), ..HostConfig::default() };
    let stored = || bench.engine.containers.get(bench.scope.tenant(), "one").unwrap().record().host_config.pids_limit;
    bench.engine.container_update(&bench.scope, "one", limit(50)).await.unwrap();
    assert_eq!(stored(), Some(50));
    bench.runtime.fail_next(Step::UpdateResources, ErrorKind::System, "no such cgroup");
    let error = bench.engine.container_update(&bench.scope, "one", limit(60)).await.unwrap_err();
    assert!(error.message().starts_with("Cannot update container "), "{error}");
    assert!(error.message().ends_with(": no such cgroup"), "{error}");
    assert_eq!(stored(), Some(50));
    assert_eq!(bench.actions().iter().filter(|action| *action == "update").count(), 1);
}

#[tokio::test]
async fn links_are_variables_and_names() {
    let bench = Bench::new().await;
    bench.create("db", "sleep 100", HostConfig::default()).await.unwrap();
    let linked = HostConfig { links: Some(vec!["db:my-db".to_owned()]), ..HostConfig::default() };
    bench.create("web", "sleep 100", linked).await.unwrap();
    let record = || bench.engine.containers.get(bench.scope.tenant(), "web").unwrap().record();
    let error = bench.start("web").await.unwrap_err();
    assert_eq!(error.message(), "Cannot link to a non running container: /db AS /web/my-db");
    bench.start("db").await.unwrap();
    let env = bench.engine.with_given_variables(record()).unwrap().config.env.clone().unwrap();
    assert!(env.contains(&"MY_DB_NAME=/web/my-db".to_owned()), "{env:?}");
    bench.start("web").await.unwrap();
    assert_eq!(bench.engine.shown_links(&record()), ["/db:/web/my-db"]);
    assert_eq!(bench.engine.link_names(&bench.scope), [("db".to_owned(), "/web/my-db".to_owned())]);
}

#[tokio::test]
async fn no_exec_begins_in_a_paused_container() {
    let bench = Bench::new().await;
    bench.create("one", "sleep 100", HostConfig::default()).await.unwrap();
    bench.start("one").await.unwrap();
    let request = ExecRequest { command: vec!["true".to_owned()], ..ExecRequest::default() };
    let exec = bench.exec("one", request).await;
    bench.engine.container_pause(&bench.scope, "one").await.unwrap();
    assert_eq!(bench.engine.exec_start(&exec, ExecStart::default()).await.err().unwrap().kind(), ErrorKind::Conflict);
}
