//! The networks that every tenant has, and what becomes of networks when the daemon starts and ends.

use ipnet::IpNet;

use crate::{
    backend::network::Keep,
    engine::{
        Engine,
        config::AddressPool,
        ipam::{self, Families, Occupied},
        networks::{lock::MachineLock, options},
    },
    model::{
        Result,
        id::{NetworkId, TenantId},
        network::{BridgeNetwork, ConfigReference, Ipam, NetworkDriver, NetworkRecord},
        time::Timestamp,
    },
};

const FOUR: Families = Families { ipv4: true, ipv6: false };

impl Engine {
    /// Sweeps what an earlier life left in the kernel, makes the predefined networks if they are not stored yet,
    /// and makes all stored networks true. No container runs yet.
    pub(crate) async fn open_networks(&self) -> Result<()> {
        self.backends.network.sweep(&Keep::default()).await?;
        let _alone = MachineLock::take().await;
        self.make_predefined(&TenantId::default_tenant()).await?;
        for record in self.networks.list_all() {
            let Some(bridge) = &record.bridge else { continue };
            match self.backends.network.create_network(bridge).await {
                Err(error) if record.is_predefined() => return Err(error),
                Err(error) => tracing::error!(network.id = %record.id, "making network {}: {error}", record.name),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Takes networks out of the kernel; their records stay. Goes on after failures and logs them.
    pub(crate) async fn close_networks(&self) {
        for record in self.networks.list_all() {
            if let Some(bridge) = &record.bridge
                && let Err(error) = self.backends.network.remove_network(bridge).await
            {
                tracing::warn!(network.id = %record.id, "removing the bridge of network {}: {error}", record.name);
            }
        }
        if let Err(error) = self.backends.network.shutdown().await {
            tracing::warn!("ending the network adapter: {error}");
        }
    }

    /// `--default-address-pool`, or ours.
    pub(super) fn address_pools(&self) -> Vec<AddressPool> {
        if self.config.address_pools.is_empty() { ipam::default_pools() } else { self.config.address_pools.clone() }
    }

    async fn make_predefined(&self, tenant: &TenantId) -> Result<()> {
        let changing = self.networks.change().await;
        for (name, driver) in [("none", NetworkDriver::Null), ("host", NetworkDriver::Host)] {
            if self.networks.get(tenant, name).is_err() {
                self.networks.put(&changing, bare(tenant, name, driver))?;
            }
        }
        match self.networks.get(tenant, "bridge") {
            Ok(record) => {
                // The uplink, the pools or the host's routes may have changed since the record was written.
                let still_fits = self.still_fits(&record).await?;
                if !still_fits {
                    let fresh = self.default_bridge(tenant, record.id.clone(), record.created).await?;
                    self.networks.put(&changing, fresh)?;
                }
            }
            Err(_) => {
                let record = self.default_bridge(tenant, NetworkId::random(), Timestamp::now()).await?;
                self.networks.put(&changing, record)?;
            }
        }
        Ok(())
    }

    async fn still_fits(&self, record: &NetworkRecord) -> Result<bool> {
        let Some(bridge) = &record.bridge else { return Ok(false) };
        let used = self.backends.network.used_subnets().await?;
        let is_free =
            bridge.ipv4.is_some_and(|own| !used.iter().any(|net| ipam::overlap(net, &IpNet::V4(own.trunc()))));
        Ok(is_free && bridge.mtu == self.network_mtu(None).await?)
    }

    async fn default_bridge(&self, tenant: &TenantId, id: NetworkId, created: Timestamp) -> Result<NetworkRecord> {
        let occupied =
            Occupied { networks: self.networks.subnets(Some(&id)), host: self.backends.network.used_subnets().await? };
        let plan = ipam::plan(&Ipam::default(), FOUR, &self.address_pools(), &occupied)?;
        let mtu = self.network_mtu(None).await?;
        let link = self.default_link();
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
            found: self.backends.network.find_bridge(&link).await?,
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

    /// The default bridge's link, as `docker0` but different for each daemon of a machine.
    fn default_link(&self) -> String {
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
