//! Volumes: verbs. `store` keeps the records, `local` knows the driver's options, `usage` serves containers.

mod local;
mod prune;
pub(crate) mod store;
mod usage;

use std::{path::PathBuf, sync::Arc};

use indexmap::IndexMap;

pub(crate) use local::LocalMount;
pub use prune::VolumesPruned;
pub use store::VolumeStore;
pub(crate) use usage::VolumeUse;

use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        container::{ContainerRecord, MountKind},
        event::EventType,
        filters::Filters,
        id::TenantId,
        volume::{Volume, VolumeRequest},
    },
    policy::Asked,
};

/// The one driver.
pub const LOCAL: &str = "local";

/// A volume and where its content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// What is stored of it.
    pub volume: Arc<Volume>,
    /// The folder of its content.
    pub mountpoint: PathBuf,
}

impl Engine {
    /// Makes a volume, or answers the one that has the name already.
    pub async fn volume_create(&self, scope: &Scope, request: VolumeRequest) -> Result<VolumeInfo> {
        if let Some(options) = &request.driver_opts {
            scope.permit(Asked::VolumeCreate(options))?;
        }
        let (engine, scope) = (self.clone(), scope.clone());
        self.run("volume_create", async move { Ok(engine.use_volume(&scope, request).await?.info()) }).await
    }

    /// A volume by its name.
    pub async fn volume_inspect(&self, scope: &Scope, name: &str) -> Result<VolumeInfo> {
        self.volumes.get(scope.tenant(), name).ok_or_else(|| Error::no_such_volume(name))
    }

    /// All volumes that the filters (`name`, `label`, `dangling`, `driver`) let through, by name.
    pub async fn volume_list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<VolumeInfo>> {
        filters.allow_only(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let containers = self.container_records(scope.tenant());
        let is_wanted = |info: &VolumeInfo| {
            let volume = &info.volume;
            filters.matches_pattern("name", &volume.name)
                && filters.matches_exact("driver", LOCAL)
                && filters.matches_labels(|key| volume.label(key))
                && dangling.is_none_or(|dangling| dangling == users(&containers, &volume.name).is_empty())
        };
        Ok(self.volumes.list(scope.tenant()).into_iter().filter(is_wanted).collect())
    }

    /// Removes a volume that no container has. With `force`, one that is not there is success.
    pub async fn volume_delete(&self, scope: &Scope, name: &str, force: bool) -> Result<()> {
        self.delete_volume(scope.tenant(), name, force).await
    }

    /// The same of a tenant, in the daemon's own name.
    pub(crate) async fn delete_volume(&self, tenant: &TenantId, name: &str, force: bool) -> Result<()> {
        let (engine, tenant, name) = (self.clone(), tenant.clone(), name.to_owned());
        let removed = self.run("volume_delete", async move { engine.remove_volume(&tenant, &name).await }).await;
        match removed {
            Err(error) if force && error.kind() == crate::model::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn remove_volume(&self, tenant: &TenantId, name: &str) -> Result<()> {
        // What a container has mounted over the folder must be gone before the folder is.
        let _mounting = self.volumes.mounting(tenant, name).await;
        let changing = self.volumes.change().await;
        if self.volumes.get(tenant, name).is_none() {
            return Err(Error::no_such_volume(name));
        }
        let users = users(&self.container_records(tenant), name);
        if !users.is_empty() || self.volumes.is_pinned(tenant, name) {
            return Err(Error::volume_in_use(name, &users));
        }
        let rest = self.volumes.remove(&changing, tenant, name).await?;
        self.spawn("remove volume", self.tenants.get(tenant)?.track(rest));
        self.volume_event(tenant, name, "destroy", &[]);
        Ok(())
    }

    fn container_records(&self, tenant: &TenantId) -> Vec<Arc<ContainerRecord>> {
        self.containers.list(tenant).iter().map(|container| container.record()).collect()
    }

    /// An event of a volume, with the attributes in dockerd's (alphabetical) order.
    fn volume_event(&self, tenant: &TenantId, name: &str, action: &str, extra: &[(&str, &str)]) {
        let mut attributes: IndexMap<String, String> =
            extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        attributes.insert("driver".to_owned(), LOCAL.to_owned());
        attributes.sort_keys();
        self.events.publish(tenant, EventType::Volume, action, name, attributes);
    }
}

/// Ids of the containers that have a volume.
fn users(containers: &[Arc<ContainerRecord>], name: &str) -> Vec<String> {
    let has = |record: &&Arc<ContainerRecord>| {
        record.mounts.iter().any(|mount| mount.kind == MountKind::Volume && mount.name == name)
    };
    containers.iter().filter(has).map(|record| record.id.to_string()).collect()
}

#[cfg(test)]
mod tests;
