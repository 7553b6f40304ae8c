//! Networks: verbs. `store` keeps records and leased addresses, `attachments` checks what containers ask for,
//! `runs` wires and unwires a container's run, `names` tells the name servers, `hosts` and `resolv_conf` write files.

mod attachments;
mod configuration;
mod connect;
mod create;
mod files;
mod hosts;
mod lines;
mod links;
mod lock;
mod names;
mod options;
mod ports;
mod predefined;
mod prune;
pub(crate) mod request;
mod resolv_conf;
mod runs;
mod steps;
pub(crate) mod store;

use std::sync::Arc;

use indexmap::IndexMap;

pub use create::NetworkCreated;
pub(crate) use links::links_of;
pub(crate) use runs::RunNetwork;
pub use store::NetworkStore;

use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        event::EventType,
        filters::Filters,
        id::ContainerId,
        network::{Endpoint, NetworkRecord},
    },
};

/// A network for inspect.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// The record.
    pub record: Arc<NetworkRecord>,
    /// Containers that run on it.
    pub containers: Vec<NetworkMember>,
}

/// A container on a network.
#[derive(Clone, Debug)]
pub struct NetworkMember {
    /// Its id.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// Its attachment.
    pub endpoint: Endpoint,
}

impl Engine {
    /// A network by id, name or unique prefix of an id, with the containers that run on it.
    pub async fn network_inspect(&self, scope: &Scope, reference: &str) -> Result<NetworkView> {
        let record = self.networks.get(scope.tenant(), reference)?;
        let lodgers = self.networks.lodgers(&record);
        let containers = lodgers.into_iter().map(|lodger| NetworkMember {
            container: lodger.guest.container,
            name: lodger.guest.name,
            endpoint: lodger.endpoint,
        });
        Ok(NetworkView { containers: containers.collect(), record })
    }

    /// All networks that the filters let through.
    pub async fn network_list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Arc<NetworkRecord>>> {
        let wanted = ListFilter::read(filters)?;
        let records = self.networks.list(scope.tenant()).into_iter();
        Ok(records.filter(|record| wanted.matches(record, || !self.networks.lodgers(record).is_empty())).collect())
    }

    /// Removes a network that no running container is attached to.
    pub async fn network_delete(&self, scope: &Scope, reference: &str) -> Result<()> {
        let (engine, scope, reference) = (self.clone(), scope.clone(), reference.to_owned());
        self.run("network_delete", async move { engine.remove_network(&scope, &reference).await }).await
    }

    async fn remove_network(&self, scope: &Scope, reference: &str) -> Result<()> {
        let record = self.networks.get(scope.tenant(), reference)?;
        if record.is_predefined() {
            return Err(Error::network_is_predefined(&record.name));
        }
        // The change's lock is not held meanwhile.
        tokio::time::sleep(scope.as_tenant().surroundings().network_linger).await;
        let changing = self.networks.change().await;
        self.check_configuration_is_unused(&record)?;
        self.networks.begin_removal(&changing, &record)?;
        if let Some(bridge) = &record.bridge
            && let Err(error) = scope.network().remove_network(bridge).await
        {
            self.networks.cancel_removal(&changing, &record);
            return Err(error.context("error while removing network"));
        }
        self.networks.remove(&changing, &record)?;
        self.network_event(&record, "destroy", None);
        tracing::info!(network.id = %record.id, network.name = record.name, "removed network {}", record.name);
        Ok(())
    }

    /// An event of a network, with the attributes in dockerd's (alphabetical) order.
    pub(crate) fn network_event(&self, record: &NetworkRecord, action: &str, container: Option<&ContainerId>) {
        let mut attributes = IndexMap::new();
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_string());
        }
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.insert("type".to_owned(), record.driver_name().to_owned());
        self.events.publish(&record.tenant, EventType::Network, action, record.id.as_str(), attributes);
    }
}

/// The filters of the list.
struct ListFilter<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
}

impl<'a> ListFilter<'a> {
    fn read(filters: &'a Filters) -> Result<Self> {
        filters.allow_only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = match filters.get("dangling") {
            [] => None,
            [word] if word == "true" || word == "1" => Some(true),
            [word] if word == "false" || word == "0" => Some(false),
            [_] => {
                return Err(Error::invalid(
                    "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
                ));
            }
            _ => return Err(Error::invalid("got more than one value for filter key \"dangling\"")),
        };
        if let Some(word) = filters.get("type").iter().find(|word| !matches!(word.as_str(), "builtin" | "custom")) {
            return Err(Error::invalid(format!("invalid filter: 'type'='{word}'")));
        }
        Ok(Self { filters, dangling })
    }

    fn matches(&self, record: &NetworkRecord, is_used: impl Fn() -> bool) -> bool {
        let kind = if record.is_predefined() { "builtin" } else { "custom" };
        self.filters.matches_exact("driver", record.driver_name())
            && self.filters.matches_pattern("name", &record.name)
            && self.filters.matches_pattern("id", record.id.as_str())
            && self.filters.matches_exact("scope", "local")
            && self.filters.matches_exact("type", kind)
            && self.filters.matches_labels(|key| record.label(key))
            // A predefined network is never dangling.
            && self.dangling.is_none_or(|dangling| dangling == (!record.is_predefined() && !is_used()))
    }
}

#[cfg(test)]
mod tests;
