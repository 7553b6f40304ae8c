//! Whose a bridge is: links of the host are never ours.

use ringer::{
    backend::network::{Keep, NetworkBackend, contract},
    model::{id::ContainerId, network::BridgeNetwork},
    network::LinuxNetwork,
};

use super::{
    tables,
    world::{World, in_a_fresh_world, ip},
};

/// A network on a link that is called so.
fn on_link(number: u8, link: &str) -> BridgeNetwork {
    BridgeNetwork { link: link.to_owned(), ..contract::network(number) }
}

/// The same on a bridge that is there, as the engine records it.
async fn on_found_bridge(world: &World, number: u8, link: &str) -> BridgeNetwork {
    let found = world.network.find_bridge(link).await.unwrap();
    BridgeNetwork { found, ..on_link(number, link) }
}

#[test]
fn links_of_the_host_are_neither_taken_nor_deleted() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        ip("link add dev veth-host type veth peer name veth-peer");
        let links = || ip("-o -d link").lines().map(str::to_owned).collect::<Vec<_>>();
        let before = links();
        for link in ["lo", "uplink", "veth-host"] {
            let error = world.network.find_bridge(link).await.unwrap_err();
            assert_eq!(error.message(), format!("existing interface {link} is not a bridge"));
            let network = on_link(1, link);
            let error = world.network.create_network(&network).await.unwrap_err();
            assert!(error.message().contains("is not a bridge"), "{}", error.message());
            world.network.remove_network(&network).await.unwrap();
        }
        // The outside is a sandbox too.
        let keep = Keep { containers: [ContainerId::from_stored("outside")].into(), ..Keep::default() };
        world.network.sweep(&keep).await.unwrap();
        world.network.shutdown().await.unwrap();
        assert_eq!(links(), before);
    });
}

#[test]
fn a_bridge_of_the_host_is_used_and_left_as_it_was() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        ip("link add br-host type bridge");
        ip("address add 10.9.0.1/24 dev br-host");
        let network = on_found_bridge(&world, 1, "br-host").await;
        world.network.create_network(&network).await.unwrap();
        let web = world.container(&network, 2).await;
        web.place().serve_tcp(80);
        assert!(world.host().reach_tcp("10.200.1.2:80").await.is_some());
        world.network.remove_sandbox(&web.id).await.unwrap();
        world.network.remove_network(&network).await.unwrap();
        world.network.sweep(&Keep::default()).await.unwrap();
        world.network.shutdown().await.unwrap();
        let addresses = ip("-4 address show br-host");
        assert!(addresses.contains("10.9.0.1/24") && !addresses.contains("10.200.1.1"), "{addresses}");
        assert!(!ip("-d link show br-host").contains("alias"), "and no note on it");
        assert!(tables().is_empty(), "{}", tables());
    });
}

#[test]
fn an_address_that_the_bridge_had_stays_on_it() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        ip("link add br-host type bridge");
        ip("address add 10.200.1.1/24 dev br-host");
        let network = on_found_bridge(&world, 1, "br-host").await;
        world.network.create_network(&network).await.unwrap();
        world.network.remove_network(&network).await.unwrap();
        assert!(ip("-4 address show br-host").contains("10.200.1.1/24"));
    });
}

#[test]
fn a_later_life_knows_whose_a_bridge_is() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        ip("link add br-host type bridge");
        let (theirs, ours) = (on_found_bridge(&world, 1, "br-host").await, world.network(2).await);
        world.network.create_network(&theirs).await.unwrap();
        // What kill -9 does to our memory.
        std::mem::forget(world.network);
        let network = LinuxNetwork::open("test", world.root.path()).await.unwrap();
        network.sweep(&Keep::default()).await.unwrap();
        assert!(ip("-o link").contains("br-host") && !ip("-o link").contains(&ours.link));
        for record in [&theirs, &ours] {
            network.create_network(record).await.unwrap();
        }
        // Meanwhile somebody makes our bridge anew: it is theirs now.
        ip(&format!("link delete {}", ours.link));
        ip(&format!("link add {} type bridge", ours.link));
        for record in [&theirs, &ours] {
            network.remove_network(record).await.unwrap();
        }
        network.shutdown().await.unwrap();
        assert!(ip("-o link").contains("br-host") && ip("-o link").contains(&ours.link));
        assert!(!ip("-4 address show br-host").contains("10.200.1.1"), "our address went, kill or not");
    });
}

#[test]
fn a_bridge_of_another_daemon_is_not_ours() {
    in_a_fresh_world(|| async {
        let world = World::new().await;
        let network = world.network(1).await;
        let other = LinuxNetwork::open("other", &world.root.path().join("other")).await.unwrap();
        other.create_network(&on_link(2, &network.link)).await.unwrap();
        other.remove_network(&on_link(2, &network.link)).await.unwrap();
        other.sweep(&Keep::default()).await.unwrap();
        other.shutdown().await.unwrap();
        assert!(ip("-o link").contains(&network.link));
    });
}
