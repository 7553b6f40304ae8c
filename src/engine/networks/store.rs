//! Networks on disk and in memory: one JSON file each, leased addresses in memory only, since a container's
//! addresses are its for a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    engine::{
        ipam::{self, Leases},
        records::RecordFolder,
        room::{Place, Rooms},
        scoped::Scoped,
    },
    model::{
        Error, Result,
        container::ContainerRecord,
        error::Context,
        id::{ContainerId, EndpointId, NetworkId, TenantId},
        network::{Endpoint, NetworkRecord},
        record,
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
    /// Held for its drop.
    _place: Place,
    ipv4: Option<Leases>,
    ipv6: Option<Leases>,
    lodgers: BTreeMap<EndpointId, Lodger>,
    removing: bool,
}

type Networks = BTreeMap<NetworkId, Entry>;

/// Held while networks are made or removed.
pub struct Change<'a>(#[allow(dead_code, reason = "held for its drop")] tokio::sync::MutexGuard<'a, ()>);

/// All networks. A look-up sees those of its tenant and no others.
pub struct NetworkStore {
    records: RecordFolder,
    rooms: Rooms,
    networks: Scoped<Networks>,
    changing: tokio::sync::Mutex<()>,
}

impl NetworkStore {
    /// Reads what is below `data_root`. A record that cannot be read is left alone and named in the log.
    pub fn open(data_root: &Path, rooms: Rooms) -> Result<Self> {
        let records = RecordFolder::open(data_root, "networks")?;
        let networks = Scoped::default();
        for record in records.read::<NetworkRecord>()? {
            let place = rooms.hold(&record.tenant, record::weight(&record));
            insert(&networks, Entry::new(record, place));
        }
        Ok(Self { records, rooms, networks, changing: tokio::sync::Mutex::default() })
    }

    /// Changes what is known of a network, unless it is gone.
    fn with<T>(&self, network: &NetworkRecord, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.networks.change(&network.tenant, |networks| networks.get_mut(&network.id).map(change))
    }

    /// Waits for other changes.
    pub async fn change(&self) -> Change<'_> {
        Change(self.changing.lock().await)
    }

    /// By id, name or unique prefix of an id.
    pub fn get(&self, tenant: &TenantId, reference: &str) -> Result<Arc<NetworkRecord>> {
        let records = self.list(tenant);
        let exact = records.iter().find(|record| record.id.as_str() == reference);
        if let Some(record) = exact.or_else(|| records.iter().find(|record| record.name == reference)) {
            return Ok(record.clone());
        }
        let is_meant = |record: &&Arc<NetworkRecord>| record.id.as_str().starts_with(reference);
        let matches: Vec<_> = records.iter().filter(|_| !reference.is_empty()).filter(is_meant).collect();
        match matches.as_slice() {
            [record] => Ok(Arc::clone(record)),
            [] => Err(Error::no_such_network(reference)),
            several => Err(Error::invalid(format!(
                "network {reference} is ambiguous ({} matches found based on ID prefix)",
                several.len()
            ))),
        }
    }

    /// All networks of a tenant.
    pub fn list(&self, tenant: &TenantId) -> Vec<Arc<NetworkRecord>> {
        self.networks.look(tenant, |networks| networks.values().map(|entry| entry.record.clone()).collect())
    }

    /// All networks of some tenants.
    pub fn list_of(&self, tenants: &BTreeSet<TenantId>) -> Vec<Arc<NetworkRecord>> {
        tenants.iter().flat_map(|tenant| self.list(tenant)).collect()
    }

    /// Tenants that have networks.
    pub fn tenants_with_some(&self) -> BTreeSet<TenantId> {
        self.networks.tenants_where(|networks| !networks.is_empty())
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

    /// Stores a network, new or changed. Conflict if its tenant has no room for a new one.
    pub fn put(&self, _: &Change<'_>, record: NetworkRecord) -> Result<Arc<NetworkRecord>> {
        let weight = record::weight(&record);
        let place = match self.with(&record, |_| ()) {
            Some(()) => self.rooms.hold(&record.tenant, weight),
            None => self.rooms.take(&record.tenant, weight)?,
        };
        self.records.write(record.id.as_str(), &record).context(format!("storing network {}", record.name))?;
        let entry = Entry::new(record, place);
        let stored = entry.record.clone();
        insert(&self.networks, entry);
        Ok(stored)
    }

    /// Keeps new endpoints away from a network, if it has none.
    pub fn begin_removal(&self, _: &Change<'_>, network: &NetworkRecord) -> Result<()> {
        let begun = self.with(network, Entry::begin_removal);
        begun.unwrap_or_else(|| Err(Error::no_such_network(network.id.as_str())))
    }

    /// Lets endpoints in again, after a removal that failed.
    pub fn cancel_removal(&self, _: &Change<'_>, network: &NetworkRecord) {
        self.with(network, |entry| entry.removing = false);
    }

    /// Forgets a network.
    pub fn remove(&self, _: &Change<'_>, network: &NetworkRecord) -> Result<()> {
        let id = &network.id;
        self.records.remove(id.as_str()).context(format!("removing the record of network {id}"))?;
        self.networks.change(&network.tenant, |networks| networks.remove(id));
        Ok(())
    }

    /// Forgets a tenant that is gone, with all its networks.
    pub fn forget(&self, tenant: &TenantId) {
        self.networks.forget(tenant);
    }

    /// Leases addresses for an endpoint.
    pub fn lease(&self, network: &NetworkRecord, guest: Guest, wish: Wish) -> Result<Endpoint> {
        let leased = self.with(network, |entry| entry.lease(guest, wish));
        leased.unwrap_or_else(|| Err(Error::no_such_network(network.id.as_str())))
    }

    /// Gives an endpoint's addresses back.
    pub fn release(&self, network: &NetworkRecord, container: &ContainerId) -> Option<Lodger> {
        self.with(network, |entry| entry.release(container)).flatten()
    }

    /// Notes where the default route leads now.
    pub fn set_default_route(&self, network: &NetworkRecord, container: &ContainerId, default_route: bool) {
        self.with(network, |entry| {
            for lodger in entry.lodgers.values_mut().filter(|lodger| lodger.guest.container == *container) {
                lodger.endpoint.default_route = default_route;
            }
        });
    }

    /// Who is attached to a network.
    pub fn lodgers(&self, network: &NetworkRecord) -> Vec<Lodger> {
        self.with(network, |entry| entry.lodgers.values().cloned().collect()).unwrap_or_default()
    }

    /// Notes what a container is called now.
    pub fn rename(&self, container: &ContainerRecord) {
        self.networks.change(&container.tenant, |networks| {
            let lodgers = networks.values_mut().flat_map(|entry| entry.lodgers.values_mut());
            for lodger in lodgers.filter(|lodger| lodger.guest.container == container.id) {
                container.name.clone_into(&mut lodger.guest.name);
            }
        });
    }

    /// The networks that a container has an endpoint on.
    pub fn networks_of(&self, container: &ContainerRecord) -> Vec<Arc<NetworkRecord>> {
        let lodges = |entry: &&Entry| entry.lodgers.values().any(|lodger| lodger.guest.container == container.id);
        self.networks.look(&container.tenant, |networks| {
            networks.values().filter(lodges).map(|entry| entry.record.clone()).collect()
        })
    }
}

fn insert(networks: &Scoped<Networks>, entry: Entry) {
    let record = entry.record.clone();
    networks.add(&record.tenant, |networks| networks.insert(record.id.clone(), entry));
}

impl Entry {
    fn new(record: NetworkRecord, place: Place) -> Self {
        let bridge = record.bridge.as_ref();
        let ipv4 = bridge.and_then(|bridge| bridge.ipv4).map(|net| leases(&record, IpNet::V4(net)));
        let ipv6 = bridge.and_then(|bridge| bridge.ipv6).map(|net| leases(&record, IpNet::V6(net)));
        Self { record: Arc::new(record), _place: place, ipv4, ipv6, lodgers: BTreeMap::new(), removing: false }
    }

    fn begin_removal(&mut self) -> Result<()> {
        if !self.lodgers.is_empty() {
            let mut active: Vec<String> = self
                .lodgers
                .values()
                .map(|lodger| format!("name:\"{}\" id:\"{}\"", lodger.guest.name, lodger.endpoint.id.short()))
                .collect();
            active.sort();
            return Err(Error::network_in_use(&self.record.name, &active));
        }
        self.removing = true;
        Ok(())
    }

    fn lease(&mut self, guest: Guest, wish: Wish) -> Result<Endpoint> {
        if self.removing {
            return Err(Error::no_such_network(self.record.id.as_str()));
        }
        if self.record.config_only {
            return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
        }
        if self.lodgers.values().any(|lodger| lodger.guest.container == guest.container) {
            return Err(Error::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                guest.name, self.record.name
            )));
        }
        let endpoint = self.endpoint(wish)?;
        self.lodgers.insert(endpoint.id.clone(), Lodger { guest, endpoint: endpoint.clone() });
        Ok(endpoint)
    }

    fn release(&mut self, container: &ContainerId) -> Option<Lodger> {
        let id = self.lodgers.values().find(|lodger| lodger.guest.container == *container)?.endpoint.id.clone();
        let lodger = self.lodgers.remove(&id)?;
        if let (Some(leases), Some(net)) = (&mut self.ipv4, lodger.endpoint.ipv4) {
            leases.release(net.addr().into());
        }
        if let (Some(leases), Some(net)) = (&mut self.ipv6, lodger.endpoint.ipv6) {
            leases.release(net.addr().into());
        }
        Some(lodger)
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
