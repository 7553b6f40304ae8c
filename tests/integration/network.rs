//! The network adapter with real packets. Each test has a network namespace of its own that plays the host.

mod bridges;
mod jobs;
mod world;

use std::net::IpAddr;

use ringer::{
    backend::network::{AskedFrom, Keep, NetworkBackend, NetworkHosts, SandboxDns, Upstream, contract},
    model::network::{NameEntry, NameTable, NetworkNames, Port, PortRequest, Protocol, PublishedPort},
    network::{JobNetworks, LinuxHosts, LinuxNetwork},
};
use world::{HOST, OUTSIDE, World, eventually, in_a_fresh_world, inside, ip};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn request(protocol: Protocol, host_ip: Option<&str>, host: u16) -> PortRequest {
    let port = Port { number: 80, protocol };
    PortRequest { port, host_ip: host_ip.map(address), host_ports: Some((host, host)), machine: None }
}

#[test]
fn the_adapter_keeps_the_contract() {
    in_a_fresh_world(|| async {
        let root = tempfile::tempdir().unwrap();
        let network = LinuxNetwork::open("contract", root.path()).await.unwrap();
        contract::all(&network).await;
        network.shutdown().await.unwrap();
    });
}

#[test]
fn hosts_keep_the_contract() {
    in_a_fresh_world(|| async {
        let root = tempfile::tempdir().unwrap();
        let hosts = LinuxHosts::open("contract", root.path(), &JobNetworks::default()).await.unwrap();
        contract::hosts(&hosts).await;
        hosts.shutdown().await.unwrap();
        let left = std::fs::read_dir(root.path().join("hosts")).unwrap().count();
        assert_eq!(left, 0, "nothing is held any more");
    });
}

#[test]
fn the_uplink_is_read() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let uplink = world.network.uplink().await.unwrap();
        assert_eq!((uplink.mtu, uplink.address), (1400, Some(address(HOST))));
        world.network(1).await;
        let used = world.network.used_subnets().await.unwrap();
        assert!(used.contains(&"192.0.2.0/24".parse().unwrap()));
        assert!(!used.contains(&"10.200.1.0/24".parse().unwrap()), "our own networks are the engine's business");
    });
}

#[test]
fn neighbours_reach_each_other_and_the_outside() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let (web, client) = (world.container(&network, 2).await, world.container(&network, 3).await);
        web.place().serve_tcp(80);
        world.outside().serve_tcp(80);
        assert_eq!(client.place().reach_tcp("10.200.1.2:80").await, Some(client.address()));
        assert_eq!(world.host().reach_tcp("10.200.1.2:80").await, Some(address("10.200.1.1")));
        assert_eq!(client.place().reach_tcp(&format!("{OUTSIDE}:80")).await, Some(address(HOST)));
        let link = inside(&client.path, || ip("link show eth0"));
        assert!(link.contains("mtu 1400") && link.contains("02:42:0a:c8:01:03"), "{link}");
    });
}

#[test]
fn link_local_addresses_are_there_too() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let container = world.container(&network, 2).await;
        let mut endpoint = contract::endpoint(&network, 3, "eth1");
        endpoint.link_local = vec!["169.254.7.7/16".parse().unwrap(), "fe80::77/64".parse().unwrap()];
        world.network.attach(&container.id, &network, &endpoint).await.unwrap();
        let addresses = inside(&container.path, || ip("address show eth1"));
        for address in ["10.200.1.3/24", "169.254.7.7/16", "fe80::77/64"] {
            assert!(addresses.contains(address), "{addresses}");
        }
    });
}

#[test]
fn networks_are_apart() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let (one, two) = (world.network(1).await, world.network(2).await);
        let (web, stranger) = (world.container(&one, 2).await, world.container(&two, 2).await);
        web.place().serve_tcp(80);
        assert!(stranger.place().fails_to_reach("10.200.1.2:80").await);
        assert!(world.outside().fails_to_reach("10.200.1.2:80").await, "nor from beyond the uplink");
    });
}

#[test]
fn an_internal_network_has_no_way_out() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let mut internal = contract::network(1);
        internal.internal = true;
        let internal = world.network_with(internal).await;
        let open = world.network(2).await;
        let (one, two) = (world.container(&internal, 2).await, world.container(&internal, 3).await);
        let web = world.container(&open, 2).await;
        one.place().serve_tcp(80);
        web.place().serve_tcp(80);
        world.outside().serve_tcp(80);
        // Even a container that gives itself a route does not get out.
        inside(&two.path, || ip("route add default via 10.200.1.1"));
        assert_eq!(two.place().reach_tcp("10.200.1.2:80").await, Some(two.address()));
        assert!(two.place().fails_to_reach(&format!("{OUTSIDE}:80")).await);
        assert!(two.place().fails_to_reach("10.200.2.2:80").await);
        assert!(web.place().fails_to_reach("10.200.1.2:80").await);
    });
}

#[test]
fn without_icc_neighbours_are_apart() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let mut network = contract::network(1);
        network.icc = false;
        let network = world.network_with(network).await;
        let (web, client) = (world.container(&network, 2).await, world.container(&network, 3).await);
        web.place().serve_tcp(80);
        world.outside().serve_tcp(80);
        assert!(client.place().fails_to_reach("10.200.1.2:80").await);
        assert_eq!(client.place().reach_tcp(&format!("{OUTSIDE}:80")).await, Some(address(HOST)));
        world.network.publish(&web.id, &network, &web.endpoint, &[request(Protocol::Tcp, None, 8080)]).await.unwrap();
        assert!(client.place().reach_tcp(&format!("{HOST}:8080")).await.is_some(), "published ports stay open");
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let (network, other) = (world.network(1).await, world.network(2).await);
        let (web, client) = (world.container(&network, 2).await, world.container(&network, 3).await);
        let stranger = world.container(&other, 2).await;
        web.place().serve_tcp(80);
        let ports = [request(Protocol::Tcp, None, 8080)];
        let published = world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();
        let port = Port { number: 80, protocol: Protocol::Tcp };
        let at = |host_ip: &str| PublishedPort { port, host_ip: address(host_ip), host_port: 8080 };
        assert_eq!(published, [at("0.0.0.0"), at("::")]);

        let outside = world.outside().reach_tcp(&format!("{HOST}:8080")).await;
        assert_eq!(outside, Some(address(OUTSIDE)), "the client's address is kept");
        assert!(world.outside().reach_tcp("[fd00:2::2]:8080").await.is_some());
        for target in ["127.0.0.1:8080", "[::1]:8080", "192.0.2.2:8080", "10.200.1.1:8080", "[fd00:2::2]:8080"] {
            assert!(world.host().reach_tcp(target).await.is_some(), "host to {target}");
        }
        for target in ["192.0.2.2:8080", "10.200.1.1:8080"] {
            assert!(client.place().reach_tcp(target).await.is_some(), "neighbour to {target}");
            assert!(web.place().reach_tcp(target).await.is_some(), "itself to {target}");
            assert!(stranger.place().reach_tcp(target).await.is_some(), "another network to {target}");
        }
        world.network.unpublish(&web.id, &network.id).await.unwrap();
        assert!(world.outside().fails_to_reach(&format!("{HOST}:8080")).await);
        assert!(world.host().fails_to_reach("127.0.0.1:8080").await);
    });
}

#[test]
fn datagrams_are_published_too() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let (web, client) = (world.container(&network, 2).await, world.container(&network, 3).await);
        web.place().serve_udp(80);
        let ports = [request(Protocol::Udp, None, 5353)];
        world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();
        assert_eq!(world.outside().reach_udp(&format!("{HOST}:5353")).await, Some(address(OUTSIDE)));
        assert!(world.host().reach_udp("127.0.0.1:5353").await.is_some());
        assert!(world.host().reach_udp("[::1]:5353").await.is_some());
        assert!(client.place().reach_udp(&format!("{HOST}:5353")).await.is_some());
        assert!(web.place().reach_udp(&format!("{HOST}:5353")).await.is_some());
    });
}

#[test]
fn a_port_can_be_published_at_one_address() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let web = world.container(&network, 2).await;
        web.place().serve_tcp(80);
        let ports = [request(Protocol::Tcp, Some("127.0.0.1"), 8080), request(Protocol::Tcp, Some(HOST), 8081)];
        world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();
        assert!(world.host().reach_tcp("127.0.0.1:8080").await.is_some());
        assert!(world.outside().fails_to_reach(&format!("{HOST}:8080")).await);
        assert!(world.outside().reach_tcp(&format!("{HOST}:8081")).await.is_some());
        assert!(world.host().fails_to_reach("127.0.0.1:8081").await);
    });
}

#[test]
fn ipv6_is_carried_end_to_end() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let mut network = contract::network(1);
        network.ipv6 = Some("fd00:1::1/64".parse().unwrap());
        let network = world.network_with(network).await;
        let (web, client) = (world.container(&network, 2).await, world.container(&network, 3).await);
        // Not after the seconds in which the kernel asks for duplicates of the address that it gives itself.
        let unready = |link: &str| ip(&format!("-6 addr show dev {link} tentative"));
        assert_eq!(unready(&network.link), "");
        assert_eq!(inside(&web.path, || unready("eth0")), "");
        web.place().serve_tcp(80);
        world.outside().serve_tcp(80);
        assert_eq!(client.place().reach_tcp("[fd00:1::2]:80").await, Some(address("fd00:1::3")));
        assert_eq!(client.place().reach_tcp("[fd00:2::1]:80").await, Some(address("fd00:2::2")));
        let ports = [request(Protocol::Tcp, None, 8080)];
        world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();
        let outside = world.outside().reach_tcp("[fd00:2::2]:8080").await;
        assert_eq!(outside, Some(address("fd00:2::1")), "redirected, not proxied");
        assert!(world.host().reach_tcp("[::1]:8080").await.is_some());
        assert!(web.place().reach_tcp("[fd00:1::1]:8080").await.is_some());
    });
}

#[test]
fn two_daemons_do_not_share_a_port() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let web = world.container(&network, 2).await;
        let ports = [request(Protocol::Tcp, None, 8080)];
        world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();

        let root = tempfile::tempdir().unwrap();
        let second = LinuxNetwork::open("second", root.path()).await.unwrap();
        let theirs = contract::network(2);
        second.create_network(&theirs).await.unwrap();
        second.create_sandbox(&web.id, None).await.unwrap();
        let endpoint = contract::endpoint(&theirs, 2, "eth0");
        second.attach(&web.id, &theirs, &endpoint).await.unwrap();
        let error = second.publish(&web.id, &theirs, &endpoint, &ports).await.unwrap_err();
        assert_eq!(error.message(), "failed to bind host port 0.0.0.0:8080/tcp: address already in use");
    });
}

#[test]
fn names_are_answered_in_the_sandbox() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let (network, other) = (world.network(1).await, world.network(2).await);
        let dns = SandboxDns { upstreams: Vec::new(), keep_single_labels: false };
        let client = world.container_with(&network, 2, Some(dns)).await;
        let entry = |name: &str, at: &str| NameEntry {
            names: vec![name.to_owned(), format!("{name}-alias")],
            addresses: vec![address(at)],
            only_for: None,
        };
        let names = |name: &str, entries| NetworkNames { network: name.to_owned(), entries };
        let table = NameTable::from([
            (network.id.clone(), names("front", vec![entry("web", "10.200.1.9")])),
            (other.id.clone(), names("back", vec![entry("db", "10.200.2.9")])),
        ]);
        world.network.publish_names(table).await.unwrap();

        let place = client.place();
        assert_eq!(place.resolve(question("web", 1)).await[..8], [7, 7, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(place.resolve(question("WEB-ALIAS", 1)).await.ends_with(&[10, 200, 1, 9]));
        assert!(place.resolve(question("web.front", 1)).await.ends_with(&[10, 200, 1, 9]));
        assert_eq!(place.resolve(question("web", 28)).await[2..8], [0x81, 0x80, 0, 1, 0, 0], "no IPv6, no error");
        let reverse = place.resolve(question("9.1.200.10.in-addr.arpa", 12)).await;
        assert!(reverse.ends_with(b"\x03web\x05front\0"));
        assert_eq!(place.resolve(question("db", 1)).await[3] & 0x0f, 2, "another network's names are unknown");

        let second = contract::endpoint(&other, 2, "eth1");
        world.network.attach(&client.id, &other, &second).await.unwrap();
        assert!(place.resolve(question("db", 1)).await.ends_with(&[10, 200, 2, 9]));
        world.network.detach(&client.id, &other, &second).await.unwrap();
        assert_eq!(place.resolve(question("db", 1)).await[3] & 0x0f, 2);
    });
}

#[test]
fn other_questions_are_relayed_from_the_host() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        // An upstream that only the host can reach.
        let upstream = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = SandboxDns {
            upstreams: vec![Upstream { address: upstream.local_addr().unwrap(), from: AskedFrom::Machine }],
            keep_single_labels: false,
        };
        let client = world.container_with(&network, 2, Some(dns)).await;
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, client) = upstream.recv_from(&mut buffer).await.unwrap();
            buffer[2] |= 0x80;
            buffer[length..length + 6].copy_from_slice(b"as is!");
            upstream.send_to(&buffer[..length + 6], client).await.unwrap();
        });
        assert!(client.place().resolve(question("example.org", 99)).await.ends_with(b"as is!"));
    });
}

/// A question as a stub resolver sends it.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

#[test]
fn an_address_can_be_used_again_at_once() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        for _ in 0..10 {
            let web = world.container_with(&network, 2, Some(SandboxDns::default())).await;
            web.place().serve_tcp(80);
            assert!(world.host().reach_tcp("10.200.1.2:80").await.is_some());
            world.network.remove_sandbox(&web.id).await.unwrap();
        }
    });
}

#[test]
fn the_default_route_moves_on() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let (one, two) = (world.network(1).await, world.network(2).await);
        let container = world.container(&one, 2).await;
        let mut second = contract::endpoint(&two, 2, "eth1");
        second.default_route = false;
        world.network.attach(&container.id, &two, &second).await.unwrap();
        assert!(inside(&container.path, || ip("route")).contains("default via 10.200.1.1"));
        world.network.detach(&container.id, &one, &container.endpoint).await.unwrap();
        second.default_route = true;
        world.network.attach(&container.id, &two, &second).await.unwrap();
        assert!(inside(&container.path, || ip("route")).contains("default via 10.200.2.1"));
    });
}

#[test]
fn rules_come_back_as_soon_as_somebody_has_flushed_them() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let web = world.container(&network, 2).await;
        web.place().serve_tcp(80);
        let ports = [request(Protocol::Tcp, None, 8080)];
        world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();
        let rules = || {
            let listed = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
            String::from_utf8(listed.stdout).unwrap()
        };
        let before = rules();
        for words in [
            &["flush", "ruleset"][..],
            &["flush", "table", "inet", "ringer-test"],
            &["delete", "table", "inet", "ringer-test"],
        ] {
            assert!(std::process::Command::new("nft").args(words).status().unwrap().success(), "{words:?}");
            eventually("the rules are back", || rules() == before).await;
            assert_eq!(world.outside().reach_tcp(&format!("{HOST}:8080")).await, Some(address(OUTSIDE)), "{words:?}");
        }
    });
}

#[test]
fn nothing_is_left_behind() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let web = world.container_with(&network, 2, Some(SandboxDns::default())).await;
        let ports = [request(Protocol::Tcp, None, 8080)];
        world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();
        world.network.remove_sandbox(&web.id).await.unwrap();
        world.network.remove_network(&network).await.unwrap();
        world.network.shutdown().await.unwrap();
        eventually("links are gone", || ip("-o link").lines().count() == 2).await;
        assert!(!web.path.exists());
        assert!(!ip("-o link").contains("rng"));
        assert!(tables().is_empty(), "{}", tables());
    });
}

#[test]
fn a_later_life_sweeps_what_a_killed_one_left() {
    in_a_fresh_world(|| async {
        // What kill -9 does: memory is forgotten, and nothing goes on that would bring rules back.
        let life = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let world = World::new().await;
                let network = world.network(1).await;
                let web = world.container(&network, 2).await;
                std::mem::forget(world.network);
                (world.root, web)
            })
        });
        let (root, web) = life.join().unwrap();
        let network = LinuxNetwork::open("test", root.path()).await.unwrap();
        network.sweep(&Keep::default()).await.unwrap();
        network.shutdown().await.unwrap();
        eventually("links are gone", || ip("-o link").lines().count() == 1).await;
        assert!(!web.path.exists());
        assert!(tables().is_empty(), "{}", tables());
    });
}

#[test]
fn a_sweep_meets_a_bridge_that_is_on_its_way_out() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        for _ in 0..20 {
            let network = world.network(1).await;
            // The bridge is deleted in the background, at the same time as the sweep finds it.
            world.network.remove_network(&network).await.unwrap();
            world.network.sweep(&Keep::default()).await.unwrap();
        }
    });
}

fn tables() -> String {
    let output = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_rules_can_be_read_with_nft() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let web = world.container(&network, 2).await;
        let ports = [request(Protocol::Tcp, None, 8080), request(Protocol::Tcp, Some(HOST), 8081)];
        world.network.publish(&web.id, &network, &web.endpoint, &ports).await.unwrap();
        let output = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let rules = String::from_utf8(output.stdout).unwrap();
        assert!(!rules.contains("invalid type"), "{rules}");
        for part in ["\"rngtest1\"", "tcp . 8080 : 10.200.1.2 . 80", "192.0.2.2 . tcp . 8081 : 10.200.1.2 . 80"] {
            assert!(rules.contains(part), "{part} in {rules}");
        }
    });
}
