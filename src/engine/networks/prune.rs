//! `POST /networks/prune`.

use tracing::warn;

use crate::{
    engine::{Engine, prune::PruneFilter},
    model::{Result, event::EventType, filters::Filters, id::Tenant},
};

impl Engine {
    /// Removes all networks without running containers that the filters let through; answers their names.
    pub async fn network_prune(&self, tenant: &Tenant, filters: Filters) -> Result<Vec<String>> {
        let running = self.prunes.begin(tenant, EventType::Network)?;
        let filter = PruneFilter::read(filters)?;
        let (engine, tenant) = (self.clone(), tenant.clone());
        self.run("network_prune", async move {
            let _running = running;
            Ok(engine.prune_networks(&tenant, &filter).await)
        })
        .await
    }

    async fn prune_networks(&self, tenant: &Tenant, filter: &PruneFilter) -> Vec<String> {
        let mut pruned = Vec::new();
        for network in self.networks.list(tenant) {
            let is_idle =
                !network.is_predefined() && !network.config_only && self.networks.lodgers(&network.id).is_empty();
            if !is_idle || !filter.matches(network.created, |key| network.label(key)) {
                continue;
            }
            match self.remove_network(tenant, network.id.as_str()).await {
                Ok(()) => pruned.push(network.name.clone()),
                Err(error) => warn!(network.id = %network.id, "pruning network {}: {}", network.name, error.chain()),
            }
        }
        self.prune_event(tenant, EventType::Network, 0);
        pruned
    }
}
