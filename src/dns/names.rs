//! The names that sandboxes know: one table for the daemon, a view of it per sandbox.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use super::Names;
use crate::model::{
    id::{ContainerId, NetworkId},
    network::{NameEntry, NameTable, NetworkNames},
};

/// The daemon's table of names, swapped as a whole.
#[derive(Default)]
pub struct SharedNames(RwLock<Arc<NameTable>>);

impl SharedNames {
    /// Puts another table in place.
    pub fn replace(&self, table: NameTable) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    fn current(&self) -> Arc<NameTable> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one sandbox may know: the names on the networks it is attached to.
pub struct SandboxNames {
    container: ContainerId,
    table: Arc<SharedNames>,
    networks: RwLock<Vec<NetworkId>>,
}

impl SandboxNames {
    /// A view that knows nothing yet.
    pub fn new(container: ContainerId, table: Arc<SharedNames>) -> Self {
        Self { container, table, networks: RwLock::default() }
    }

    /// Shows the names of a network too.
    pub fn join(&self, network: &NetworkId) {
        let mut networks = self.networks.write().unwrap_or_else(PoisonError::into_inner);
        if !networks.contains(network) {
            networks.push(network.clone());
        }
    }

    /// Hides the names of a network.
    pub fn leave(&self, network: &NetworkId) {
        self.networks.write().unwrap_or_else(PoisonError::into_inner).retain(|joined| joined != network);
    }

    /// Looks at the joined networks in order until `look` finds something.
    fn first<T>(&self, mut look: impl FnMut(&NetworkNames) -> Option<T>) -> Option<T> {
        let table = self.table.current();
        let networks = self.networks.read().unwrap_or_else(PoisonError::into_inner);
        networks.iter().filter_map(|network| table.get(network)).find_map(&mut look)
    }

    fn addresses_on(&self, network: &NetworkNames, name: &str) -> Option<Vec<IpAddr>> {
        let entries: Vec<&NameEntry> = network.entries.iter().filter(|entry| self.knows(entry, name)).collect();
        (!entries.is_empty()).then(|| entries.iter().flat_map(|entry| entry.addresses.iter().copied()).collect())
    }

    fn knows(&self, entry: &NameEntry, name: &str) -> bool {
        let visible = entry.only_for.as_ref().is_none_or(|container| *container == self.container);
        visible && entry.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl Names for SandboxNames {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.first(|network| self.addresses_on(network, name))
            .or_else(|| self.first(|network| self.addresses_on(network, without_suffix(name, &network.network)?)))
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.first(|network| {
            let owner =
                network.entries.iter().find(|entry| entry.only_for.is_none() && entry.addresses.contains(&address))?;
            Some(format!("{}.{}", owner.names.first()?, network.network))
        })
    }
}

/// `web.mynet` names `web` on the network `mynet`.
fn without_suffix<'a>(name: &'a str, network: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(network.len())?;
    let (head, tail) = name.split_at_checked(at)?;
    tail.eq_ignore_ascii_case(network).then(|| head.strip_suffix('.'))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(names: &[&str], address: &str) -> NameEntry {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        NameEntry { names, addresses: vec![address.parse().unwrap()], only_for: None }
    }

    fn sandbox() -> SandboxNames {
        let table = Arc::new(SharedNames::default());
        let names = |network: &str, entries| NetworkNames { network: network.to_owned(), entries };
        let mut private = entry(&["secret"], "10.1.0.9");
        private.only_for = Some(ContainerId::from_stored("other"));
        table.replace(NameTable::from([
            (
                NetworkId::from_stored("1"),
                names("one", vec![entry(&["web", "W"], "10.1.0.2"), entry(&["w"], "10.1.0.3"), private]),
            ),
            (NetworkId::from_stored("2"), names("two", vec![entry(&["db"], "10.2.0.2"), entry(&["web"], "10.2.0.9")])),
        ]));
        let sandbox = SandboxNames::new(ContainerId::from_stored("me"), table);
        sandbox.join(&NetworkId::from_stored("1"));
        sandbox
    }

    #[test]
    fn a_shared_alias_has_all_addresses() {
        assert_eq!(sandbox().addresses("w").unwrap().len(), 2);
    }

    #[test]
    fn names_of_other_networks_are_unknown() {
        let sandbox = sandbox();
        assert_eq!(sandbox.addresses("db"), None);
        sandbox.join(&NetworkId::from_stored("2"));
        assert!(sandbox.addresses("db").is_some());
        sandbox.leave(&NetworkId::from_stored("2"));
        assert_eq!(sandbox.addresses("db"), None);
    }

    #[test]
    fn a_name_can_say_its_network() {
        let sandbox = sandbox();
        sandbox.join(&NetworkId::from_stored("2"));
        assert_eq!(sandbox.addresses("web.two"), Some(vec!["10.2.0.9".parse().unwrap()]));
        assert_eq!(sandbox.addresses("web"), Some(vec!["10.1.0.2".parse().unwrap()]));
    }

    #[test]
    fn links_of_others_are_unknown() {
        assert_eq!(sandbox().addresses("secret"), None);
    }

    #[test]
    fn addresses_have_full_names() {
        assert_eq!(sandbox().name_of("10.1.0.2".parse().unwrap()).unwrap(), "web.one");
        assert_eq!(sandbox().name_of("10.9.0.2".parse().unwrap()), None);
    }
}
