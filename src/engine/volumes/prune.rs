//! `POST /volumes/prune`.

use tracing::warn;

use super::{VolumeInfo, users};
use crate::{
    engine::{Engine, tenants::Scope},
    model::{Result, error::Context, event::EventType, filters::Filters, volume::ANONYMOUS_LABEL},
    rootfs::folder_size,
};

/// What a prune of volumes took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumesPruned {
    /// Their names.
    pub volumes: Vec<String>,
    /// Bytes that they held.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes all volumes that no container has and that the filters let through: anonymous ones, with the filter
    /// `all` also those with names. One with options is not our content to throw away, so it stays, as with dockerd.
    pub async fn volume_prune(&self, scope: &Scope, filters: Filters) -> Result<VolumesPruned> {
        let running = self.prunes.begin(scope.tenant(), EventType::Volume)?;
        filters.allow_only(&["all", "label", "label!"])?;
        let all = filters.one_boolean("all")?.unwrap_or(false);
        let (engine, scope) = (self.clone(), scope.clone());
        self.run("volume_prune", async move {
            let _running = running;
            let is_wanted = |info: &VolumeInfo| {
                let volume = &info.volume;
                (all || volume.label(ANONYMOUS_LABEL).is_some())
                    && volume.is_plain()
                    && filters.matches_labels(|key| volume.label(key))
            };
            Ok(engine.prune_volumes(&scope, is_wanted).await)
        })
        .await
    }

    async fn prune_volumes(&self, scope: &Scope, is_wanted: impl Fn(&VolumeInfo) -> bool) -> VolumesPruned {
        let mut pruned = VolumesPruned::default();
        let containers = self.container_records(scope.tenant());
        for info in self.volumes.list(scope.tenant()).into_iter().filter(is_wanted) {
            let name = &info.volume.name;
            if !users(&containers, name).is_empty() || self.volumes.is_pinned(scope.tenant(), name) {
                continue;
            }
            let removed = async {
                let size = self.volume_size(&info).await?;
                self.remove_volume(scope.tenant(), name).await.map(|()| size)
            };
            match removed.await {
                Ok(size) => {
                    pruned.volumes.push(name.clone());
                    pruned.reclaimed += size;
                }
                Err(error) => warn!(volume = name, "pruning volume {name}: {}", error.chain()),
            }
        }
        self.prune_event(scope.tenant(), EventType::Volume, pruned.reclaimed);
        pruned
    }

    /// Bytes in a volume's files.
    pub(crate) async fn volume_size(&self, info: &VolumeInfo) -> Result<u64> {
        let folder = info.mountpoint.clone();
        let size = tokio::task::spawn_blocking(move || folder_size(&folder)).await.context("measuring the volume")?;
        size.context(format!("measuring volume {}", info.volume.name))
    }
}
