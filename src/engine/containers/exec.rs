//! Execs: further processes in a running container. They live in memory and are readable until the container goes.

mod process;
mod start;

pub use process::ExecView;
pub use start::ExecStart;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::ContainerState,
        id::{ContainerId, ExecId, TenantId},
    },
    policy::Asked,
};

/// How long an exec that has ended can still be asked for; dockerd forgets it after five to ten minutes.
const MEMORY: Duration = Duration::from_secs(10 * 60);

/// How many that have ended are remembered at most.
const REMEMBERED: usize = 4096;

/// The body of `POST /containers/{id}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=value`, over the container's.
    pub env: Vec<String>,
    /// Where it starts; empty is the container's.
    pub working_dir: String,
    /// User; empty is the container's.
    pub user: String,
    /// With a terminal.
    pub tty: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Whether the client will write input.
    pub attach_stdin: bool,
    /// Whether the client reads output.
    pub attach_stdout: bool,
    /// Whether the client reads errors.
    pub attach_stderr: bool,
    /// Keys that detach; empty is ctrl-p,ctrl-q.
    pub detach_keys: String,
    /// Height and width of the terminal.
    pub console_size: Option<(u32, u32)>,
}

/// Where an exec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// Not started.
    Created,
    /// A start is under way.
    Starting,
    /// Runs as this process of the host.
    Running(u32),
    /// Has ended.
    Exited(i64),
}

/// One exec.
pub struct Exec {
    /// Its id.
    pub id: ExecId,
    /// Whose.
    pub tenant: TenantId,
    /// Where it runs.
    pub container: ContainerId,
    /// What was asked for.
    pub request: ExecRequest,
    /// Where it stands.
    pub state: watch::Sender<ExecState>,
}

/// All execs.
#[derive(Default)]
pub struct ExecStore(Mutex<Execs>);

#[derive(Default)]
struct Execs {
    by_id: HashMap<ExecId, Arc<Exec>>,
    /// Those that have ended, the first to be forgotten first. Some may be gone already.
    ended: VecDeque<(ExecId, Instant)>,
}

impl ExecStore {
    fn lock(&self) -> MutexGuard<'_, Execs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub fn insert(&self, exec: Arc<Exec>) {
        self.lock().by_id.insert(exec.id.clone(), exec);
    }

    /// By its whole id.
    pub fn get(&self, tenant: &TenantId, id: &str) -> Result<Arc<Exec>> {
        let execs = self.lock();
        let exec = execs.by_id.get(&ExecId::from_stored(id)).filter(|exec| exec.tenant == *tenant);
        exec.cloned().ok_or_else(|| Error::no_such_exec(id))
    }

    /// Those of a container that have not ended, for `ExecIDs`.
    pub fn live_of(&self, container: &ContainerId) -> Vec<Arc<Exec>> {
        let live =
            |exec: &&Arc<Exec>| exec.container == *container && !matches!(*exec.state.borrow(), ExecState::Exited(_));
        self.lock().by_id.values().filter(live).cloned().collect()
    }

    /// Notes that one has ended: it is remembered for a while.
    pub fn end(&self, exec: &Exec, code: i64) {
        exec.state.send_replace(ExecState::Exited(code));
        let mut execs = self.lock();
        execs.ended.push_back((exec.id.clone(), Instant::now()));
        execs.forget_old(MEMORY, REMEMBERED);
    }

    /// Forgets one.
    pub fn forget(&self, id: &ExecId) {
        self.lock().by_id.remove(id);
    }

    /// Forgets those of a container that has ended and that nobody has started, which nobody can any more.
    pub fn forget_unstarted(&self, container: &ContainerId) {
        self.lock()
            .by_id
            .retain(|_, exec| exec.container != *container || !matches!(*exec.state.borrow(), ExecState::Created));
    }

    /// Forgets those of a container that is gone.
    pub fn forget_container(&self, container: &ContainerId) {
        self.lock().by_id.retain(|_, exec| exec.container != *container);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().by_id.len()
    }
}

impl Execs {
    fn forget_old(&mut self, memory: Duration, most: usize) {
        while let Some((id, at)) = self.ended.front()
            && (self.ended.len() > most || at.elapsed() > memory)
        {
            self.by_id.remove(id);
            self.ended.pop_front();
        }
    }
}

impl Engine {
    /// Prepares an exec; nothing runs yet. A user of the request's own must be known in the container.
    pub async fn container_exec(&self, scope: &Scope, reference: &str, request: ExecRequest) -> Result<ExecId> {
        let container = self.containers.get(scope.tenant(), reference)?;
        scope.permit(Asked::Exec { privileged: request.privileged })?;
        Ok(self.prepare_exec(&container, reference, request).await?.id.clone())
    }

    /// The same in a container that was found by `reference`.
    pub(crate) async fn prepare_exec(
        &self,
        container: &Arc<Container>,
        reference: &str,
        request: ExecRequest,
    ) -> Result<Arc<Exec>> {
        // A turn for the look alone: what holds it up long is no matter of an exec that is under way.
        can_exec(&container.turn().await?, reference)?;
        if request.command.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        super::session::detach_keys(&request.detach_keys, "escape")?;
        if !request.user.is_empty() {
            self.resolve_user(container, &request.user).await?;
        }
        let record = container.record();
        let exec = Arc::new(Exec {
            id: ExecId::random(),
            tenant: record.tenant.clone(),
            container: container.id().clone(),
            request,
            state: watch::Sender::new(ExecState::Created),
        });
        let action = format!("exec_create: {}", command_line(&exec.request.command));
        self.events.container(&record, action, &[("execID", exec.id.to_string())]);
        self.execs.insert(exec.clone());
        Ok(exec)
    }
}

/// Whether the container is one in which something can be run, as dockerd says it of a container called `name`.
fn can_exec(turn: &Turn, name: &str) -> Result<()> {
    let id = turn.id();
    match turn.state() {
        ContainerState::Running(_) => Ok(()),
        ContainerState::Paused(_) => Err(Error::is_paused(name)),
        ContainerState::Restarting(_) => {
            Err(Error::conflict(format!("Container {id} is restarting, wait until the container is running")))
        }
        _ => Err(Error::not_running(id.as_str())),
    }
}

/// A command as events tell it: the program, a space, the arguments; dockerd keeps the space without any.
pub(super) fn command_line(command: &[String]) -> String {
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    format!("{program} {}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(store: &ExecStore) -> Arc<Exec> {
        let exec = Arc::new(Exec {
            id: ExecId::random(),
            tenant: TenantId::default_tenant(),
            container: ContainerId::random(),
            request: ExecRequest::default(),
            state: watch::Sender::new(ExecState::Created),
        });
        store.insert(exec.clone());
        exec
    }

    #[test]
    fn of_those_that_ended_only_the_latest_are_remembered() {
        let store = ExecStore::default();
        let waits = exec(&store);
        let first = exec(&store);
        store.end(&first, 3);
        assert!(store.get(&first.tenant, first.id.as_str()).is_ok());
        for _ in 0..REMEMBERED {
            store.end(&exec(&store), 0);
        }
        assert!(store.get(&first.tenant, first.id.as_str()).is_err());
        assert_eq!(store.count(), REMEMBERED + 1);
        store.lock().forget_old(Duration::ZERO, REMEMBERED);
        assert_eq!(store.count(), 1);
        store.forget_unstarted(&waits.container);
        assert_eq!(store.count(), 0);
    }
}
