//! Legacy links of containers on the default bridge: names in the hosts file, variables in the environment.

use std::{net::IpAddr, sync::Arc};

use super::{
    attachments::parse_link,
    files::own_addresses,
    hosts::{with_address_of, without_link},
    names::addresses,
};
use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        container::ContainerRecord,
        id::ContainerId,
        network::{Endpoint, Port, Protocol},
    },
};

/// A container that another is linked to.
pub(super) struct Linked {
    /// What it is called there.
    pub alias: String,
    /// The container.
    pub record: Arc<ContainerRecord>,
    /// Its addresses on the default bridge.
    pub addresses: Vec<IpAddr>,
}

/// A legacy link as a record has it.
pub(crate) struct Link {
    /// What the other is called.
    pub alias: String,
    /// The name it had when the link was made.
    pub name: String,
    /// Which one it is: its id, or its name in records of old.
    pub target: String,
}

/// The legacy links of a container.
pub(crate) fn links_of(record: &ContainerRecord) -> Vec<Link> {
    let mut ids = record.networking.linked.iter();
    let read = |entry: &String| {
        let (alias, name) = parse_link(entry);
        let target = ids.next().map_or_else(|| name.clone(), ToString::to_string);
        Link { alias, name, target }
    };
    record.host_config.links.iter().flatten().map(read).collect()
}

impl Engine {
    /// The containers that one on the default bridge is linked to. Conflict if one of them does not run.
    pub(super) fn linked(&self, record: &ContainerRecord) -> Result<Vec<Linked>> {
        let links = record.host_config.links.as_deref().unwrap_or_default();
        if links.is_empty() || !record.networking.attachments.iter().any(|attachment| attachment.name == "bridge") {
            return Ok(Vec::new());
        }
        let bridge = self.networks.get(&record.tenant, "bridge")?;
        let lodgers = self.networks.lodgers(&bridge);
        let mut linked = Vec::new();
        for Link { alias, name, target } in links_of(record) {
            let other = self.containers.get(&record.tenant, &target).map(|other| other.record());
            let lodger_of = |id: &ContainerId| lodgers.iter().find(|lodger| lodger.guest.container == *id);
            let (Ok(other), Some(lodger)) = (&other, other.as_ref().ok().and_then(|other| lodger_of(&other.id))) else {
                let name = other.map_or(name, |other| other.name.clone());
                let text = format!("Cannot link to a non running container: /{name} AS /{}/{alias}", record.name);
                return Err(Error::conflict(text));
            };
            let other = other.clone();
            linked.push(Linked { alias, record: other, addresses: addresses(lodger) });
        }
        Ok(linked)
    }

    /// Tells the running containers that are linked to one where it is now on the default bridge.
    pub(super) async fn tell_linked(&self, record: &ContainerRecord, endpoint: &Endpoint) {
        for other in self.containers.list(&record.tenant) {
            let other = other.record();
            if !other.state.is_running() {
                continue;
            }
            let leads_here = |link: &Link| {
                self.containers.get(&record.tenant, &link.target).is_ok_and(|target| *target.id() == record.id)
            };
            let aliases: Vec<String> = links_of(&other).into_iter().filter(leads_here).map(|link| link.alias).collect();
            if aliases.is_empty() {
                continue;
            }
            let addresses = own_addresses(endpoint);
            let edit = move |text: String| {
                let pairs = aliases.iter().flat_map(|alias| addresses.iter().map(move |address| (alias, address)));
                pairs.fold(text, |text, (alias, address)| with_address_of(&text, alias, *address))
            };
            if let Err(error) = self.edit_file(&other, "hosts", edit).await {
                tracing::warn!(container.id = %other.id, "editing the hosts file of {}: {error}", other.name);
            }
        }
    }

    /// A container's record with the variables of its tenant and of its links below its own, as its processes see them.
    pub(crate) fn with_given_variables(&self, record: Arc<ContainerRecord>) -> Result<Arc<ContainerRecord>> {
        let mut variables = self.given_variables(&record);
        for linked in self.linked(&record)? {
            let four = linked.addresses.iter().find(|address| address.is_ipv4());
            variables.extend(four.map(|address| link_variables(&record.name, &linked, *address)).unwrap_or_default());
        }
        if variables.is_empty() {
            return Ok(record);
        }
        let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        let mut record = Arc::unwrap_or_clone(record);
        let own = record.config.env.take().unwrap_or_default();
        variables.retain(|variable| !own.iter().any(|entry| name(entry) == name(variable)));
        variables.extend(own);
        record.config.env = Some(variables);
        Ok(Arc::new(record))
    }

    /// `/db:/web/alias` for each of a container's links, as inspect shows them.
    pub fn shown_links(&self, record: &ContainerRecord) -> Vec<String> {
        let shown = |Link { alias, name, target }: Link| {
            let other = self.containers.get(&record.tenant, &target).map(|other| other.record().name.clone());
            format!("/{}:/{}/{alias}", other.unwrap_or(name), record.name)
        };
        links_of(record).into_iter().map(shown).collect()
    }

    /// Takes a link out of a container, named as `web/alias`; a name without an alias is the container's own.
    pub async fn container_delete_link(&self, scope: &Scope, reference: &str) -> Result<()> {
        if self.containers.get(scope.tenant(), reference).is_ok() {
            return Err(Error::default_link_name());
        }
        let no_link = || Error::no_such_container(reference);
        let (owner, alias) = reference.rsplit_once('/').ok_or_else(no_link)?;
        let owner = self.containers.get(scope.tenant(), owner).map_err(|_| no_link())?;
        if !links_of(&owner.record()).iter().any(|link| link.alias == alias) {
            return Err(no_link());
        }
        let (engine, alias) = (self.clone(), alias.to_owned());
        self.run("container_delete_link", async move {
            let turn = owner.turn().await?;
            turn.update(|record| unlink(record, &alias));
            turn.store(&*engine.backends.runtime).await?;
            let record = turn.record();
            if !record.state.is_running() {
                return Ok(());
            }
            engine.edit_file(&record, "hosts", move |text| without_link(&text, &alias)).await
        })
        .await
    }

    /// What other containers call each one, `/web/alias`, by its name.
    pub fn link_names(&self, scope: &Scope) -> Vec<(String, String)> {
        let records = self.containers.list(scope.tenant()).into_iter().map(|container| container.record());
        let of = |record: Arc<ContainerRecord>| {
            let names = self.shown_links(&record).into_iter().filter_map(|link| {
                let (target, alias) = link.split_once(':')?;
                Some((target.trim_start_matches('/').to_owned(), alias.to_owned()))
            });
            names.collect::<Vec<_>>()
        };
        let mut names: Vec<_> = records.filter(|record| record.host_config.links.is_some()).flat_map(of).collect();
        names.sort();
        names
    }
}

/// Takes the links out that have the alias, and whom they mean.
fn unlink(record: &mut ContainerRecord, alias: &str) {
    let kept = |link: &Link| link.alias != alias;
    let stays: Vec<bool> = links_of(record).iter().map(kept).collect();
    let mut of_links = stays.iter();
    let links = record.host_config.links.take().into_iter().flatten().filter(|_| *of_links.next().unwrap_or(&true));
    let links: Vec<String> = links.collect();
    record.host_config.links = (!links.is_empty()).then_some(links);
    let mut of_linked = stays.iter();
    record.networking.linked.retain(|_| *of_linked.next().unwrap_or(&true));
}

/// `DB_PORT=tcp://172.17.0.2:5432` and all that old images look for.
fn link_variables(parent: &str, linked: &Linked, address: IpAddr) -> Vec<String> {
    let prefix = linked.alias.to_uppercase().replace('-', "_");
    let config = &linked.record.config;
    let mut ports: Vec<Port> =
        config.exposed_ports.iter().flatten().filter_map(|(port, _)| port.parse().ok()).collect();
    ports.sort_by_key(|port| (port.number, port.protocol != Protocol::Tcp));
    let mut variables = Vec::new();
    let url = |port: &Port| format!("{}://{address}:{}", port.protocol.as_str(), port.number);
    let key = |port: &Port| format!("{prefix}_PORT_{}_{}", port.number, port.protocol.as_str().to_uppercase());
    if let Some(first) = ports.first() {
        variables.push(format!("{prefix}_PORT={}", url(first)));
    }
    let mut start = 0;
    while start < ports.len() {
        let end = last_in_row(&ports, start);
        // Shorter rows have no range, as in dockerd.
        if end > start + 1 {
            let (first, last) = (&ports[start], &ports[end]);
            let key = key(first);
            variables.push(format!("{key}_START={}", url(first)));
            variables.push(format!("{key}_PORT_START={}", first.number));
            variables.push(format!("{key}_END={}", url(last)));
            variables.push(format!("{key}_PORT_END={}", last.number));
            start = end;
        }
        start += 1;
    }
    for port in &ports {
        let key = key(port);
        variables.push(format!("{key}={}", url(port)));
        variables.push(format!("{key}_ADDR={address}"));
        variables.push(format!("{key}_PORT={}", port.number));
        variables.push(format!("{key}_PROTO={}", port.protocol.as_str()));
    }
    variables.push(format!("{prefix}_NAME=/{parent}/{}", linked.alias));
    for (name, value) in config.env.iter().flatten().filter_map(|entry| entry.split_once('=')) {
        if !matches!(name, "HOME" | "PATH") {
            variables.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    variables
}

/// Where a row of numbers that follow each other ends.
fn last_in_row(ports: &[Port], start: usize) -> usize {
    let follows = |pair: &&[Port]| pair[1].number <= pair[0].number.saturating_add(1);
    start + ports[start..].windows(2).take_while(follows).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_ports_are_found() {
        let tcp = |number| Port { number, protocol: Protocol::Tcp };
        let ports = [tcp(5432), tcp(5433), tcp(5434), tcp(8080)];
        assert_eq!((last_in_row(&ports, 0), last_in_row(&ports, 3)), (2, 3));
    }
}
