//! `POST /networks/create`

use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    backend::network::NetworkBackend,
    engine::{
        Engine,
        ipam::{self, Families, Occupied, Plan},
        networks::{
            configuration,
            lock::MachineLock,
            options::{self, BridgeOptions},
            store::Change,
        },
        tenants::Scope,
    },
    model::{
        Error, Result,
        id::NetworkId,
        network::{BridgeNetwork, NetworkCreateRequest, NetworkDriver, NetworkRecord, is_predefined},
        time::Timestamp,
    },
    policy::Asked,
};

/// What create answers.
#[derive(Clone, Debug)]
pub struct NetworkCreated {
    /// The new network.
    pub id: NetworkId,
    /// What was asked for and is not carried out.
    pub warning: String,
}

impl Engine {
    /// Makes a network.
    pub async fn network_create(&self, scope: &Scope, request: NetworkCreateRequest) -> Result<NetworkCreated> {
        check(&request)?;
        scope.permit(Asked::NetworkCreate(&request))?;
        let (engine, scope) = (self.clone(), scope.clone());
        self.run("network_create", async move { engine.make_network(&scope, request).await }).await
    }

    async fn make_network(&self, scope: &Scope, request: NetworkCreateRequest) -> Result<NetworkCreated> {
        let changing = self.networks.change().await;
        self.check_name_is_free(scope, &request.name)?;
        if request.config_only {
            return self.make_configuration(&changing, scope, request).await;
        }
        let request = self.configured(scope, request)?;
        check_ipam_driver(&request)?;
        let options = BridgeOptions::read(&request.options)?;
        let (ipv4, ipv6) = options::families(&request.options)?;
        let families = Families {
            ipv4: request.enable_ipv4.or(ipv4).unwrap_or(true),
            ipv6: request.enable_ipv6.or(ipv6).unwrap_or(false),
        };
        if !families.ipv4 && !families.ipv6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
        }
        ipam::validate(&request.ipam.config, families.ipv6)?;
        let _alone = MachineLock::take(scope.network()).await;
        let plan = self.plan_addresses(scope, &request, families).await?;
        let warning = match options.unknown.as_slice() {
            [] => String::new(),
            unknown => format!("options that ringer does not carry out: {}", unknown.join(", ")),
        };
        let bridge = self.bridge(scope, &request, options, &plan).await?;
        let mut record = record(scope, request, families);
        record.id.clone_from(&bridge.id);
        record.ipam.config = plan.config;
        record.chosen_subnet = plan.chosen_by_client;
        record.bridge = Some(bridge);
        self.keep_network(&changing, scope, record, warning).await
    }

    /// Makes a network that is only a configuration: nothing in the kernel, and nothing is looked at before use.
    async fn make_configuration(
        &self,
        changing: &Change<'_>,
        scope: &Scope,
        request: NetworkCreateRequest,
    ) -> Result<NetworkCreated> {
        let families =
            Families { ipv4: request.enable_ipv4.unwrap_or(true), ipv6: request.enable_ipv6.unwrap_or(false) };
        ipam::validate(&request.ipam.config, families.ipv6)?;
        let record = NetworkRecord { driver: NetworkDriver::Null, ..record(scope, request, families) };
        self.keep_network(changing, scope, record, String::new()).await
    }

    fn check_name_is_free(&self, scope: &Scope, name: &str) -> Result<()> {
        if self.networks.list(scope.tenant()).iter().any(|record| record.name == name) {
            return Err(Error::network_exists(name));
        }
        Ok(())
    }

    async fn keep_network(
        &self,
        changing: &Change<'_>,
        scope: &Scope,
        record: NetworkRecord,
        warning: String,
    ) -> Result<NetworkCreated> {
        let record = self.realise(changing, scope.network(), record).await?;
        self.network_event(&record, "create", None);
        tracing::info!(network.id = %record.id, network.name = record.name, "created network {}", record.name);
        Ok(NetworkCreated { id: record.id.clone(), warning })
    }

    async fn plan_addresses(&self, scope: &Scope, request: &NetworkCreateRequest, families: Families) -> Result<Plan> {
        let pools = self.address_pools();
        let occupied = self.occupied(scope.network(), None).await?;
        let plan = ipam::plan(&request.ipam, families, &pools, &occupied)?;
        ipam::check_reach(&request.ipam.config, families, &occupied.host)?;
        Ok(plan)
    }

    /// What is taken in a host, but for the subnets of one network.
    pub(super) async fn occupied(
        &self,
        host: &Arc<dyn NetworkBackend>,
        except: Option<&NetworkId>,
    ) -> Result<Occupied> {
        let networks = self.networks.subnets(&self.tenants.in_host(host), except);
        Ok(Occupied { networks, host: host.used_subnets().await? })
    }

    async fn bridge(
        &self,
        scope: &Scope,
        request: &NetworkCreateRequest,
        options: BridgeOptions,
        plan: &Plan,
    ) -> Result<BridgeNetwork> {
        let id = NetworkId::random();
        let found = match options.link.as_deref() {
            Some(link) => self.find_bridge(scope.network(), &id, link).await?,
            None => None,
        };
        Ok(BridgeNetwork {
            link: options.link.unwrap_or_else(|| format!("br-{}", id.short())),
            id,
            found,
            ipv4: plan.ipv4,
            ipv6: plan.ipv6,
            internal: request.internal,
            mtu: self.network_mtu(scope.network(), options.mtu).await?,
            icc: options.icc,
            masquerade: options.masquerade,
            default_host_ip: options.default_host_ip,
        })
    }

    /// What a bridge that is there already has for addresses: the network will use it. Not one of another network.
    async fn find_bridge(
        &self,
        host: &Arc<dyn NetworkBackend>,
        id: &NetworkId,
        link: &str,
    ) -> Result<Option<Vec<IpNet>>> {
        match self.networks.owner_of_link(&self.tenants.in_host(host), link) {
            Some(other) => Err(Error::same_bridge_name(link, id.as_str(), other.as_str())),
            None => host.find_bridge(link).await,
        }
    }

    /// The wanted MTU, the configured one, or that of the host's uplink.
    pub(super) async fn network_mtu(&self, host: &Arc<dyn NetworkBackend>, wanted: Option<u32>) -> Result<u32> {
        match wanted.or(self.config.mtu) {
            Some(mtu) => Ok(mtu),
            None => Ok(host.uplink().await?.mtu),
        }
    }

    /// Makes a record true in the kernel and stores it; undone if it cannot be stored.
    pub(super) async fn realise(
        &self,
        changing: &Change<'_>,
        host: &Arc<dyn NetworkBackend>,
        record: NetworkRecord,
    ) -> Result<Arc<NetworkRecord>> {
        let bridge = record.bridge.clone();
        if let Some(bridge) = &bridge {
            host.create_network(bridge).await?;
        }
        let stored = self.networks.put(changing, record);
        if let (Err(_), Some(bridge)) = (&stored, &bridge)
            && let Err(error) = host.remove_network(bridge).await
        {
            tracing::warn!(network.id = %bridge.id, "removing a network that could not be stored: {error}");
        }
        stored
    }
}

/// What dockerd refuses before it looks at what is there, in its order.
fn check(request: &NetworkCreateRequest) -> Result<()> {
    if is_predefined(&request.name) {
        // The blank at the end is dockerd's.
        return Err(Error::forbidden(format!("operation is not permitted on predefined {} network ", request.name)));
    }
    if request.driver == "overlay" {
        return Err(not_a_manager());
    }
    let (_, ipv6) = options::families(&request.options)?;
    ipam::validate(&request.ipam.config, request.enable_ipv6.or(ipv6).unwrap_or(false))?;
    if request.name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty"));
    }
    match request.driver.as_str() {
        "" | "bridge" | "default" => {}
        // What a configuration is for turns out when it is used.
        _ if request.config_only => {}
        driver @ ("host" | "null") => {
            return Err(Error::forbidden(format!("only one instance of \"{driver}\" network is allowed")));
        }
        driver => return Err(Error::not_found(format!("plugin \"{driver}\" not found"))),
    }
    if !matches!(request.scope.as_str(), "" | "local") {
        return Err(Error::forbidden("cannot create a swarm scoped network when swarm is not active"));
    }
    configuration::check(request)?;
    if request.ingress {
        return Err(Error::forbidden("Ingress network can only be global scope network"));
    }
    Ok(())
}

fn check_ipam_driver(request: &NetworkCreateRequest) -> Result<()> {
    match request.ipam.driver.as_str() {
        "" | "default" => Ok(()),
        driver => Err(Error::not_found(format!("plugin \"{driver}\" not found"))),
    }
}

/// 403 here, 503 everywhere else, as with dockerd.
fn not_a_manager() -> Error {
    Error::forbidden(Error::not_a_swarm_manager().message())
}

/// A record as the request alone makes it: without addresses and without a bridge.
fn record(scope: &Scope, request: NetworkCreateRequest, families: Families) -> NetworkRecord {
    let mut ipam = request.ipam;
    if ipam.driver.is_empty() {
        "default".clone_into(&mut ipam.driver);
    }
    NetworkRecord {
        tenant: scope.tenant().clone(),
        id: NetworkId::random(),
        name: request.name,
        created: Timestamp::now(),
        driver: NetworkDriver::Bridge,
        internal: request.internal,
        attachable: request.attachable,
        enable_ipv4: families.ipv4,
        enable_ipv6: families.ipv6,
        ipam,
        chosen_subnet: false,
        options: request.options,
        labels: request.labels,
        config_only: request.config_only,
        config_from: request.config_from,
        bridge: None,
    }
}
