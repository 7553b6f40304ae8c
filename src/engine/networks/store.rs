//! Networks on disk and in memory: one JSON file each, leased addresses in memory only, since a container's
//! addresses are its for a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    engine::{
        ipam::{self, Leases},
        records::RecordFolder,
    },
    model::{
        Error, Result,
        error::Context,
        id::{ContainerId, EndpointId, NetworkId, TenantId},
        network::{Endpoint, NetworkRecord},
    },
};

/// Who wants to be attached to a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// The container.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// What else its neighbours call it.
    pub aliases: Vec<String>,
    /// Its host name.
    pub hostname: String,
    /// What it calls others, and what they are called: legacy links.
    pub links: Vec<(String, String)>,
}

/// Who is attached to a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Lodger {
    /// The container.
    pub guest: Guest,
    /// Its attachment.
    pub endpoint: Endpoint,
}

impl Guest {
    /// All its names on a network with names, its own first.
    pub fn dns_names(&self) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        let others = self.aliases.iter().map(String::as_str).chain([self.container.short(), &self.hostname]);
        for name in others.filter(|name| !name.is_empty()) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

/// What an endpoint should be like.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// A static address.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Addresses beside those of the network.
    pub link_local: Vec<IpNet>,
    /// A hardware address.
    pub mac: Option<[u8; 6]>,
    /// Name of the link inside.
    pub interface: String,
    /// Whether the default route leads through it.
    pub default_route: bool,
}

struct Entry {
    record: Arc<NetworkRecord>,
    ipv4: Option<Leases>,
    ipv6: Option<Leases>,
    lodgers: BTreeMap<EndpointId, Lodger>,
    removing: bool,
}

/// Held while networks are made or removed.
pub struct Change<'a>(#[allow(dead_code, reason = "held for its drop")] tokio::sync::MutexGuard<'a, ()>);

/// All networks. A look-up sees those of its tenant and no others.
pub struct NetworkStore {
    records: RecordFolder,
    entries: Mutex<BTreeMap<NetworkId, Entry>>,
    changing: tokio::sync::Mutex<()>,
}

impl NetworkStore {
    /// Reads what is below `data_root`. A record that cannot be read is left alone and named in the log.
    pub fn open(data_root: &Path) -> Result<Self> {
        let records = RecordFolder::open(data_root, "networks")?;
        let entries =
            records.read::<NetworkRecord>()?.into_iter().map(|record| (record.id.clone(), Entry::new(record)));
        let entries = Mutex::new(entries.collect());
        Ok(Self { records, entries, changing: tokio::sync::Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for other changes.
    pub async fn change(&self) -> Change<'_> {
        Change(self.changing.lock().await)
    }

    /// By id, name or unique prefix of an id.
    pub fn get(&self, tenant: &TenantId, reference: &str) -> Result<Arc<NetworkRecord>> {
        let entries = self.lock();
        let own = || entries.values().map(|entry| &entry.record).filter(|record| record.tenant == *tenant);
        let exact = own().find(|record| record.id.as_str() == reference);
        if let Some(record) = exact.or_else(|| own().find(|record| record.name == reference)) {
            return Ok(record.clone());
        }
        let matches: Vec<_> =
            own().filter(|record| !reference.is_empty() && record.id.as_str().starts_with(reference)).collect();
        match matches.as_slice() {
            [record] => Ok((*record).clone()),
            [] => Err(Error::no_such_network(reference)),
            several => Err(Error::invalid(format!(
                "network {reference} is ambiguous ({} matches found based on ID prefix)",
                several.len()
            ))),
        }
    }

    /// All networks of a tenant.
    pub fn list(&self, tenant: &TenantId) -> Vec<Arc<NetworkRecord>> {
        self.list_of(&BTreeSet::from([tenant.clone()]))
    }

    /// All networks of some tenants.
    pub fn list_of(&self, tenants: &BTreeSet<TenantId>) -> Vec<Arc<NetworkRecord>> {
        let entries = self.lock();
        let theirs = entries.values().filter(|entry| tenants.contains(&entry.record.tenant));
        theirs.map(|entry| entry.record.clone()).collect()
    }

    /// Tenants that have networks.
    pub fn tenants_with_some(&self) -> BTreeSet<TenantId> {
        self.lock().values().map(|entry| entry.record.tenant.clone()).collect()
    }

    /// The subnets of all networks of a host's tenants but one.
    pub fn subnets(&self, tenants: &BTreeSet<TenantId>, except: Option<&NetworkId>) -> Vec<IpNet> {
        let others = self.list_of(tenants).into_iter().filter(|record| Some(&record.id) != except);
        let bridges = others.filter_map(|record| record.bridge.clone());
        let of_bridge = bridges.flat_map(|bridge| [bridge.ipv4.map(IpNet::V4), bridge.ipv6.map(IpNet::V6)]);
        of_bridge.flatten().map(|net| net.trunc()).collect()
    }

    /// Whose bridge a link is: no two networks of a host share one.
    pub fn owner_of_link(&self, tenants: &BTreeSet<TenantId>, link: &str) -> Option<NetworkId> {
        let mut bridges = self.list_of(tenants).into_iter().filter_map(|record| record.bridge.clone());
        bridges.find(|bridge| bridge.link == link).map(|bridge| bridge.id)
    }

    /// Stores a network, new or changed.
    pub fn put(&self, _: &Change<'_>, record: NetworkRecord) -> Result<Arc<NetworkRecord>> {
        self.records.write(record.id.as_str(), &record).context(format!("storing network {}", record.name))?;
        let entry = Entry::new(record);
        let stored = entry.record.clone();
        self.lock().insert(stored.id.clone(), entry);
        Ok(stored)
    }

    /// Keeps new endpoints away from a network, if it has none.
    pub fn begin_removal(&self, _: &Change<'_>, id: &NetworkId) -> Result<()> {
        let mut entries = self.lock();
        let entry = entries.get_mut(id).ok_or_else(|| Error::no_such_network(id.as_str()))?;
        if !entry.lodgers.is_empty() {
            let mut active: Vec<String> = entry
                .lodgers
                .values()
                .map(|lodger| format!("name:\"{}\" id:\"{}\"", lodger.guest.name, lodger.endpoint.id.short()))
                .collect();
            active.sort();
            return Err(Error::network_in_use(&entry.record.name, &active));
        }
        entry.removing = true;
        Ok(())
    }

    /// Lets endpoints in again, after a removal that failed.
    pub fn cancel_removal(&self, _: &Change<'_>, id: &NetworkId) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.removing = false;
        }
    }

    /// Forgets a network.
    pub fn remove(&self, _: &Change<'_>, id: &NetworkId) -> Result<()> {
        self.records.remove(id.as_str()).context(format!("removing the record of network {id}"))?;
        self.lock().remove(id);
        Ok(())
    }

    /// Leases addresses for an endpoint.
    pub fn lease(&self, network: &NetworkId, guest: Guest, wish: Wish) -> Result<Endpoint> {
        let mut entries = self.lock();
        let entry = entries
            .get_mut(network)
            .filter(|entry| !entry.removing)
            .ok_or_else(|| Error::no_such_network(network.as_str()))?;
        if entry.record.config_only {
            return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
        }
        if entry.lodgers.values().any(|lodger| lodger.guest.container == guest.container) {
            return Err(Error::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                guest.name, entry.record.name
            )));
        }
        let endpoint = entry.endpoint(wish)?;
        entry.lodgers.insert(endpoint.id.clone(), Lodger { guest, endpoint: endpoint.clone() });
        Ok(endpoint)
    }

    /// Gives an endpoint's addresses back.
    pub fn release(&self, network: &NetworkId, container: &ContainerId) -> Option<Lodger> {
        let mut entries = self.lock();
        let entry = entries.get_mut(network)?;
        let id = entry.lodgers.values().find(|lodger| lodger.guest.container == *container)?.endpoint.id.clone();
        let lodger = entry.lodgers.remove(&id)?;
        if let (Some(leases), Some(net)) = (&mut entry.ipv4, lodger.endpoint.ipv4) {
            leases.release(net.addr().into());
        }
        if let (Some(leases), Some(net)) = (&mut entry.ipv6, lodger.endpoint.ipv6) {
            leases.release(net.addr().into());
        }
        Some(lodger)
    }

    /// Notes where the default route leads now.
    pub fn set_default_route(&self, network: &NetworkId, container: &ContainerId, default_route: bool) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(network) else { return };
        for lodger in entry.lodgers.values_mut().filter(|lodger| lodger.guest.container == *container) {
            lodger.endpoint.default_route = default_route;
        }
    }

    /// Who is attached to a network.
    pub fn lodgers(&self, network: &NetworkId) -> Vec<Lodger> {
        self.lock().get(network).map(|entry| entry.lodgers.values().cloned().collect()).unwrap_or_default()
    }

    /// Notes what a container is called now.
    pub fn rename(&self, container: &ContainerId, name: &str) {
        let mut entries = self.lock();
        let lodgers = entries.values_mut().flat_map(|entry| entry.lodgers.values_mut());
        for lodger in lodgers.filter(|lodger| lodger.guest.container == *container) {
            name.clone_into(&mut lodger.guest.name);
        }
    }

    /// The networks that a container has an endpoint on.
    pub fn networks_of(&self, container: &ContainerId) -> Vec<Arc<NetworkRecord>> {
        let entries = self.lock();
        let lodges = |entry: &&Entry| entry.lodgers.values().any(|lodger| lodger.guest.container == *container);
        entries.values().filter(lodges).map(|entry| entry.record.clone()).collect()
    }
}

impl Entry {
    fn new(record: NetworkRecord) -> Self {
        let bridge = record.bridge.as_ref();
        let ipv4 = bridge.and_then(|bridge| bridge.ipv4).map(|net| leases(&record, IpNet::V4(net)));
        let ipv6 = bridge.and_then(|bridge| bridge.ipv6).map(|net| leases(&record, IpNet::V6(net)));
        Self { record: Arc::new(record), ipv4, ipv6, lodgers: BTreeMap::new(), removing: false }
    }

    fn endpoint(&mut self, wish: Wish) -> Result<Endpoint> {
        let Some(bridge) = self.record.bridge.clone() else { return Ok(self.bare_endpoint()) };
        let ipv4 = match &mut self.ipv4 {
            Some(leases) => Some((leases.lease(wish.ipv4.map(IpAddr::V4))?, leases.prefix_len())),
            None => None,
        };
        let ipv6 = match &mut self.ipv6 {
            Some(leases) => match leases.lease(wish.ipv6.map(IpAddr::V6)) {
                Ok(address) => Some((address, leases.prefix_len())),
                Err(error) => {
                    if let (Some(leases), Some((address, _))) = (&mut self.ipv4, ipv4) {
                        leases.release(address);
                    }
                    return Err(error);
                }
            },
            None => None,
        };
        let ipv4 = ipv4.and_then(|(address, length)| match address {
            IpAddr::V4(address) => Ipv4Net::new(address, length).ok(),
            IpAddr::V6(_) => None,
        });
        let ipv6 = ipv6.and_then(|(address, length)| match address {
            IpAddr::V6(address) => Ipv6Net::new(address, length).ok(),
            IpAddr::V4(_) => None,
        });
        let has_way_out = !bridge.internal;
        Ok(Endpoint {
            id: EndpointId::random(),
            network: self.record.id.clone(),
            ipv4,
            ipv6,
            link_local: wish.link_local,
            gateway4: bridge.ipv4.map(|net| net.addr()).filter(|_| has_way_out),
            gateway6: bridge.ipv6.map(|net| net.addr()).filter(|_| has_way_out),
            mac: wish.mac.unwrap_or_else(|| ipam::mac_of(ipv4.map(|net| net.addr()))),
            interface: wish.interface,
            default_route: wish.default_route,
        })
    }

    /// Of host and none: there to be counted, without addresses.
    fn bare_endpoint(&self) -> Endpoint {
        Endpoint {
            id: EndpointId::random(),
            network: self.record.id.clone(),
            ipv4: None,
            ipv6: None,
            link_local: Vec::new(),
            gateway4: None,
            gateway6: None,
            mac: [0; 6],
            interface: String::new(),
            default_route: false,
        }
    }
}

fn leases(record: &NetworkRecord, gateway: IpNet) -> Leases {
    let subnet = gateway.trunc();
    let pool =
        record.ipam.config.iter().find(|pool| pool.subnet.parse::<IpNet>().is_ok_and(|net| net.trunc() == subnet));
    let range = pool.and_then(|pool| pool.ip_range.parse().ok()).unwrap_or(subnet);
    let mut leases = Leases::new(subnet, range);
    leases.reserve(gateway.addr());
    let auxiliary = pool.into_iter().flat_map(|pool| pool.auxiliary_addresses.values());
    auxiliary.filter_map(|text| text.parse().ok()).for_each(|address| leases.reserve(address));
    leases
}
