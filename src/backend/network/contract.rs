//! What every [`NetworkBackend`] and [`NetworkHosts`] promises. The fake passes it in memory, the adapter in a fresh network namespace.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::{Keep, NetworkBackend, NetworkHosts};
use crate::model::{
    id::{ContainerId, EndpointId, NetworkId, TenantId},
    network::{BridgeNetwork, Endpoint, Port, PortRequest, Protocol},
};

/// Runs the whole suite against a backend that holds nothing yet.
pub async fn all(backend: &dyn NetworkBackend) {
    creating_and_removing_may_be_repeated(backend).await;
    a_bridge_can_be_found(backend).await;
    attaching_needs_sandbox_and_network(backend).await;
    attaching_and_detaching_may_be_repeated(backend).await;
    ephemeral_ports_differ(backend).await;
    a_taken_port_is_refused_until_it_is_given_back(backend).await;
    ports_are_published_all_or_none(backend).await;
    a_sweep_spares_what_is_kept(backend).await;
}

/// Runs the suite of hosts, and that of backends in the host of a job.
pub async fn hosts(hosts: &dyn NetworkHosts) {
    opening_and_removing_hosts_may_be_repeated(hosts).await;
    what_is_made_in_one_host_is_free_in_another(hosts).await;
    hosts_are_swept_but_those_that_are_kept(hosts).await;
    let job = tenant("contract");
    all(&*hosts.open(&job).await.expect("a host is made")).await;
    hosts.remove(&job).await.expect("a host is removed");
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant's name")
}

async fn opening_and_removing_hosts_may_be_repeated(hosts: &dyn NetworkHosts) {
    assert_eq!(hosts.machine().namespace(), None);
    let job = tenant("twice");
    let first = hosts.open(&job).await.expect("a host is made").namespace().expect("a namespace of its own");
    let again = hosts.open(&job).await.expect("a host is taken up").namespace();
    assert_eq!(again, Some(first));
    for _ in 0..2 {
        hosts.remove(&job).await.expect("a host is removed");
    }
}

async fn what_is_made_in_one_host_is_free_in_another(hosts: &dyn NetworkHosts) {
    let jobs = [tenant("one"), tenant("two")];
    let network = network(1);
    for job in &jobs {
        let host = hosts.open(job).await.expect("a host is made");
        host.create_network(&network).await.expect("the same network");
        let container = ContainerId::random();
        host.create_sandbox(&container, None).await.expect("a sandbox is created");
        let endpoint = endpoint(&network, 2, "eth0");
        host.attach(&container, &network, &endpoint).await.expect("attached");
        host.publish(&container, &network, &endpoint, &[tcp(80, Some(18090))]).await.expect("the same port");
    }
    let found = hosts.machine().find_bridge(&network.link).await.expect("the machine is looked at");
    assert_eq!(found, None, "nothing of it is the machine's");
    hosts.remove(&jobs[0]).await.expect("a host is removed");
    let other = hosts.open(&jobs[1]).await.expect("still there");
    assert!(other.find_bridge(&network.link).await.expect("looked for").is_some());
    hosts.remove(&jobs[1]).await.expect("a host is removed");
}

async fn hosts_are_swept_but_those_that_are_kept(hosts: &dyn NetworkHosts) {
    let jobs = [tenant("kept"), tenant("swept")];
    let network = network(1);
    for job in &jobs {
        let host = hosts.open(job).await.expect("a host is made");
        host.create_network(&network).await.expect("a network is created");
    }
    hosts.sweep(&BTreeSet::from([jobs[0].clone()])).await.expect("swept");
    for (job, is_there) in jobs.iter().zip([true, false]) {
        let host = hosts.open(job).await.expect("a host is made");
        assert_eq!(host.find_bridge(&network.link).await.expect("looked for").is_some(), is_there, "{job}");
        hosts.remove(job).await.expect("a host is removed");
    }
}

/// A bridge network `10.200.<number>.0/24`.
pub fn network(number: u8) -> BridgeNetwork {
    BridgeNetwork {
        id: NetworkId::random(),
        link: format!("rngtest{number}"),
        ipv4: Some(format!("10.200.{number}.1/24").parse().expect("a subnet")),
        ipv6: None,
        internal: false,
        mtu: 1400,
        icc: true,
        masquerade: true,
        default_host_ip: None,
        found: None,
    }
}

/// An endpoint with the network's address number `host`.
pub fn endpoint(network: &BridgeNetwork, host: u8, interface: &str) -> Endpoint {
    let gateway = network.ipv4.map(|net| net.addr());
    let address = gateway.map(|gateway| {
        let [a, b, c, _] = gateway.octets();
        Ipv4Addr::new(a, b, c, host)
    });
    let [_, _, c, _] = address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
    Endpoint {
        id: EndpointId::random(),
        network: network.id.clone(),
        ipv4: address.map(|address| ipnet::Ipv4Net::new(address, 24).expect("24 is a length")),
        ipv6: network.ipv6.map(|net| {
            let mut octets = net.addr().octets();
            octets[15] = host;
            ipnet::Ipv6Net::new(octets.into(), net.prefix_len()).expect("the network's own length")
        }),
        link_local: Vec::new(),
        gateway4: gateway.filter(|_| !network.internal),
        gateway6: network.ipv6.map(|net| net.addr()).filter(|_| !network.internal),
        mac: [0x02, 0x42, 10, 200, c, host],
        interface: interface.to_owned(),
        default_route: !network.internal,
    }
}

/// A request for a TCP port of the host, or any.
pub fn tcp(container: u16, host: Option<u16>) -> PortRequest {
    PortRequest {
        port: Port { number: container, protocol: Protocol::Tcp },
        host_ip: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        host_ports: host.map(|port| (port, port)),
        machine: None,
    }
}

async fn creating_and_removing_may_be_repeated(backend: &dyn NetworkBackend) {
    let (network, container) = (network(1), ContainerId::random());
    for _ in 0..2 {
        backend.create_network(&network).await.expect("a network is created");
    }
    let path = backend.create_sandbox(&container, None).await.expect("a sandbox is created");
    assert_eq!(backend.create_sandbox(&container, None).await.expect("a second time"), path);
    for _ in 0..2 {
        backend.remove_sandbox(&container).await.expect("a sandbox is removed");
        backend.remove_network(&network).await.expect("a network is removed");
    }
}

async fn a_bridge_can_be_found(backend: &dyn NetworkBackend) {
    let network = network(8);
    assert_eq!(backend.find_bridge(&network.link).await.expect("nobody's"), None);
    backend.create_network(&network).await.expect("a network is created");
    let found = backend.find_bridge(&network.link).await.expect("a bridge").expect("it is there");
    assert!(found.contains(&network.ipv4.expect("it has IPv4").into()), "{found:?}");
    backend.remove_network(&network).await.expect("a network is removed");
    assert_eq!(backend.find_bridge(&network.link).await.expect("nobody's again"), None);
}

async fn attaching_needs_sandbox_and_network(backend: &dyn NetworkBackend) {
    let (network, container) = (network(2), ContainerId::random());
    let endpoint = endpoint(&network, 2, "eth0");
    backend.create_network(&network).await.expect("a network is created");
    backend.attach(&container, &network, &endpoint).await.expect_err("no sandbox");
    backend.remove_network(&network).await.expect("a network is removed");
    backend.create_sandbox(&container, None).await.expect("a sandbox is created");
    backend.attach(&container, &network, &endpoint).await.expect_err("no network");
    backend.remove_sandbox(&container).await.expect("a sandbox is removed");
}

async fn attaching_and_detaching_may_be_repeated(backend: &dyn NetworkBackend) {
    let (network, container) = (network(3), ContainerId::random());
    let endpoint = endpoint(&network, 2, "eth0");
    backend.create_network(&network).await.expect("a network is created");
    backend.create_sandbox(&container, None).await.expect("a sandbox is created");
    for _ in 0..2 {
        for _ in 0..2 {
            backend.attach(&container, &network, &endpoint).await.expect("attached");
        }
        for _ in 0..2 {
            backend.detach(&container, &network, &endpoint).await.expect("detached");
        }
    }
    clean(backend, &network, &[container]).await;
}

async fn ephemeral_ports_differ(backend: &dyn NetworkBackend) {
    let (network, container, endpoint) = wired(backend, 4).await;
    let ports = backend
        .publish(&container, &network, &endpoint, &[tcp(80, None), tcp(81, None)])
        .await
        .expect("two free ports");
    assert_ne!(ports[0].host_port, ports[1].host_port);
    clean(backend, &network, &[container]).await;
}

async fn a_taken_port_is_refused_until_it_is_given_back(backend: &dyn NetworkBackend) {
    let (network, one, first) = wired(backend, 5).await;
    let other = ContainerId::random();
    backend.create_sandbox(&other, None).await.expect("a sandbox is created");
    let second = endpoint(&network, 3, "eth0");
    backend.attach(&other, &network, &second).await.expect("attached");

    backend.publish(&one, &network, &first, &[tcp(80, Some(18080))]).await.expect("a free port");
    let refused = backend.publish(&other, &network, &second, &[tcp(80, Some(18080))]).await.expect_err("taken");
    assert_eq!(refused.message(), "Bind for 0.0.0.0:18080 failed: port is already allocated");
    backend.unpublish(&one, &network.id).await.expect("given back");
    backend.publish(&other, &network, &second, &[tcp(80, Some(18080))]).await.expect("free again");
    backend.remove_sandbox(&other).await.expect("a sandbox is removed");
    backend.publish(&one, &network, &first, &[tcp(80, Some(18080))]).await.expect("free again");
    clean(backend, &network, &[one]).await;
}

async fn ports_are_published_all_or_none(backend: &dyn NetworkBackend) {
    let (network, container, endpoint) = wired(backend, 6).await;
    let twice = [tcp(80, Some(18081)), tcp(81, Some(18081))];
    backend.publish(&container, &network, &endpoint, &twice).await.expect_err("the same port twice");
    backend.publish(&container, &network, &endpoint, &twice[..1]).await.expect("it was given back");
    clean(backend, &network, &[container]).await;
}

async fn a_sweep_spares_what_is_kept(backend: &dyn NetworkBackend) {
    let (network, kept, endpoint) = wired(backend, 7).await;
    let keep = Keep { containers: [kept.clone()].into(), links: [network.link.clone()].into() };
    backend.sweep(&keep).await.expect("swept");
    backend.attach(&kept, &network, &endpoint).await.expect("still there");
    clean(backend, &network, &[kept]).await;
    backend.sweep(&Keep::default()).await.expect("swept with nothing left");
}

/// A network with one attached container.
async fn wired(backend: &dyn NetworkBackend, number: u8) -> (BridgeNetwork, ContainerId, Endpoint) {
    let (network, container) = (network(number), ContainerId::random());
    let endpoint = endpoint(&network, 2, "eth0");
    backend.create_network(&network).await.expect("a network is created");
    backend.create_sandbox(&container, None).await.expect("a sandbox is created");
    backend.attach(&container, &network, &endpoint).await.expect("attached");
    (network, container, endpoint)
}

async fn clean(backend: &dyn NetworkBackend, network: &BridgeNetwork, containers: &[ContainerId]) {
    for container in containers {
        backend.remove_sandbox(container).await.expect("a sandbox is removed");
    }
    backend.remove_network(network).await.expect("a network is removed");
}
