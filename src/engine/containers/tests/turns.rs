//! Verbs that come while another has the container's turn.

use std::sync::Arc;

use super::Bench;
use crate::{
    engine::{
        container::{Container, exec::ExecRequest},
        containers::{delete::DeleteOptions, stop::StopOptions, wait::WaitCondition},
    },
    model::{
        ErrorKind, Result,
        container::{
            Config, ContainerCreateRequest, ContainerRecord, ContainerState, HealthConfig, HostConfig, RestartMode,
            RestartPolicy,
        },
    },
};

/// More than any chain of tasks needs to come to the turn that it waits for.
const STEPS: usize = 50;

impl Bench {
    fn container(&self, name: &str) -> Arc<Container> {
        self.engine.containers.get(self.scope.tenant(), name).unwrap()
    }

    /// Runs all that can run, so that it waits for its turn. The runtime of these tests has one thread.
    async fn let_others_wait(&self) {
        for _ in 0..STEPS {
            tokio::task::yield_now().await;
        }
    }

    /// A start that is under way, as far as others can see: it waits for a turn, and who comes later waits behind it.
    async fn behind_a_start<T, F>(&self, verb: F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let turn = self.container("one").turn().await.unwrap();
        let (engine, tenant) = (self.engine.clone(), self.scope.clone());
        let start = tokio::spawn(async move { engine.container_start(&tenant, "one").await });
        self.let_others_wait().await;
        let verb = tokio::spawn(verb);
        self.let_others_wait().await;
        drop(turn);
        start.await.unwrap().expect("the start goes first");
        verb.await.unwrap()
    }

    /// Of a container that was made and never ran.
    async fn with_one(script: &str, host_config: HostConfig) -> Self {
        let bench = Self::new().await;
        bench.create("one", script, host_config).await.unwrap();
        bench
    }
}

fn always() -> HostConfig {
    let restart_policy = RestartPolicy { name: RestartMode::Always, ..RestartPolicy::default() };
    HostConfig { restart_policy, ..HostConfig::default() }
}

/// Ends a verb's future with what it has borrowed.
macro_rules! verb {
    ($bench:ident, |$engine:ident, $tenant:ident| $call:expr) => {{
        let ($engine, $tenant) = ($bench.engine.clone(), $bench.scope.clone());
        async move { $call.await }
    }};
}

#[tokio::test]
async fn what_is_gone_has_no_turn() {
    let bench = Bench::with_one("exit 0", HostConfig::default()).await;
    let container = bench.container("one");
    let turn = container.turn().await.unwrap();
    let waiting = tokio::spawn({
        let container = container.clone();
        async move { container.turn().await.map(drop) }
    });
    bench.let_others_wait().await;
    assert!(!waiting.is_finished());
    turn.publish_removed();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(container.turn_torn_down().await.is_err());
}

#[tokio::test]
async fn a_stop_behind_a_start_ends_what_was_started() {
    let bench = Bench::with_one("sleep 100", HostConfig::default()).await;
    let options = StopOptions { timeout: Some(0), ..StopOptions::default() };
    let stop = verb!(bench, |engine, tenant| engine.container_stop(&tenant, "one", options));
    bench.behind_a_start(stop).await.unwrap();
    assert!(!bench.container("one").state().is_running());
}

#[tokio::test]
async fn a_kill_behind_a_start_ends_what_was_started() {
    let bench = Bench::with_one("sleep 100", HostConfig::default()).await;
    let kill = verb!(bench, |engine, tenant| engine.container_kill(&tenant, "one", None));
    bench.behind_a_start(kill).await.unwrap();
    assert!(!bench.container("one").state().is_running());
}

#[tokio::test]
async fn an_exec_behind_a_start_can_be_made() {
    let bench = Bench::with_one("sleep 100", HostConfig::default()).await;
    let request = ExecRequest { command: vec!["true".to_owned()], ..ExecRequest::default() };
    let exec = verb!(bench, |engine, tenant| engine.container_exec(&tenant, "one", request));
    bench.behind_a_start(exec).await.unwrap();
}

#[tokio::test]
async fn a_wait_behind_a_start_waits_for_its_end() {
    let bench = Bench::with_one("exit 3", HostConfig::default()).await;
    let wait = verb!(bench, |engine, tenant| async {
        engine.container_wait(&tenant, "one", WaitCondition::NotRunning).await.unwrap().await.status_code
    });
    assert_eq!(bench.behind_a_start(wait).await, 3);
}

#[tokio::test]
async fn a_removal_behind_a_start_is_refused() {
    let bench = Bench::with_one("sleep 100", HostConfig::default()).await;
    let remove = verb!(bench, |engine, tenant| engine.container_delete(&tenant, "one", DeleteOptions::default()));
    assert_eq!(bench.behind_a_start(remove).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(bench.container("one").state().is_running());
}

#[tokio::test]
async fn a_second_start_is_told_that_it_runs() {
    let bench = Bench::with_one("sleep 100", HostConfig::default()).await;
    let start = verb!(bench, |engine, tenant| engine.container_start(&tenant, "one"));
    assert_eq!(bench.behind_a_start(start).await.unwrap_err().kind(), ErrorKind::NotModified);
}

#[tokio::test]
async fn a_restart_of_the_policy_that_was_called_off_while_it_waited_does_not_come() {
    let bench = Bench::with_one("exit 1", always()).await;
    bench.start("one").await.unwrap();
    let container = bench.container("one");
    container.wait_for(|snapshot| matches!(snapshot.record.state, ContainerState::Restarting(_))).await;
    let turn = container.turn_torn_down().await.unwrap();
    let again = tokio::spawn({
        let (engine, container) = (bench.engine.clone(), container.clone());
        async move { engine.start_again(&container).await }
    });
    bench.let_others_wait().await;
    bench.engine.cancel_restart(&turn).await;
    drop(turn);
    again.await.unwrap().unwrap();
    assert_eq!(container.state().as_str(), "exited");
}

#[tokio::test]
async fn restarts_at_once_leave_one_run() -> Result<()> {
    let bench = Bench::with_one("sleep 100", HostConfig { auto_remove: true, ..HostConfig::default() }).await;
    bench.start("one").await?;
    let options = || StopOptions { timeout: Some(0), ..StopOptions::default() };
    let restart = || bench.engine.container_restart(&bench.scope, "one", options());
    let (one, two, three) = tokio::join!(restart(), restart(), restart());
    one?;
    two?;
    three?;
    assert!(bench.container("one").state().is_running());
    Ok(())
}

#[tokio::test]
async fn a_stop_signal_that_cannot_be_sent_ends_in_a_kill() {
    let bench = Bench::new().await;
    let config = Config {
        image: "box".to_owned(),
        cmd: Some(["sh", "-c", "sleep 100"].map(str::to_owned).to_vec()),
        stop_signal: Some("-1".to_owned()),
        ..Default::default()
    };
    let request = ContainerCreateRequest { name: Some("one".to_owned()), config, ..Default::default() };
    bench.engine.container_create(&bench.scope, request).await.unwrap();
    bench.start("one").await.unwrap();
    bench.engine.container_stop(&bench.scope, "one", StopOptions::default()).await.unwrap();
    assert_eq!(bench.container("one").state().ended().unwrap().exit_code, 137);
}

#[tokio::test]
async fn health_checks_leave_no_exec_and_their_log_outlives_the_run() {
    let bench = Bench::new().await;
    // Each takes longer than it may.
    let check = HealthConfig {
        test: Some(["CMD", "sh", "-c", "sleep 100"].map(str::to_owned).to_vec()),
        interval: 1_000_000,
        timeout: 1_000_000,
        ..Default::default()
    };
    let config = Config {
        image: "box".to_owned(),
        cmd: Some(["sh", "-c", "sleep 100"].map(str::to_owned).to_vec()),
        healthcheck: Some(check),
        ..Default::default()
    };
    let request = ContainerCreateRequest { name: Some("one".to_owned()), config, ..Default::default() };
    bench.engine.container_create(&bench.scope, request).await.unwrap();
    bench.start("one").await.unwrap();
    let container = bench.container("one");
    let probes = |record: &ContainerRecord| record.health.as_ref().map_or(0, |health| health.log.len());
    container.wait_for(|snapshot| probes(&snapshot.record) == 5).await;
    assert!(
        bench.engine.execs.count(bench.scope.tenant()) <= 1,
        "{} execs are remembered",
        bench.engine.execs.count(bench.scope.tenant())
    );
    let options = StopOptions { timeout: Some(0), ..StopOptions::default() };
    bench.engine.container_restart(&bench.scope, "one", options).await.unwrap();
    assert_eq!(probes(&container.record()), 5);
}
