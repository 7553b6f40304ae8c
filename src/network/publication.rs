//! The published ports of one endpoint: reserved, redirected by the kernel where it can, proxied where not.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::task::JoinSet;

use super::{
    firewall::{LinkName, Mapping},
    netns::Namespace,
    ports::{Lease, Reservation},
    proxy,
};
use crate::model::network::{Endpoint, PublishedPort};

/// Connections, or clients that are answered, of a job's port on the machine at once: it may be open to more than the machine itself.
const ON_MACHINE: usize = 1024;

/// Reserved ports; they are given back when this is dropped.
pub struct Publication {
    ports: Vec<PublishedPort>,
    mappings: Vec<Mapping>,
    waiting: Vec<(Reservation, SocketAddr, usize)>,
    leases: Vec<Lease>,
    proxies: JoinSet<()>,
}

impl Publication {
    /// Decides for every reserved port how it is carried to the endpoint. `on_machine` are a job's that answer there
    /// too, which nobody is shown.
    pub fn new(
        reservations: Vec<Reservation>,
        on_machine: Vec<Reservation>,
        bridge: LinkName,
        endpoint: &Endpoint,
    ) -> Self {
        let mut publication = Self {
            ports: reservations.iter().map(|reservation| reservation.published).collect(),
            mappings: Vec::new(),
            waiting: Vec::new(),
            leases: Vec::new(),
            proxies: JoinSet::new(),
        };
        for reservation in reservations {
            if let Some(container) = target(&reservation.published, endpoint) {
                publication.mappings.extend(mapping(&reservation.published, bridge, container));
                publication.waiting.push((reservation, container, usize::MAX));
            }
        }
        for reservation in on_machine {
            if let Some(container) = target(&reservation.published, endpoint) {
                publication.waiting.push((reservation, container, ON_MACHINE));
            }
        }
        publication
    }

    /// What the firewall should redirect.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// What inspect shows.
    pub fn ports(&self) -> &[PublishedPort] {
        &self.ports
    }

    /// Starts the proxies on the reserved sockets; they connect from `host`.
    pub fn serve(mut self, host: &Namespace) -> io::Result<Self> {
        for (reservation, container, most) in std::mem::take(&mut self.waiting) {
            self.leases.push(reservation.lease);
            if let Some(socket) = reservation.socket {
                proxy::serve(&mut self.proxies, socket, host.clone(), container, most)?;
            }
        }
        Ok(self)
    }

    /// Ends the proxies and waits until their ports are free; the answer is what the firewall has to forget.
    pub async fn stop(mut self) -> Vec<Mapping> {
        self.proxies.shutdown().await;
        self.mappings
    }
}

/// Where a host port leads: to the container's address of the same family, else to the other one.
fn target(published: &PublishedPort, endpoint: &Endpoint) -> Option<SocketAddr> {
    let four = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let six = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    let address = if published.host_ip.is_ipv4() { four.or(six) } else { six.or(four) };
    Some(SocketAddr::new(address?, published.port.number))
}

/// The kernel cannot change the address family, nor route loopback addresses out of a link.
fn mapping(published: &PublishedPort, bridge: LinkName, container: SocketAddr) -> Option<Mapping> {
    let host = SocketAddr::new(published.host_ip, published.host_port);
    let possible = host.is_ipv4() == container.is_ipv4() && !host.ip().is_loopback();
    possible.then_some(Mapping { bridge, protocol: published.port.protocol, host, container })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        id::{EndpointId, NetworkId},
        network::{Port, Protocol},
    };

    fn carried(host_ip: &str, ipv6: Option<&str>) -> (Option<SocketAddr>, bool) {
        let published = PublishedPort {
            port: Port { number: 80, protocol: Protocol::Tcp },
            host_ip: host_ip.parse().unwrap(),
            host_port: 8080,
        };
        let endpoint = Endpoint {
            id: EndpointId::random(),
            network: NetworkId::random(),
            ipv4: Some("172.18.0.2/16".parse().unwrap()),
            ipv6: ipv6.map(|net| net.parse().unwrap()),
            link_local: Vec::new(),
            gateway4: None,
            gateway6: None,
            mac: [2; 6],
            interface: "eth0".to_owned(),
            default_route: true,
        };
        let target = target(&published, &endpoint);
        (target, target.and_then(|target| mapping(&published, LinkName::from("rng0"), target)).is_some())
    }

    #[test]
    fn loopback_and_other_families_are_proxied() {
        let four = Some("172.18.0.2:80".parse().unwrap());
        assert_eq!(carried("0.0.0.0", None), (four, true));
        assert_eq!(carried("127.0.0.1", None), (four, false));
        assert_eq!(carried("::", None), (four, false));
        assert_eq!(carried("::", Some("fd00::2/64")), (Some("[fd00::2]:80".parse().unwrap()), true));
    }
}
