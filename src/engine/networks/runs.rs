//! The network of a container's run: set up at start, taken back at the end.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    engine::{
        Engine, host,
        networks::{
            attachments::{check_endpoint, gateway, links, wish},
            files::Resolver,
            options, ports,
            store::Guest,
        },
    },
    model::{
        Error, ErrorKind, Result,
        container::{Attachment, ContainerRecord, NetworkMode},
        id::NetworkId,
        network::{Endpoint, EndpointSettings, NetworkRecord, PublishedPort},
    },
    oci::{NetworkFiles, NetworkNamespace},
    policy,
};

/// Where a run's network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunNamespace {
    /// That of the tenant's host: the machine's own, or one that is held at a path.
    Host(Option<PathBuf>),
    /// A path: the container's own sandbox, or another container's.
    Path(PathBuf),
}

impl RunNamespace {
    /// For the spec.
    pub(crate) fn as_oci(&self) -> NetworkNamespace<'_> {
        fn text(path: &Path) -> &str {
            path.to_str().expect("our own paths are UTF-8")
        }
        match self {
            Self::Host(path) => NetworkNamespace::Host(path.as_deref().map(text)),
            Self::Path(path) => NetworkNamespace::Path(text(path)),
        }
    }
}

/// What a start has set up.
#[derive(Clone, Debug)]
pub(crate) struct RunNetwork {
    /// Where the network is.
    pub namespace: RunNamespace,
    /// Attachments with their endpoints, for the record.
    pub attachments: Vec<Attachment>,
    /// Ports as they are published, for the record.
    pub published: Vec<PublishedPort>,
    /// Files to mount over those of the image.
    pub files: NetworkFiles,
    /// The name the container calls itself.
    pub hostname: String,
}

impl RunNetwork {
    /// Path of the container's own sandbox or of the one that it shares.
    pub(crate) fn sandbox_path(&self) -> Option<String> {
        match &self.namespace {
            RunNamespace::Host(_) => None,
            RunNamespace::Path(path) => Some(path.to_string_lossy().into_owned()),
        }
    }
}

impl Engine {
    /// Sets up the network of a run and tells of it. Nothing is left behind by a failure that `release_network` does not find.
    pub(crate) async fn connect_run(&self, record: &ContainerRecord) -> Result<RunNetwork> {
        match &record.host_config.network_mode {
            NetworkMode::Container(other) => self.join(record, other),
            NetworkMode::Host => self.use_host(record).await,
            NetworkMode::Unset | NetworkMode::Default | NetworkMode::None | NetworkMode::Network(_) => {
                let wired = self.wire(record).await;
                let (wired, networks) =
                    wired.map_err(|error| error.context("failed to set up container networking"))?;
                for network in networks {
                    self.network_event(&network, "connect", Some(&record.id));
                }
                Ok(wired)
            }
        }
    }

    /// Takes the network of a run back and tells of it; goes on after failures and logs them.
    pub(crate) async fn release_network(&self, record: &ContainerRecord) {
        for network in self.unwire(record).await {
            self.network_event(&network, "disconnect", Some(&record.id));
        }
    }

    /// Takes back what [`Self::wire`] made; answers what that was connected to.
    pub(super) async fn unwire(&self, record: &ContainerRecord) -> Vec<Arc<NetworkRecord>> {
        let networks = self.networks.networks_of(record);
        let mode = &record.host_config.network_mode;
        if !matches!(mode, NetworkMode::Container(_) | NetworkMode::Host)
            && let Err(error) = self.remove_sandbox(record).await
        {
            tracing::warn!(container.id = %record.id, "removing the sandbox of container {}: {error}", record.name);
        }
        for network in &networks {
            // Addresses go back only now: another container may get them at once.
            self.networks.release(network, &record.id);
        }
        if !networks.is_empty()
            && let Ok(host) = self.network_of(&record.tenant)
            && let Err(error) = self.publish_names(&host).await
        {
            tracing::warn!("publishing names: {error}");
        }
        networks
    }

    async fn remove_sandbox(&self, record: &ContainerRecord) -> Result<()> {
        self.network_of(&record.tenant)?.remove_sandbox(&record.id).await
    }

    /// Another container's network: its sandbox and its files.
    fn join(&self, record: &ContainerRecord, reference: &str) -> Result<RunNetwork> {
        let other = self.containers.get(&record.tenant, reference).map_err(|error| {
            // dockerd masks "not found" here: it is not the container of the request that is missing.
            Error::system(format!("joining network namespace of container: {}", error.message())).with_source(error)
        })?;
        let other = other.record();
        if other.id == record.id {
            return Err(Error::system("cannot join own network namespace"));
        }
        if !other.state.is_running() {
            return Err(Error::conflict(format!(
                "cannot join network namespace of a non running container: container {} is {}",
                other.name,
                other.state.as_str()
            )));
        }
        let owner = self.owner_of_network(other.clone());
        let namespace = match &other.networking.sandbox {
            Some(path) => RunNamespace::Path(PathBuf::from(path)),
            None => RunNamespace::Host(self.network_of(&record.tenant)?.namespace()),
        };
        Ok(RunNetwork {
            namespace,
            attachments: Vec::new(),
            published: Vec::new(),
            files: self.shared_files(&owner),
            hostname: owner.config.hostname.clone(),
        })
    }

    /// Who has the files, at the end of a chain of containers that share.
    fn owner_of_network(&self, mut record: Arc<ContainerRecord>) -> Arc<ContainerRecord> {
        const LONGEST_CHAIN: usize = 32;
        for _ in 0..LONGEST_CHAIN {
            let Some(next) = record.host_config.network_mode.container() else { break };
            let Ok(next) = self.containers.get(&record.tenant, next) else { break };
            record = next.record();
        }
        record
    }

    async fn use_host(&self, record: &ContainerRecord) -> Result<RunNetwork> {
        let networks = self.networks_now(&record.tenant, &record.networking.attachments)?;
        let mut attachments = record.networking.attachments.clone();
        for (attachment, network) in attachments.iter_mut().zip(&networks) {
            self.lease(record, attachment, network, String::new(), false)?;
        }
        // The short id stands for "no host name given": then it is the host's.
        let hostname = match record.config.hostname.as_str() {
            name if name.is_empty() || name == record.id.short() => host::hostname(),
            name => name.to_owned(),
        };
        let files = self.write_network_files(record, &hostname, Resolver::Host, &[]).await?;
        let host = self.network_of(&record.tenant)?;
        host.relay_names(&self.loopback_servers(record)?).await?;
        let namespace = RunNamespace::Host(host.namespace());
        Ok(RunNetwork { namespace, attachments, published: Vec::new(), files, hostname })
    }

    /// A sandbox with an endpoint for each attachment; answers also what that is connected to.
    pub(super) async fn wire(&self, record: &ContainerRecord) -> Result<(RunNetwork, Vec<Arc<NetworkRecord>>)> {
        let mut attachments = record.networking.attachments.clone();
        let networks = self.networks_now(&record.tenant, &attachments)?;
        let way_out = way_out(&networks, &attachments);
        for (number, (attachment, network)) in attachments.iter_mut().zip(&networks).enumerate() {
            check_endpoint(Some(network), &network.name, &attachment.settings)?;
            let interface = format!("{}{number}", options::interface_prefix(&network.options));
            self.lease(record, attachment, network, interface, way_out.as_ref() == Some(&network.id))?;
        }
        let endpoints: Vec<Endpoint> =
            attachments.iter().filter_map(|attachment| attachment.endpoint.clone()).collect();
        let has_names = networks.iter().any(|network| !network.is_predefined());
        let has_server = has_names || (way_out.is_some() && self.needs_relay(record)?);
        let dns = if has_server { Some(self.sandbox_dns(record, way_out.is_some())?) } else { None };
        let host = self.network_of(&record.tenant)?;
        let namespace = host.create_sandbox(&record.id, dns).await?;
        for (network, endpoint) in networks.iter().zip(&endpoints) {
            if let Some(bridge) = &network.bridge {
                host.attach(&record.id, bridge, endpoint).await?;
            }
        }
        let published = self.publish_ports(record, &networks, &endpoints).await?;
        let resolver = if has_server { Resolver::Own } else { Resolver::Itself };
        let hostname = record.config.hostname.clone();
        let files = self.write_network_files(record, &hostname, resolver, &endpoints).await?;
        self.publish_names(&host).await?;
        for (network, endpoint) in networks.iter().zip(&endpoints) {
            if network.name == "bridge" {
                self.tell_linked(record, endpoint).await;
            }
        }
        let wired = RunNetwork { namespace: RunNamespace::Path(namespace), attachments, published, files, hostname };
        Ok((wired, networks))
    }

    /// Leases an endpoint and notes it in the attachment.
    pub(super) fn lease(
        &self,
        record: &ContainerRecord,
        attachment: &mut Attachment,
        network: &NetworkRecord,
        interface: String,
        default_route: bool,
    ) -> Result<()> {
        let guest = guest(record, &attachment.settings);
        network.name.clone_into(&mut attachment.name);
        attachment.network = network.id.clone();
        attachment.dns_names = if network.is_predefined() { Vec::new() } else { guest.dns_names() };
        let endpoint = self.networks.lease(network, guest, wish(&attachment.settings, interface, default_route)?)?;
        attachment.endpoint = Some(endpoint);
        Ok(())
    }

    /// Publishes a container's ports at the endpoint with the default route; without a way out there are none.
    pub(super) async fn publish_ports(
        &self,
        record: &ContainerRecord,
        networks: &[Arc<NetworkRecord>],
        endpoints: &[Endpoint],
    ) -> Result<Vec<PublishedPort>> {
        let mut requests = ports::requests(record)?;
        let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.default_route) else { return Ok(Vec::new()) };
        let bridge = networks
            .iter()
            .find(|network| network.id == endpoint.network)
            .and_then(|network| network.bridge.as_ref())
            .filter(|_| !requests.is_empty());
        let Some(bridge) = bridge else { return Ok(Vec::new()) };
        let policy = self.tenants.get(&record.tenant)?.policy();
        for request in &mut requests {
            let host_ip = request.host_ip.or(bridge.default_host_ip);
            request.machine = policy::machine_address(&policy, host_ip, request.host_ports);
        }
        self.network_of(&record.tenant)?.publish(&record.id, bridge, endpoint, &requests).await.map_err(|error| {
            let text = format!(
                "driver failed programming external connectivity on endpoint {} ({})",
                record.name, endpoint.id
            );
            // Also a port that is taken is dockerd's fault, not the client's.
            Error::new(ErrorKind::System, format!("{text}: {}", error.message())).with_source(error)
        })
    }
}

/// Which network gives the default route.
pub fn way_out(networks: &[Arc<NetworkRecord>], attachments: &[Attachment]) -> Option<NetworkId> {
    let candidates: Vec<(&NetworkRecord, &EndpointSettings)> =
        networks.iter().zip(attachments).map(|(network, attachment)| (&**network, &attachment.settings)).collect();
    gateway(&candidates)
}

fn guest(record: &ContainerRecord, settings: &EndpointSettings) -> Guest {
    Guest {
        container: record.id.clone(),
        name: record.name.clone(),
        aliases: settings.aliases.clone().unwrap_or_default(),
        hostname: record.config.hostname.clone(),
        links: links(settings),
    }
}
