//! Execs by id. They live in memory and are readable until their container goes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    engine::{
        container::exec::{Exec, ExecState},
        room::{Place, Rooms},
        scoped::Scoped,
    },
    model::{
        Error, Result,
        id::{ContainerId, ExecId, TenantId},
        limits,
    },
};

/// How long an exec that has ended can still be asked for; dockerd forgets it after five to ten minutes.
const MEMORY: Duration = Duration::from_secs(10 * 60);

/// How many that have ended are remembered at most, of each tenant.
const REMEMBERED: usize = 4096;

/// All execs. A look-up sees those of its tenant and no others.
pub struct ExecStore {
    execs: Scoped<Execs>,
    rooms: Rooms,
}

impl Default for ExecStore {
    fn default() -> Self {
        Self { execs: Scoped::default(), rooms: Rooms::new("execs that have not ended", limits::EXECS, None) }
    }
}

#[derive(Default)]
struct Execs {
    /// Each with its place in its tenant's room.
    by_id: HashMap<ExecId, (Arc<Exec>, Place)>,
    /// Those that have ended, the first to be forgotten first. Some may be gone already.
    ended: VecDeque<(ExecId, Instant)>,
}

impl ExecStore {
    /// Adds one, if there is room for it beside those that have not ended: others make room.
    pub fn insert(&self, exec: Arc<Exec>) -> Result<()> {
        self.execs.add(&exec.tenant.clone(), |execs| {
            let place = loop {
                match self.rooms.take(&exec.tenant, exec.request.bytes()) {
                    Ok(place) => break place,
                    Err(full) => execs.forget_first_ended().ok_or(full)?,
                }
            };
            execs.by_id.insert(exec.id.clone(), (exec, place));
            Ok(())
        })
    }

    /// By its whole id.
    pub fn get(&self, tenant: &TenantId, id: &str) -> Result<Arc<Exec>> {
        let exec =
            self.execs.look(tenant, |execs| execs.by_id.get(&ExecId::from_stored(id)).map(|(exec, _)| exec.clone()));
        exec.ok_or_else(|| Error::no_such_exec(id))
    }

    /// Those of a container that have not ended, for `ExecIDs`.
    pub fn live_of(&self, tenant: &TenantId, container: &ContainerId) -> Vec<Arc<Exec>> {
        let live =
            |exec: &&Arc<Exec>| exec.container == *container && !matches!(*exec.state.borrow(), ExecState::Exited(_));
        self.execs.look(tenant, |execs| execs.by_id.values().map(|(exec, _)| exec).filter(live).cloned().collect())
    }

    /// Notes that one has ended: it is remembered for a while.
    pub fn end(&self, exec: &Exec, code: i64) {
        exec.state.send_replace(ExecState::Exited(code));
        self.execs.change(&exec.tenant, |execs| {
            execs.ended.push_back((exec.id.clone(), Instant::now()));
            execs.forget_old(MEMORY, REMEMBERED);
        });
    }

    /// Forgets one.
    pub fn forget(&self, exec: &Exec) {
        self.execs.change(&exec.tenant, |execs| execs.by_id.remove(&exec.id));
    }

    /// Forgets those of a container that has ended and that nobody has started, which nobody can any more.
    pub fn forget_unstarted(&self, tenant: &TenantId, container: &ContainerId) {
        let is_unstarted = |exec: &Exec| matches!(*exec.state.borrow(), ExecState::Created);
        self.execs.change(tenant, |execs| {
            execs.by_id.retain(|_, (exec, _)| exec.container != *container || !is_unstarted(exec));
        });
    }

    /// Forgets those of a container that is gone.
    pub fn forget_container(&self, tenant: &TenantId, container: &ContainerId) {
        self.execs.change(tenant, |execs| execs.by_id.retain(|_, (exec, _)| exec.container != *container));
    }

    /// Forgets a tenant that is gone.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.execs.forget(tenant);
        self.rooms.forget(tenant);
    }

    /// How many a tenant has.
    #[cfg(test)]
    pub fn count(&self, tenant: &TenantId) -> usize {
        self.execs.look(tenant, |execs| execs.by_id.len())
    }
}

impl Execs {
    /// `None` if none has ended.
    fn forget_first_ended(&mut self) -> Option<()> {
        let (id, _) = self.ended.pop_front()?;
        self.by_id.remove(&id);
        Some(())
    }

    fn forget_old(&mut self, memory: Duration, most: usize) {
        while let Some((id, at)) = self.ended.front()
            && (self.ended.len() > most || at.elapsed() > memory)
        {
            self.by_id.remove(id);
            self.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::engine::container::exec::ExecRequest;

    fn exec(store: &ExecStore) -> Arc<Exec> {
        let exec = Arc::new(Exec {
            id: ExecId::random(),
            tenant: TenantId::default_tenant(),
            container: ContainerId::random(),
            request: ExecRequest::default(),
            state: watch::Sender::new(ExecState::Created),
        });
        store.insert(exec.clone()).unwrap();
        exec
    }

    #[test]
    fn those_that_have_not_ended_have_a_limit_and_others_make_room() {
        let store = ExecStore::default();
        let one = |length: usize| {
            let request = ExecRequest { env: vec!["x".repeat(length)], ..ExecRequest::default() };
            Arc::new(Exec {
                id: ExecId::random(),
                tenant: TenantId::default_tenant(),
                container: ContainerId::random(),
                request,
                state: watch::Sender::new(ExecState::Created),
            })
        };
        let (first, second) = (one(limits::EXECS / 2), one(limits::EXECS / 4));
        store.insert(first.clone()).unwrap();
        store.insert(second).unwrap();
        assert!(store.insert(one(limits::EXECS / 2)).is_err());
        store.end(&first, 0);
        store.insert(one(limits::EXECS / 2)).unwrap();
        assert_eq!(store.count(&TenantId::default_tenant()), 2);
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
        assert_eq!(store.count(&first.tenant), REMEMBERED + 1);
        store.execs.change(&first.tenant, |execs| execs.forget_old(Duration::ZERO, REMEMBERED));
        assert_eq!(store.count(&first.tenant), 1);
        store.forget_unstarted(&waits.tenant, &waits.container);
        assert_eq!(store.count(&first.tenant), 0);
    }
}
