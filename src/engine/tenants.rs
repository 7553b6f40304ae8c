//! Who asks: the tenant behind a socket, what it has of its own, and the scope that every verb takes first.
//!
//! Records, labels and backends know a tenant by its id alone; what is decided needs the [`Scope`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    engine::Engine,
    model::{Error, Result, caller::Caller, id::TenantId},
};

/// One tenant: everything that is its alone and lies in no record.
#[derive(Debug)]
pub struct Tenant {
    id: TenantId,
}

impl Tenant {
    fn new(id: TenantId) -> Self {
        Self { id }
    }

    /// What records, labels and backends call it.
    pub fn id(&self) -> &TenantId {
        &self.id
    }
}

/// Whose things a verb works on, and who asked for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scope {
    tenant: Arc<Tenant>,
    caller: Caller,
}

impl Scope {
    /// A request of `caller`.
    pub fn new(tenant: Arc<Tenant>, caller: Caller) -> Self {
        Self { tenant, caller }
    }

    /// The tenant's id.
    pub fn tenant(&self) -> &TenantId {
        self.tenant.id()
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// All tenants that this daemon has now.
#[derive(Debug, Default)]
pub struct Tenants(Mutex<BTreeMap<TenantId, Arc<Tenant>>>);

impl Tenants {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Arc<Tenant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a tenant, unless it is there already.
    pub fn add(&self, id: &TenantId) -> Arc<Tenant> {
        self.lock().entry(id.clone()).or_insert_with(|| Arc::new(Tenant::new(id.clone()))).clone()
    }

    /// Forgets a tenant: from now on nobody asks in its name. What it had must be removed before.
    pub fn remove(&self, id: &TenantId) {
        self.lock().remove(id);
    }

    /// A tenant by its id.
    pub fn get(&self, id: &TenantId) -> Result<Arc<Tenant>> {
        self.lock().get(id).cloned().ok_or_else(|| Error::no_such_tenant(id))
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Tenant>> {
        self.lock().values().cloned().collect()
    }
}

impl Engine {
    /// The scope in which the daemon itself works for a tenant.
    pub fn scope_of(&self, tenant: &TenantId) -> Result<Scope> {
        Ok(Scope::new(self.tenants.get(tenant)?, Caller::Daemon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_for_a_tenant_that_is_gone() {
        let (tenants, id) = (Tenants::default(), "x".parse().unwrap());
        let first = tenants.add(&id);
        assert!(Arc::ptr_eq(&first, &tenants.add(&id)), "a tenant is made once");
        assert!(tenants.get(&"x-build".parse().unwrap()).is_err());
        tenants.remove(&id);
        assert_eq!(tenants.get(&id).unwrap_err().message(), "no such tenant: x");
        assert!(tenants.list().is_empty());
    }
}
