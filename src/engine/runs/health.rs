//! Health checks of a running container.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::start::checks_health;
use crate::{
    engine::{
        Engine,
        container::{
            Container,
            exec::{Exec, ExecRequest, ExecStart, ExecState},
        },
    },
    model::{
        Result,
        container::{Config, ContainerState, HealthConfig, HealthProbe, HealthStatus},
        signal::Signal,
        time::Timestamp,
    },
};

/// How many checks inspect shows.
const LOG_LENGTH: usize = 5;

/// Bytes of output that are kept of a check.
const LONGEST_OUTPUT: usize = 4096;

/// Nanoseconds, where neither image nor client says otherwise.
const DEFAULT_INTERVAL: i64 = 30_000_000_000;
const DEFAULT_TIMEOUT: i64 = 30_000_000_000;
const DEFAULT_START_INTERVAL: i64 = 5_000_000_000;
const DEFAULT_RETRIES: i64 = 3;

impl Engine {
    /// Checks the container's health until it ends, if it has a check.
    pub(crate) fn start_health_checks(&self, container: &Arc<Container>) {
        let record = container.record();
        let Some(check) = record.config.healthcheck.clone().filter(|_| checks_health(&record)) else { return };
        let engine = self.clone();
        let checked = container.clone();
        let task = self.spawn_joined("health", async move { engine.check_health(&checked, &check).await });
        container.set_health_task(Some(task.abort_handle()));
    }

    /// Ends the checks of a run.
    pub(crate) fn stop_health_checks(&self, container: &Container) {
        container.set_health_task(None);
    }

    async fn check_health(&self, container: &Arc<Container>, check: &HealthConfig) {
        let began = Instant::now();
        let start_period = or_default(check.start_period, 0);
        loop {
            let starting = began.elapsed() < start_period && status(container) == Some(HealthStatus::Starting);
            let pause = match starting {
                true if check.start_interval > 0 => or_default(check.start_interval, DEFAULT_START_INTERVAL),
                // Clients before API 1.44 know no start interval; dockerd then uses its default within the period.
                true => or_default(check.start_interval, DEFAULT_START_INTERVAL)
                    .min(or_default(check.interval, DEFAULT_INTERVAL)),
                false => or_default(check.interval, DEFAULT_INTERVAL),
            };
            sleep(pause).await;
            container.wait_for(|now| !matches!(now.record.state, ContainerState::Paused(_))).await;
            let probe = self.probe(container, check).await;
            let forgiven = began.elapsed() < start_period;
            self.record_probe(container, check, probe, forgiven).await;
        }
    }

    async fn probe(&self, container: &Arc<Container>, check: &HealthConfig) -> HealthProbe {
        let start = Timestamp::now();
        let limit = or_default(check.timeout, DEFAULT_TIMEOUT);
        let mut output = BytesMut::new();
        let result = self.run_check(container, check, limit, &mut output).await;
        if output.len() > LONGEST_OUTPUT {
            output.truncate(LONGEST_OUTPUT);
            output.extend_from_slice(b"...");
        }
        let (exit_code, output) = match result {
            Ok(Some(code)) => (code, String::from_utf8_lossy(&output).into_owned()),
            Ok(None) => (-1, format!("Health check exceeded timeout ({})", go_duration(limit))),
            Err(error) => (-1, error.chain()),
        };
        HealthProbe { start, end: Timestamp::now(), exit_code, output }
    }

    /// Runs the check; `None` if it took too long.
    async fn run_check(
        &self,
        container: &Arc<Container>,
        check: &HealthConfig,
        limit: Duration,
        output: &mut BytesMut,
    ) -> Result<Option<i64>> {
        let record = container.record();
        let request = ExecRequest {
            command: check_command(check, &record.config),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecRequest::default()
        };
        let exec = self.prepare_exec(container, record.id.as_str(), request).await?;
        let _forgotten = Forgotten { engine: self, exec: &exec };
        let mut session = self.exec_start(&exec, ExecStart::default()).await?;
        let read = async {
            while let Some((_, bytes)) = session.output.recv().await {
                if output.len() <= LONGEST_OUTPUT {
                    output.extend_from_slice(&bytes);
                }
            }
        };
        if timeout(limit, read).await.is_err() {
            let killed =
                self.backends.runtime.kill(&exec.container, Some(&exec.id), Signal::KILL.number(), false).await;
            debug!("killing a health check that took too long: {killed:?}");
            return Ok(None);
        }
        let code = match *exec.state.borrow() {
            ExecState::Exited(code) => code,
            _ => -1,
        };
        Ok(Some(code))
    }

    async fn record_probe(&self, container: &Arc<Container>, check: &HealthConfig, probe: HealthProbe, forgiven: bool) {
        let Ok(turn) = container.turn().await else { return };
        let before = status(&turn);
        let retries = if check.retries > 0 { check.retries } else { DEFAULT_RETRIES };
        turn.update(|record| {
            let runs = matches!(record.state, ContainerState::Running(_));
            let Some(health) = record.health.as_mut().filter(|_| runs) else { return };
            if probe.exit_code == 0 {
                health.failing_streak = 0;
                health.status = HealthStatus::Healthy;
            } else if !(forgiven && health.status == HealthStatus::Starting) {
                health.failing_streak += 1;
                if health.failing_streak >= retries {
                    health.status = HealthStatus::Unhealthy;
                }
            }
            if health.log.len() == LOG_LENGTH {
                health.log.remove(0);
            }
            health.log.push(probe);
        });
        let after = status(&turn);
        if before != after
            && let Some(after) = after
        {
            self.events.container(&turn.record(), format!("health_status: {}", after.as_str()), &[]);
        }
    }
}

/// Forgets the exec of a check, however the check ends: also when it takes too long, cannot be started, or ends with its
/// container.
struct Forgotten<'a> {
    engine: &'a Engine,
    exec: &'a Exec,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.engine.execs.forget(self.exec);
    }
}

fn status(container: &Container) -> Option<HealthStatus> {
    container.record().health.as_ref().map(|health| health.status)
}

fn or_default(nanos: i64, default: i64) -> Duration {
    Duration::from_nanos(u64::try_from(if nanos > 0 { nanos } else { default }).unwrap_or(0))
}

/// `CMD` is the rest as it stands, `CMD-SHELL` a line for the shell.
fn check_command(check: &HealthConfig, config: &Config) -> Vec<String> {
    let test = check.test.as_deref().unwrap_or_default();
    match test.split_first() {
        Some((kind, line)) if kind == "CMD-SHELL" => {
            let shell = config.shell.clone().filter(|shell| !shell.is_empty());
            let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            command.extend(line.iter().take(1).cloned());
            command
        }
        Some((kind, command)) if kind == "CMD" => command.to_vec(),
        _ => test.to_vec(),
    }
}

/// `1m30s`, `2s`, `500ms`, as Go prints durations of these sizes.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = (millis % 60_000) as f64 / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_form_takes_the_containers_shell() {
        let check =
            HealthConfig { test: Some(vec!["CMD-SHELL".to_owned(), "exit 1".to_owned()]), ..HealthConfig::default() };
        assert_eq!(check_command(&check, &Config::default()), ["/bin/sh", "-c", "exit 1"]);
        let config = Config { shell: Some(vec!["/bin/bash".to_owned(), "-ec".to_owned()]), ..Config::default() };
        assert_eq!(check_command(&check, &config), ["/bin/bash", "-ec", "exit 1"]);
    }

    #[test]
    fn durations_read_as_gos() {
        assert_eq!(go_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(go_duration(Duration::from_millis(1500)), "1.5s");
        assert_eq!(go_duration(Duration::from_millis(500)), "500ms");
    }
}
