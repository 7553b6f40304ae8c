//! `POST /containers/prune`.

use std::sync::Arc;

use tracing::warn;

use crate::{
    engine::{Engine, container::Container, containers::delete::DeleteOptions, prune::PruneFilter, tenants::Scope},
    model::{Result, event::EventType, filters::Filters, id::ContainerId},
};

/// What a prune of containers took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainersPruned {
    /// Their ids.
    pub containers: Vec<ContainerId>,
    /// Bytes that their writable layers held.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes all containers that do not run and that the filters let through. Their volumes stay.
    pub async fn container_prune(&self, scope: &Scope, filters: Filters) -> Result<ContainersPruned> {
        let running = self.prunes.begin(scope.tenant(), EventType::Container)?;
        let filter = PruneFilter::read(filters)?;
        let (engine, scope) = (self.clone(), scope.clone());
        self.run("container_prune", async move {
            let _running = running;
            Ok(engine.prune_containers(&scope, &filter).await)
        })
        .await
    }

    async fn prune_containers(&self, scope: &Scope, filter: &PruneFilter) -> ContainersPruned {
        let mut pruned = ContainersPruned::default();
        for container in self.containers.list(scope.tenant()) {
            let record = container.record();
            if record.state.counts_as_running() || !filter.matches(record.created, |key| record.label(key)) {
                continue;
            }
            if let Some(size) = self.prune_container(&container).await {
                pruned.containers.push(container.id().clone());
                pruned.reclaimed += size;
            }
        }
        self.prune_event(scope.tenant(), EventType::Container, pruned.reclaimed);
        pruned
    }

    /// Removes one; answers its size. One that was started or removed meanwhile is left to whoever did that.
    async fn prune_container(&self, container: &Arc<Container>) -> Option<u64> {
        let size = self.backends.runtime.usage(container.id()).await.unwrap_or_default();
        match self.remove(container, DeleteOptions::default()).await {
            Ok(()) => Some(size),
            Err(error) => {
                warn!(container.id = %container.id(), "pruning container {}: {}", container.id(), error.chain());
                None
            }
        }
    }
}
