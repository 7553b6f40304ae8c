//! What tenants have, apart from each other: whoever looks for something names the tenant first, and finds no other's.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::model::id::TenantId;

/// For each tenant what it has of one kind: containers, execs, networks, volumes, events. A tenant that was never given anything has
/// the default, which is nothing.
#[derive(Debug, Default)]
pub struct Scoped<T>(Mutex<HashMap<TenantId, T>>);

impl<T: Default> Scoped<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what a tenant has.
    pub fn look<R>(&self, tenant: &TenantId, look: impl FnOnce(&T) -> R) -> R {
        match self.lock().get(tenant) {
            Some(own) => look(own),
            None => look(&T::default()),
        }
    }

    /// Changes what a tenant has; a change of one that has nothing leaves no trace of it, as after [`Scoped::forget`].
    pub fn change<R>(&self, tenant: &TenantId, change: impl FnOnce(&mut T) -> R) -> R {
        match self.lock().get_mut(tenant) {
            Some(own) => change(own),
            None => change(&mut T::default()),
        }
    }

    /// Changes what a tenant has, so that it may have something from now on.
    pub fn add<R>(&self, tenant: &TenantId, add: impl FnOnce(&mut T) -> R) -> R {
        add(self.lock().entry(tenant.clone()).or_default())
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&self, tenant: &TenantId) {
        self.lock().remove(tenant);
    }

    /// Tenants that have what is asked for.
    pub fn tenants_where(&self, has: impl Fn(&T) -> bool) -> BTreeSet<TenantId> {
        self.lock().iter().filter(|(_, own)| has(own)).map(|(tenant, _)| tenant.clone()).collect()
    }

    /// Looks at all tenants: for the daemon's start and end, and for what this daemon named itself. Never for what a client names.
    pub fn look_at_all<R>(&self, look: impl FnOnce(&HashMap<TenantId, T>) -> R) -> R {
        look(&self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_finds_its_own_alone() {
        let scoped = Scoped::<Vec<u8>>::default();
        let (one, other): (TenantId, TenantId) = ("x".parse().unwrap(), "x-build".parse().unwrap());
        scoped.add(&one, |own| own.push(1));
        assert_eq!((scoped.look(&one, Vec::len), scoped.look(&other, Vec::len)), (1, 0));
        scoped.change(&other, |own| own.push(2));
        assert_eq!(scoped.look_at_all(HashMap::len), 1, "who has nothing is not known");
        scoped.forget(&one);
        scoped.change(&one, |own| own.push(3));
        assert_eq!(scoped.look_at_all(HashMap::len), 0, "who is gone does not come back by a change");
    }
}
