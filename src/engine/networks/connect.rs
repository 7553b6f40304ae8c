//! `POST /networks/{id}/connect` and `/disconnect`, for containers that run and for those that do not.

use std::{net::IpAddr, sync::Arc};

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        networks::{
            attachments::{check_endpoint, host_is_at_create, none_is_alone},
            files::{Resolver, own_addresses},
            hosts::{Hosts, without_address},
            options,
            runs::way_out,
        },
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::{Attachment, ContainerRecord, NetworkMode},
        id::NetworkId,
        network::{BridgeNetwork, Endpoint, EndpointSettings, NetworkDriver, NetworkRecord},
        record,
    },
    policy::Asked,
};

impl Engine {
    /// Connects a container to a network.
    pub async fn network_connect(
        &self,
        scope: &Scope,
        network: &str,
        container: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let container = self.containers.get(scope.tenant(), container)?;
        let network = self.networks.get(scope.tenant(), network)?;
        scope.permit(Asked::NetworkConnect(&settings))?;
        let engine = self.clone();
        self.run("network_connect", async move { engine.connect(&container, &network, settings).await }).await
    }

    /// Disconnects a container from a network. `force` changes nothing: no endpoint of ours outlives its container.
    pub async fn network_disconnect(&self, scope: &Scope, network: &str, container: &str, _force: bool) -> Result<()> {
        let container = self.containers.get(scope.tenant(), container)?;
        let name = match self.networks.get(scope.tenant(), network) {
            Ok(record) => record.name.clone(),
            // A stopped container may name a network that is gone.
            Err(error) if container.state().is_running() => return Err(error),
            Err(_) => network.to_owned(),
        };
        let engine = self.clone();
        self.run("network_disconnect", async move { engine.disconnect(&container, &name).await }).await
    }

    async fn connect(
        &self,
        container: &Arc<Container>,
        network: &Arc<NetworkRecord>,
        settings: EndpointSettings,
    ) -> Result<()> {
        let turn = container.turn().await?;
        let record = turn.record();
        if record.state.is_removing() {
            return Err(marked_for_removal(&record));
        }
        check_partners(&record, network)?;
        check_endpoint(Some(network), &network.name, &settings)?;
        let mut attachment = self.attachment(&record.tenant, &network.name, settings);
        let is_known = record.networking.attachments.iter().any(|other| other.name == attachment.name);
        if !record.state.is_running() && is_known {
            // What was said first holds, as with dockerd.
            return Ok(());
        }
        turn.make_room(record::weight(&attachment))?;
        if record.state.is_running() {
            self.connect_running(&turn, network, &mut attachment).await?;
        }
        turn.update(|record| record.networking.attachments.push(attachment));
        if record.state.is_running() {
            self.settle(&turn).await?;
            self.network_event(network, "connect", Some(&record.id));
        }
        turn.store(&*self.backends.runtime).await
    }

    /// Wires one more endpoint; undone if it fails half way.
    async fn connect_running(
        &self,
        turn: &Turn,
        network: &Arc<NetworkRecord>,
        attachment: &mut Attachment,
    ) -> Result<()> {
        let record = turn.record();
        let interface = free_interface(&record, network);
        self.lease(&record, attachment, network, interface, false)?;
        let endpoint = attachment.endpoint.clone().expect("lease has set it");
        let wired = self.wire_one(&record, network, &endpoint).await;
        if wired.is_err() {
            self.unwire_one(&record, network, &endpoint).await;
        }
        wired
    }

    async fn wire_one(&self, record: &ContainerRecord, network: &NetworkRecord, endpoint: &Endpoint) -> Result<()> {
        let Some(bridge) = &network.bridge else { return Ok(()) };
        let host = self.network_of(&record.tenant)?;
        let had_names = record.networking.attachments.iter().any(has_names);
        if !network.is_predefined() && !had_names {
            // Until now it asked the machine's servers; from now on it asks ours.
            let dns = self.sandbox_dns(record, true)?;
            host.create_sandbox(&record.id, Some(dns)).await?;
            let text = self.resolv_conf_text(record, Resolver::Own, endpoint.ipv6.is_some())?;
            self.edit_file(record, "resolv.conf", move |_| text).await?;
        }
        host.attach(&record.id, bridge, endpoint).await?;
        let hosts = Hosts {
            hostname: record.config.hostname.clone(),
            domainname: record.config.domainname.clone(),
            ..Hosts::default()
        };
        let lines: String = own_addresses(endpoint).into_iter().map(|address| hosts.own_line(address)).collect();
        self.edit_file(record, "hosts", move |text| text + &lines).await
    }

    async fn disconnect(&self, container: &Arc<Container>, name: &str) -> Result<()> {
        let turn = container.turn().await?;
        let record = turn.record();
        if record.state.is_removing() {
            return Err(marked_for_removal(&record));
        }
        let attachment = record.networking.attachments.iter().find(|attachment| attachment.name == name);
        let Some(attachment) = attachment else {
            return Err(Error::system(format!("container {} is not connected to network {name}", record.id)));
        };
        if name == "host" && record.state.is_running() {
            return Err(Error::invalid(
                "cannot disconnect container from host network - container was created in host network mode",
            ));
        }
        let network = self.networks.get(&record.tenant, name).ok();
        if let (Some(network), Some(endpoint)) = (&network, &attachment.endpoint) {
            self.unwire_one(&record, network, endpoint).await;
        }
        turn.update(|record| record.networking.attachments.retain(|attachment| attachment.name != name));
        if let (true, Some(network)) = (record.state.is_running(), &network) {
            self.settle(&turn).await?;
            self.network_event(network, "disconnect", Some(&record.id));
        }
        turn.store(&*self.backends.runtime).await
    }

    /// Takes one endpoint away; goes on after failures and logs them.
    async fn unwire_one(&self, record: &ContainerRecord, network: &NetworkRecord, endpoint: &Endpoint) {
        if let Some(bridge) = &network.bridge
            && let Err(error) = self.detach(record, bridge, endpoint).await
        {
            tracing::warn!(container.id = %record.id, "detaching {} from {}: {error}", record.name, network.name);
        }
        self.networks.release(network, &record.id);
        let gone: Vec<IpAddr> = own_addresses(endpoint);
        let edit = move |text: String| gone.into_iter().fold(text, |text, address| without_address(&text, address));
        if let Err(error) = self.edit_file(record, "hosts", edit).await {
            tracing::warn!(container.id = %record.id, "editing the hosts file of {}: {error}", record.name);
        }
    }

    async fn detach(&self, record: &ContainerRecord, bridge: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
        self.network_of(&record.tenant)?.detach(&record.id, bridge, endpoint).await
    }

    /// After a change of a running container's networks: the default route and the published ports follow.
    async fn settle(&self, turn: &Turn) -> Result<()> {
        let record = turn.record();
        let host = self.network_of(&record.tenant)?;
        self.publish_names(&host).await?;
        let networks = self.networks_now(&record.tenant, &record.networking.attachments)?;
        let way_out = way_out(&networks, &record.networking.attachments);
        let before = with_default_route(&record);
        if before == way_out {
            return Ok(());
        }
        turn.update(|record| {
            for attachment in &mut record.networking.attachments {
                if let Some(endpoint) = &mut attachment.endpoint {
                    endpoint.default_route = way_out.as_ref() == Some(&attachment.network);
                }
            }
        });
        for network in &networks {
            let leads = way_out.as_ref() == Some(&network.id);
            self.networks.set_default_route(network, &record.id, leads);
        }
        if let Some(before) = &before {
            host.unpublish(&record.id, before).await?;
        }
        self.move_way_out(turn, &networks).await
    }

    async fn move_way_out(&self, turn: &Turn, networks: &[Arc<NetworkRecord>]) -> Result<()> {
        let record = turn.record();
        let host = self.network_of(&record.tenant)?;
        let endpoints: Vec<Endpoint> =
            record.networking.attachments.iter().filter_map(|attachment| attachment.endpoint.clone()).collect();
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.default_route) {
            let network = networks.iter().find(|network| network.id == endpoint.network);
            if let Some(bridge) = network.and_then(|network| network.bridge.as_ref()) {
                host.attach(&record.id, bridge, endpoint).await?;
            }
        }
        let published = self.publish_ports(&record, networks, &endpoints).await?;
        turn.update(|record| record.networking.published = published);
        Ok(())
    }
}

fn has_names(attachment: &Attachment) -> bool {
    attachment.endpoint.is_some() && !crate::model::network::is_predefined(&attachment.name)
}

/// The network that the default route leads to now.
fn with_default_route(record: &ContainerRecord) -> Option<NetworkId> {
    let endpoints = record.networking.attachments.iter().filter_map(|attachment| attachment.endpoint.as_ref());
    endpoints.into_iter().find(|endpoint| endpoint.default_route).map(|endpoint| endpoint.network.clone())
}

/// What does not go together.
fn check_partners(record: &ContainerRecord, network: &NetworkRecord) -> Result<()> {
    match &record.host_config.network_mode {
        NetworkMode::Container(_) | NetworkMode::Host => Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        NetworkMode::Unset | NetworkMode::Default | NetworkMode::None | NetworkMode::Network(_) => {
            let has_none = record.networking.attachments.iter().any(|attachment| attachment.name == "none");
            match network.driver {
                // That no endpoint can be made there turns out when one is.
                NetworkDriver::Null if network.config_only => Ok(()),
                NetworkDriver::Host => Err(host_is_at_create()),
                NetworkDriver::Null => Err(none_is_alone()),
                NetworkDriver::Bridge if has_none => Err(none_is_alone()),
                NetworkDriver::Bridge => Ok(()),
            }
        }
    }
}

/// The first free number after the network's prefix.
fn free_interface(record: &ContainerRecord, network: &NetworkRecord) -> String {
    let prefix = options::interface_prefix(&network.options);
    let is_taken = |name: &String| {
        let endpoints = record.networking.attachments.iter().filter_map(|attachment| attachment.endpoint.as_ref());
        endpoints.into_iter().any(|endpoint| endpoint.interface == *name)
    };
    (0u32..).map(|number| format!("{prefix}{number}")).find(|name| !is_taken(name)).expect("numbers do not end")
}

fn marked_for_removal(record: &ContainerRecord) -> Error {
    Error::system(format!(
        "Container {} is marked for removal and cannot be connected or disconnected to the network",
        record.id
    ))
}
