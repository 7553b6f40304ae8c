//! The networks that every tenant has, and what becomes of networks when the daemon starts and ends.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    backend::network::{Keep, NetworkBackend},
    engine::{
        Engine,
        config::AddressPool,
        ipam::{self, Families},
        networks::{files::DNS_PORT, lock::MachineLock, options, resolv_conf::ResolvConf},
        tenants::Tenant,
    },
    model::{
        Result,
        id::{NetworkId, TenantId},
        network::{BridgeNetwork, ConfigReference, Ipam, NetworkDriver, NetworkRecord, Opening, Protocol},
        time::Timestamp,
    },
};

const FOUR: Families = Families { ipv4: true, ipv6: false };

impl Engine {
    /// Sweeps what an earlier life left in the kernel, hosts of tenants that are no more among it, and opens the networks
    /// of all tenants. No container runs yet.
    pub(crate) async fn open_networks(&self) -> Result<()> {
        let tenants = self.tenants.list();
        let known: BTreeSet<TenantId> = tenants.iter().map(|tenant| tenant.host_of().clone()).collect();
        self.backends.network.sweep(&known).await?;
        for tenant in &tenants {
            tenant.network().sweep(&Keep::default()).await?;
        }
        for tenant in &tenants {
            self.open_networks_of(tenant).await?;
        }
        Ok(())
    }

    /// Makes the predefined networks of a tenant if they are not stored yet, and makes all that are stored true in its
    /// host.
    pub(crate) async fn open_networks_of(&self, tenant: &Tenant) -> Result<()> {
        let host = tenant.network();
        if host.namespace().is_some() {
            self.backends.network.open_to(self.openings()).await?;
        }
        let _alone = MachineLock::take(host).await;
        self.make_predefined(tenant).await?;
        for record in self.networks.list(tenant.id()) {
            let Some(bridge) = &record.bridge else { continue };
            match host.create_network(bridge).await {
                Err(error) if record.is_predefined() => return Err(error),
                Err(error) => tracing::error!(network.id = %record.id, "making network {}: {error}", record.name),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// What jobs reach at addresses of the machine: what is configured, and the name servers that they are told of.
    fn openings(&self) -> BTreeSet<Opening> {
        let servers = ResolvConf::of_host().servers.into_iter().chain(self.config.dns.iter().copied());
        let of_names = servers.filter(|server| !server.is_loopback()).flat_map(|server| {
            let address = SocketAddr::new(server, DNS_PORT);
            [Protocol::Udp, Protocol::Tcp].map(|protocol| Opening { protocol, address })
        });
        self.config.job_openings.iter().copied().chain(of_names).collect()
    }

    /// Takes all networks out of the kernel; their records stay. Goes on after failures and logs them.
    pub(crate) async fn close_networks(&self) {
        for tenant in self.tenants.list() {
            self.close_networks_of(&tenant).await;
        }
        if let Err(error) = self.backends.network.shutdown().await {
            tracing::warn!("ending the network adapter: {error}");
        }
    }

    /// Takes the networks of a tenant out of the kernel; their records stay. The host of a job goes as a whole.
    pub(crate) async fn close_networks_of(&self, tenant: &Tenant) {
        if let Err(error) = self.unmake_networks(tenant).await {
            tracing::warn!(tenant = %tenant.id(), "taking the networks of {} down: {}", tenant.id(), error.chain());
        }
    }

    /// Removes the networks of a tenant, those that it always has too, from the kernel and from the disk. Nothing runs on
    /// them any more. May be asked again after a failure.
    pub async fn remove_networks_of(&self, tenant: &Tenant) -> Result<()> {
        let changing = self.networks.change().await;
        self.unmake_networks(tenant).await?;
        for record in self.networks.list(tenant.id()) {
            self.networks.remove(&changing, &record)?;
        }
        Ok(())
    }

    /// Goes on after failures.
    async fn unmake_networks(&self, tenant: &Tenant) -> Result<()> {
        let host = tenant.network();
        let (is_machine, is_shared) = (host.namespace().is_none(), self.tenants.in_host(host).len() > 1);
        let mut result = Ok(());
        if is_machine || is_shared {
            for record in self.networks.list(tenant.id()) {
                if let Some(bridge) = &record.bridge {
                    let removed = host.remove_network(bridge).await;
                    result = result.and(removed.map_err(|error| error.context(format!("network {}", record.name))));
                }
            }
        }
        let _changing = self.tenants.change_hosts().await;
        if !is_machine && self.tenants.leave_host(tenant) {
            result = result.and(self.backends.network.remove(tenant.host_of()).await);
        }
        result
    }

    /// `--default-address-pool`, or ours.
    pub(super) fn address_pools(&self) -> Vec<AddressPool> {
        if self.config.address_pools.is_empty() { ipam::default_pools() } else { self.config.address_pools.clone() }
    }

    async fn make_predefined(&self, tenant: &Tenant) -> Result<()> {
        let (tenant, host) = (tenant.id(), tenant.network());
        let changing = self.networks.change().await;
        for (name, driver) in [("none", NetworkDriver::Null), ("host", NetworkDriver::Host)] {
            if self.networks.get(tenant, name).is_err() {
                self.networks.put(&changing, bare(tenant, name, driver))?;
            }
        }
        // A runner has no bridge: it lives in the host itself.
        if tenant.served().is_some() {
            return Ok(());
        }
        match self.networks.get(tenant, "bridge") {
            Ok(record) => {
                // The uplink, the pools or the host's routes may have changed since the record was written.
                let still_fits = self.still_fits(host, &record).await?;
                if !still_fits {
                    let fresh = self.default_bridge(tenant, host, record.id.clone(), record.created).await?;
                    self.networks.put(&changing, fresh)?;
                }
            }
            Err(_) => {
                let record = self.default_bridge(tenant, host, NetworkId::random(), Timestamp::now()).await?;
                self.networks.put(&changing, record)?;
            }
        }
        Ok(())
    }

    async fn still_fits(&self, host: &Arc<dyn NetworkBackend>, record: &NetworkRecord) -> Result<bool> {
        let Some(bridge) = &record.bridge else { return Ok(false) };
        let used = host.used_subnets().await?;
        let is_free =
            bridge.ipv4.is_some_and(|own| !used.iter().any(|net| ipam::overlap(net, &IpNet::V4(own.trunc()))));
        Ok(is_free && bridge.mtu == self.network_mtu(host, None).await?)
    }

    async fn default_bridge(
        &self,
        tenant: &TenantId,
        host: &Arc<dyn NetworkBackend>,
        id: NetworkId,
        created: Timestamp,
    ) -> Result<NetworkRecord> {
        let occupied = self.occupied(host, Some(&id)).await?;
        let plan = ipam::plan(&Ipam::default(), FOUR, &self.address_pools(), &occupied)?;
        let mtu = self.network_mtu(host, None).await?;
        let link = self.default_link(host, &id);
        let bridge = BridgeNetwork {
            id: id.clone(),
            link: link.clone(),
            ipv4: plan.ipv4,
            ipv6: None,
            internal: false,
            mtu,
            icc: true,
            masquerade: true,
            default_host_ip: None,
            found: host.find_bridge(&link).await?,
        };
        Ok(NetworkRecord {
            id,
            created,
            ipam: Ipam { driver: "default".to_owned(), options: None, config: plan.config },
            options: options::of_default_bridge(&link, mtu),
            bridge: Some(bridge),
            ..bare(tenant, "bridge", NetworkDriver::Bridge)
        })
    }

    /// The default bridge's link, as `docker0` but different for each daemon of a machine; in the host of a job `docker0`
    /// itself, for the first of its tenants.
    fn default_link(&self, host: &Arc<dyn NetworkBackend>, id: &NetworkId) -> String {
        if host.namespace().is_some() {
            let is_free = |link: &str| {
                self.networks.owner_of_link(&self.tenants.in_host(host), link).is_none_or(|own| own == *id)
            };
            return Some("docker0".to_owned())
                .filter(|link| is_free(link))
                .unwrap_or_else(|| format!("br-{}", id.short()));
        }
        if self.config.instance.is_empty() { "rng0".to_owned() } else { format!("rng-{}", self.config.instance) }
    }
}

fn bare(tenant: &TenantId, name: &str, driver: NetworkDriver) -> NetworkRecord {
    NetworkRecord {
        tenant: tenant.clone(),
        id: NetworkId::random(),
        name: name.to_owned(),
        created: Timestamp::now(),
        driver,
        internal: false,
        attachable: false,
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: Ipam { driver: "default".to_owned(), ..Ipam::default() },
        chosen_subnet: false,
        options: indexmap::IndexMap::new(),
        labels: indexmap::IndexMap::new(),
        config_only: false,
        config_from: ConfigReference::default(),
        bridge: None,
    }
}
