//! `POST /networks/prune`.

use tracing::warn;

use crate::{
    engine::{Engine, prune::PruneFilter, tenants::Scope},
    model::{Result, event::EventType, filters::Filters},
};

impl Engine {
    /// Removes all networks without running containers that the filters let through; answers their names.
    pub async fn network_prune(&self, scope: &Scope, filters: Filters) -> Result<Vec<String>> {
        let running = self.prunes.begin(scope.tenant(), EventType::Network)?;
        let filter = PruneFilter::read(filters)?;
        let (engine, scope) = (self.clone(), scope.clone());
        self.run("network_prune", async move {
            let _running = running;
            Ok(engine.prune_networks(&scope, &filter).await)
        })
        .await
    }

    async fn prune_networks(&self, scope: &Scope, filter: &PruneFilter) -> Vec<String> {
        let mut pruned = Vec::new();
        for network in self.networks.list(scope.tenant()) {
            let is_idle =
                !network.is_predefined() && !network.config_only && self.networks.lodgers(&network).is_empty();
            if !is_idle || !filter.matches(network.created, |key| network.label(key)) {
                continue;
            }
            match self.remove_network(scope, network.id.as_str()).await {
                Ok(()) => pruned.push(network.name.clone()),
                Err(error) => warn!(network.id = %network.id, "pruning network {}: {}", network.name, error.chain()),
            }
        }
        self.prune_event(scope.tenant(), EventType::Network, 0);
        pruned
    }
}
