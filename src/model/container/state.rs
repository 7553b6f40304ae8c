//! The state machine of a container. A state changes only through the methods here.

use serde::{Deserialize, Serialize};

use crate::model::{Error, Result, time::Timestamp};

/// A container whose first process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Process number on the host.
    pub pid: u32,
    /// Since when.
    pub started_at: Timestamp,
    /// When it last ended, if it ran before.
    pub last_finished_at: Timestamp,
}

/// How a container's last run went; all zero for one that never ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Exit code, 128 + signal for a killed one.
    pub exit_code: i64,
    /// Whether the kernel killed one of its processes for want of memory.
    pub oom_killed: bool,
    /// Why it could not be started; empty if it could.
    pub error: String,
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum ContainerState {
    /// Never ran; a failed start leaves its reason here.
    Created(Ended),
    /// Runs.
    Running(Live),
    /// Frozen.
    Paused(Live),
    /// Ended; the restart policy will start it again.
    Restarting(Ended),
    /// Ended.
    Exited(Ended),
    /// Being taken away.
    Removing(Ended),
    /// Could not be taken away.
    Dead(Ended),
}

impl ContainerState {
    /// Of a container that was just made.
    pub fn created() -> Self {
        Self::Created(Ended::default())
    }

    /// `State.Status`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing(_) => "removing",
            Self::Dead(_) => "dead",
        }
    }

    /// Whether there is a process (`State.Running`; true while paused).
    pub fn is_running(&self) -> bool {
        self.live().is_some()
    }

    /// Whether Docker counts it among the running ones: with a process, or about to have one again.
    pub fn counts_as_running(&self) -> bool {
        self.is_running() || matches!(self, Self::Restarting(_))
    }

    /// The process, if there is one.
    pub fn live(&self) -> Option<&Live> {
        match self {
            Self::Running(live) | Self::Paused(live) => Some(live),
            _ => None,
        }
    }

    /// How the last run went; `None` while there is a process.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            Self::Created(ended)
            | Self::Restarting(ended)
            | Self::Exited(ended)
            | Self::Removing(ended)
            | Self::Dead(ended) => Some(ended),
            Self::Running(_) | Self::Paused(_) => None,
        }
    }

    /// Whether there ever was a process.
    pub fn has_run(&self) -> bool {
        self.ended().is_none_or(|ended| !ended.started_at.is_zero())
    }

    /// Whether it is being taken away or gone half.
    pub fn is_removing(&self) -> bool {
        matches!(self, Self::Removing(_) | Self::Dead(_))
    }

    /// Whether a start may begin. `NotModified` for one that runs.
    pub fn can_start(&self) -> Result<()> {
        match self {
            Self::Created(_) | Self::Exited(_) | Self::Restarting(_) => Ok(()),
            Self::Running(_) => Err(Error::not_modified("container is already running")),
            Self::Paused(_) => Err(Error::conflict("cannot start a paused container, try unpause instead")),
            Self::Removing(_) | Self::Dead(_) => Err(Error::marked_for_removal()),
        }
    }

    /// The first process runs.
    pub fn start(&self, pid: u32, at: Timestamp) -> Result<Self> {
        self.can_start()?;
        let last_finished_at = self.ended().map(|ended| ended.finished_at).unwrap_or_default();
        Ok(Self::Running(Live { pid, started_at: at, last_finished_at }))
    }

    /// It could not be started. One that never ran stays `created`, as with dockerd.
    #[must_use]
    pub fn fail_start(&self, exit_code: i64, error: &str) -> Self {
        let mut ended = self.ended().cloned().unwrap_or_default();
        ended.exit_code = exit_code;
        error.clone_into(&mut ended.error);
        match self {
            Self::Created(_) => Self::Created(ended),
            _ => Self::Exited(ended),
        }
    }

    /// Its processes are frozen.
    pub fn pause(&self, id: &str) -> Result<Self> {
        match self {
            Self::Running(live) => Ok(Self::Paused(live.clone())),
            Self::Paused(_) => Err(Error::conflict(format!("Container {id} is already paused"))),
            Self::Restarting(_) => {
                Err(Error::conflict(format!("Container {id} is restarting, wait until the container is running")))
            }
            _ => Err(Error::not_running(id)),
        }
    }

    /// They run again.
    pub fn unpause(&self, id: &str) -> Result<Self> {
        match self {
            Self::Paused(live) => Ok(Self::Running(live.clone())),
            // 500 in dockerd too.
            _ => Err(Error::system(format!("Container {id} is not paused"))),
        }
    }

    /// The first process has ended.
    #[must_use]
    pub fn exit(&self, exit_code: i64, at: Timestamp, oom_killed: bool) -> Self {
        let started_at = self.live().map(|live| live.started_at).unwrap_or_default();
        Self::Exited(Ended { started_at, finished_at: at, exit_code, oom_killed, error: String::new() })
    }

    /// The restart policy will start it again.
    #[must_use]
    pub fn await_restart(&self) -> Self {
        match self {
            Self::Exited(ended) => Self::Restarting(ended.clone()),
            other => other.clone(),
        }
    }

    /// The restart policy was called off.
    #[must_use]
    pub fn cancel_restart(&self) -> Self {
        match self {
            Self::Restarting(ended) => Self::Exited(ended.clone()),
            other => other.clone(),
        }
    }

    /// A removal that a daemon's end broke off can begin again.
    #[must_use]
    pub fn reopen_removal(&self) -> Self {
        match self {
            Self::Removing(ended) | Self::Dead(ended) => Self::Exited(ended.clone()),
            other => other.clone(),
        }
    }

    /// It is being taken away.
    pub fn begin_removal(&self, named: &str) -> Result<Self> {
        match self {
            Self::Created(ended) | Self::Exited(ended) | Self::Dead(ended) | Self::Restarting(ended) => {
                Ok(Self::Removing(ended.clone()))
            }
            Self::Removing(_) => Err(Error::removal_in_progress(named)),
            Self::Running(_) | Self::Paused(_) => Err(Error::conflict(format!("container {named} is running"))),
        }
    }
}

/// `State.Health.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    Starting,
    /// The last check passed.
    Healthy,
    /// Too many checks in a row failed, or the container ended.
    Unhealthy,
}

impl HealthStatus {
    /// The word in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One run of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthProbe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 passed, 1 failed, -1 could not be run or took too long.
    pub exit_code: i64,
    /// The first 4096 bytes.
    pub output: String,
}

/// `State.Health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last five checks.
    pub log: Vec<HealthProbe>,
}

impl Health {
    /// Before the first check.
    pub fn starting() -> Self {
        Self { status: HealthStatus::Starting, failing_streak: 0, log: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    fn running() -> ContainerState {
        ContainerState::created().start(7, Timestamp::now()).unwrap()
    }

    #[test]
    fn start_of_running_container_is_not_modified() {
        assert_eq!(running().can_start().unwrap_err().kind(), ErrorKind::NotModified);
    }

    #[test]
    fn start_of_paused_container_is_conflict() {
        let state = running().pause("x").unwrap();
        assert_eq!(state.can_start().unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn failed_first_start_stays_created() {
        let state = ContainerState::created().fail_start(127, "no such file");
        assert_eq!(state.as_str(), "created");
        assert_eq!(state.ended().unwrap().exit_code, 127);
    }

    #[test]
    fn second_removal_is_conflict() {
        let state = ContainerState::created().begin_removal("x").unwrap();
        assert_eq!(state.begin_removal("x").unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn exit_keeps_the_start_time() {
        let state = running();
        let started_at = state.live().unwrap().started_at;
        assert_eq!(state.exit(3, Timestamp::now(), false).ended().unwrap().started_at, started_at);
    }
}
