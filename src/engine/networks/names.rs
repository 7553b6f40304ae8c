//! Tells the name servers who is called what.

use std::{net::IpAddr, sync::Arc};

use crate::{
    backend::network::NetworkBackend,
    engine::{Engine, networks::store::Lodger},
    model::{
        Result,
        id::{ContainerId, TenantId},
        network::{NameEntry, NameTable, NetworkNames, NetworkRecord},
    },
};

impl Engine {
    /// Publishes all names of a tenant's host anew, after names or attachments have changed.
    pub(crate) async fn refresh_names(&self, tenant: &TenantId) {
        for container in self.containers.list(tenant) {
            self.networks.rename(&container.record());
        }
        let published = match self.network_of(tenant) {
            Ok(host) => self.publish_names(&host).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            tracing::warn!(%tenant, "publishing names: {error}");
        }
    }

    pub(super) async fn publish_names(&self, host: &Arc<dyn NetworkBackend>) -> Result<()> {
        let mut table = NameTable::new();
        for record in self.networks.list_of(&self.tenants.in_host(host)) {
            // On predefined networks there are no names.
            if !record.is_predefined() {
                table.insert(record.id.clone(), names(&record, &self.networks.lodgers(&record)));
            }
        }
        host.publish_names(table).await
    }
}

fn names(record: &NetworkRecord, lodgers: &[Lodger]) -> NetworkNames {
    let own = lodgers.iter().map(|lodger| entry(lodger.guest.dns_names(), lodger, None));
    let linked = lodgers.iter().flat_map(|lodger| {
        lodger.guest.links.iter().filter_map(|(alias, target)| {
            let other = lodgers.iter().find(|other| is_called(other, target))?;
            Some(entry(vec![alias.clone()], other, Some(lodger.guest.container.clone())))
        })
    });
    NetworkNames { network: record.name.clone(), entries: own.chain(linked).collect() }
}

fn is_called(lodger: &Lodger, name: &str) -> bool {
    let id = lodger.guest.container.as_str();
    lodger.guest.name == name || (name.len() >= 12 && id.starts_with(name))
}

fn entry(names: Vec<String>, lodger: &Lodger, only_for: Option<ContainerId>) -> NameEntry {
    NameEntry { names, addresses: addresses(lodger), only_for }
}

/// The addresses of an endpoint, IPv4 first.
pub fn addresses(lodger: &Lodger) -> Vec<IpAddr> {
    let endpoint = &lodger.endpoint;
    let four = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let six = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    four.into_iter().chain(six).collect()
}
