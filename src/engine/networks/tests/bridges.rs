//! Which links, names and subnets of the machine a network may have.

use super::*;

fn on_bridge(name: &str, link: &str) -> NetworkCreateRequest {
    let options = IndexMap::from([("com.docker.network.bridge.name".to_owned(), link.to_owned())]);
    NetworkCreateRequest { options, ..request(name) }
}

/// Answers of dockerd 28.5.
#[tokio::test]
async fn a_link_of_the_host_is_no_network() {
    let world = World::new().await;
    world.network.add_link("uplink", None);
    let error =
        world.engine.network_create(&world.engine.default_scope(), on_bridge("one", "uplink")).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::System, "existing interface uplink is not a bridge"));
    assert!(world.engine.network_inspect(&world.engine.default_scope(), "one").await.is_err());
    assert!(!world.network.state().networks.contains_key("uplink"));
}

#[tokio::test]
async fn a_bridge_of_the_host_is_used_and_what_it_had_is_remembered() {
    let world = World::new().await;
    world.network.add_link("br7", Some(&["10.7.0.1/24"]));
    world.engine.network_create(&world.engine.default_scope(), on_bridge("seven", "br7")).await.unwrap();
    let found = |network: &FakeNetwork| network.state().networks["br7"].found.clone();
    assert_eq!(found(&world.network).unwrap()[0].to_string(), "10.7.0.1/24");
    let again = World::open(world.folder).await;
    assert_eq!(found(&again.network).unwrap()[0].to_string(), "10.7.0.1/24", "a later daemon knows");
    again.engine.network_create(&again.engine.default_scope(), on_bridge("eight", "br8")).await.unwrap();
    assert_eq!(again.network.state().networks["br8"].found, None);
}

/// Words of dockerd 28.5.
#[tokio::test]
async fn two_networks_do_not_share_a_bridge() {
    let world = World::new().await;
    let first = world.engine.network_create(&world.engine.default_scope(), on_bridge("one", "br7")).await.unwrap().id;
    let error = world.engine.network_create(&world.engine.default_scope(), on_bridge("two", "br7")).await.unwrap_err();
    let (kind, message) = (error.kind(), error.message());
    assert_eq!(kind, ErrorKind::Forbidden);
    let end = format!("(br7): conflicts with network {first} (br7): networks have same bridge name");
    assert!(message.starts_with("cannot create network ") && message.ends_with(&end), "{message}");
}

/// dockerd 28.5 takes any name that is not blank: it is a word of the API, never a path or a link.
#[tokio::test]
async fn a_networks_name_is_only_a_name() {
    let world = World::new().await;
    for name in ["a\nb", "a\0b", "..", ".", "a/../b", "a b", " a", "-a", "ü", "null", "\u{1}"] {
        world.create(name).await.unwrap_or_else(|error| panic!("{name:?}: {}", error.message()));
        assert_eq!(world.engine.network_inspect(&world.engine.default_scope(), name).await.unwrap().record.name, name);
    }
    for name in ["", " ", "\n", "\t "] {
        assert_eq!(world.create(name).await.unwrap_err().message(), "invalid name: name is empty");
    }
}

#[tokio::test]
async fn a_wanted_subnet_may_not_be_the_metadata_services() {
    let world = World::new().await;
    world.network.use_subnets(&["169.254.7.0/24"]);
    for subnet in ["169.254.169.0/24", "169.254.7.0/24"] {
        let error =
            world.engine.network_create(&world.engine.default_scope(), with_subnet("one", subnet)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{}", error.message());
    }
    world.engine.network_create(&world.engine.default_scope(), with_subnet("one", "169.254.8.0/24")).await.unwrap();
}

/// Answers of dockerd 28.5: of several faults it tells the one that it looks at first.
#[tokio::test]
async fn faults_are_told_in_dockerds_order() {
    let world = World::new().await;
    let bad_pool = "invalid network config:\ninvalid subnet foo: invalid CIDR block notation";
    let told = |edit: fn(&mut NetworkCreateRequest)| {
        let mut request = with_subnet("one", "foo");
        edit(&mut request);
        let engine = world.engine.clone();
        async move { engine.network_create(&engine.default_scope(), request).await.unwrap_err().message().to_owned() }
    };
    let predefined = "operation is not permitted on predefined bridge network ";
    assert_eq!(told(|request| request.name = "bridge".to_owned()).await, predefined);
    let option = |request: &mut NetworkCreateRequest| {
        request.options = IndexMap::from([("com.docker.network.enable_ipv4".to_owned(), "maybe".to_owned())]);
    };
    assert_eq!(told(option).await, "driver-opt \"com.docker.network.enable_ipv4\" is not a valid bool");
    assert!(
        told(|request| request.driver = "overlay".to_owned()).await.starts_with("This node is not a swarm manager")
    );
    let others: [fn(&mut NetworkCreateRequest); 8] = [
        |request| request.name = " ".to_owned(),
        |request| request.driver = "nope".to_owned(),
        |request| request.driver = "host".to_owned(),
        |request| request.scope = "swarm".to_owned(),
        |request| request.ingress = true,
        |request| request.ipam.driver = "nope".to_owned(),
        |request| request.config_from = ConfigReference { network: "nope".to_owned() },
        |request| (request.config_only, request.internal) = (true, true),
    ];
    for edit in others {
        assert_eq!(told(edit).await, bad_pool);
    }
}
