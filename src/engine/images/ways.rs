//! From where registries and other servers are asked in the name of a tenant: from its host, so that what is fetched for a job meets the
//! walls around it, and finds what the job itself has published there.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{
    engine::{
        Engine,
        tenants::{Scope, Tenant},
    },
    model::{Result, id::TenantId},
    registry::{Outlet, Registry},
};

impl Engine {
    /// The client of registries for a tenant. What its operator has configured is asked from the machine: mirrors (of its policy too), registries that are
    /// listed as insecure, those of the images and credentials of its configuration; so is everything for a job's runner, whose image is the operator's.
    pub(crate) async fn registry_for(&self, scope: &Scope) -> Result<Arc<Registry>> {
        let tenant = scope.as_tenant();
        if tenant.id().served().is_some() {
            return Ok(self.images.registry.clone());
        }
        let open = async || {
            let registry = self.images.registry.with_mirrors(self.mirrors_of(tenant))?;
            let Some(outlet) = outlet_of(tenant).await? else { return Ok(Arc::new(registry)) };
            Ok(Arc::new(registry.through(outlet, tenant.named_registries())))
        };
        tenant.registry().get_or_try_init(open).await.cloned()
    }

    /// By which requests go out as a job's own; `None` where the machine's network is its own.
    pub async fn job_outlet(&self, job: &TenantId) -> Result<Option<Outlet>> {
        let tenant = self.tenants.get(job)?;
        outlet_of(&tenant).await
    }

    /// The mirrors of Docker Hub that a tenant's policy leaves it or names, else the daemon's.
    pub(crate) fn mirrors_of(&self, tenant: &Tenant) -> Vec<String> {
        tenant.policy().mirrors(&self.config.registry_mirrors)
    }
}

async fn outlet_of(tenant: &Tenant) -> Result<Option<Outlet>> {
    let runtime = tenant.network().runtime().await?;
    let of = |runtime| Outlet { runtime, machine: Handle::current(), hosts: tenant.surroundings().hosts.clone() };
    Ok(runtime.map(of))
}
