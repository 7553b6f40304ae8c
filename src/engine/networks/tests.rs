//! The engine's networks on fakes.

mod bridges;
mod jobs;

use indexmap::IndexMap;
use tempfile::TempDir;

use super::*;
use crate::{
    backend::network::fake::FakeNetwork,
    engine::{
        config::{AddressPool, EngineConfig},
        container::Container,
        testing::Fakes,
    },
    model::{
        ErrorKind,
        container::{
            Config, ContainerCreateRequest, ContainerRecord, ContainerState, HostConfig, Networking, NetworkingConfig,
            PortBinding,
        },
        id::TenantId,
        image::{Descriptor, Platform},
        network::{ConfigReference, EndpointIpam, EndpointSettings, Ipam, IpamPool, NetworkCreateRequest},
        reference::Digest,
        time::Timestamp,
    },
    oci::host::HostFacts,
};

struct World {
    engine: Engine,
    network: Arc<FakeNetwork>,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::open(TempDir::new().unwrap()).await
    }

    async fn open(folder: TempDir) -> Self {
        Self::open_with(folder, EngineConfig::default()).await
    }

    async fn open_with(folder: TempDir, config: EngineConfig) -> Self {
        let Fakes { engine, network, folder, .. } = Fakes::open_with(HostFacts::detect(), folder, config).await;
        Self { engine, network, folder }
    }

    fn scope(&self) -> Scope {
        self.engine.default_scope()
    }

    async fn create(&self, name: &str) -> Result<NetworkCreated> {
        self.engine.network_create(&self.scope(), request(name)).await
    }

    /// A container in the store, as create leaves it.
    async fn container(&self, name: &str, mode: &str, settings: EndpointSettings) -> Arc<Container> {
        let networking = NetworkingConfig {
            endpoints_config: Some(IndexMap::from([(mode.to_owned(), Some(settings))])).filter(|_| mode != "default"),
        };
        let host_config = HostConfig { network_mode: mode.into(), ..HostConfig::default() };
        let request = ContainerCreateRequest { host_config, networking, ..ContainerCreateRequest::default() };
        let attachments = self.engine.resolve_networks(&self.scope(), &request).await.unwrap();
        let networking = Networking { attachments, ..Networking::default() };
        let record = record(name, request.host_config, networking);
        let place = self.engine.rooms.take(&record.tenant, 0).unwrap();
        let container = self.engine.in_memory(record, place);
        self.engine.containers.insert(container.clone());
        container
    }

    /// Starts as far as networks go.
    async fn start(&self, container: &Arc<Container>) -> Result<RunNetwork> {
        let run = self.engine.connect_run(&container.record()).await?;
        container.turn().await?.update(|record| {
            record.networking.attachments.clone_from(&run.attachments);
            record.networking.published.clone_from(&run.published);
            record.state = ContainerState::created().start(1, Timestamp::now()).unwrap();
        });
        Ok(run)
    }
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

fn request(name: &str) -> NetworkCreateRequest {
    NetworkCreateRequest { name: name.to_owned(), ..NetworkCreateRequest::default() }
}

fn with_subnet(name: &str, subnet: &str) -> NetworkCreateRequest {
    let pool = IpamPool { subnet: subnet.to_owned(), ..IpamPool::default() };
    NetworkCreateRequest { ipam: Ipam { config: vec![pool], ..Ipam::default() }, ..request(name) }
}

fn static_address(address: &str) -> EndpointSettings {
    let ipam = EndpointIpam { ipv4_address: address.to_owned(), ..EndpointIpam::default() };
    EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() }
}

fn record(name: &str, host_config: HostConfig, networking: Networking) -> ContainerRecord {
    let digest: Digest = serde_json::from_value(format!("sha256:{}", "0".repeat(64)).into()).unwrap();
    let descriptor = serde_json::json!({"mediaType": "x", "digest": digest, "size": 1});
    let manifest: Descriptor = serde_json::from_value(descriptor).unwrap();
    ContainerRecord {
        tenant: tenant(),
        id: ContainerId::random(),
        name: name.to_owned(),
        created: Timestamp::now(),
        image_id: digest,
        image_manifest: manifest,
        platform: Platform::default(),
        command: Vec::new(),
        config: Config { hostname: format!("{name}-host"), ..Config::default() },
        host_config,
        networking,
        mounts: Vec::new(),
        state: ContainerState::created(),
        health: None,
        restart_count: 0,
        has_been_manually_stopped: false,
        runtime: "runc".to_owned(),
    }
}

#[tokio::test]
async fn predefined_networks_are_there_and_stay() {
    let world = World::new().await;
    let names: Vec<String> = {
        let list = world.engine.network_list(&world.scope(), &Filters::default()).await.unwrap();
        let mut names: Vec<String> = list.iter().map(|record| record.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names, ["bridge", "host", "none"]);
    let error = world.engine.network_delete(&world.scope(), "bridge").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Forbidden, "bridge is a pre-defined network and cannot be removed")
    );
    let error = world.create("host").await.unwrap_err();
    assert_eq!(error.message(), "operation is not permitted on predefined host network ");
}

#[tokio::test]
async fn names_are_unique() {
    let world = World::new().await;
    world.create("one").await.unwrap();
    let error = world.create("one").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, "network with name one already exists"));
}

#[tokio::test]
async fn networks_are_found_by_id_name_and_prefix() {
    let world = World::new().await;
    let id = world.create("one").await.unwrap().id;
    for reference in [id.as_str(), "one", id.short()] {
        assert_eq!(world.engine.network_inspect(&world.scope(), reference).await.unwrap().record.id, id);
    }
    let error = world.engine.network_inspect(&world.scope(), "nope").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "network nope not found"));
    let stranger: TenantId = "job-1".parse().unwrap();
    assert!(world.engine.network_inspect(&world.engine.scope_for(&stranger), "one").await.is_err());
}

#[tokio::test]
async fn networks_survive_a_restart() {
    let world = World::new().await;
    world.create("one").await.unwrap();
    let before = world.engine.networks.list(&tenant());
    let World { engine, folder, .. } = world;
    drop(engine);
    let world = World::open(folder).await;
    assert_eq!(world.engine.networks.list(&tenant()), before);
    assert_eq!(world.network.state().networks.len(), 2, "the default bridge and ours are made again");
}

#[tokio::test]
async fn a_network_that_fails_leaves_nothing() {
    let world = World::new().await;
    world.network.fail("create_network");
    world.create("one").await.unwrap_err();
    world.network.recover();
    assert!(world.engine.network_inspect(&world.scope(), "one").await.is_err());
    assert_eq!(world.network.state().networks.len(), 1);
    world.create("one").await.unwrap();
}

#[tokio::test]
async fn drivers_that_we_do_not_have_are_refused() {
    let world = World::new().await;
    let with_driver = |driver: &str| NetworkCreateRequest { driver: driver.to_owned(), ..request("x") };
    let error = world.engine.network_create(&world.scope(), with_driver("foo")).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "plugin \"foo\" not found"));
    let error = world.engine.network_create(&world.scope(), with_driver("host")).await.unwrap_err();
    assert_eq!(error.message(), "only one instance of \"host\" network is allowed");
}

#[tokio::test]
async fn a_network_in_use_stays() {
    let world = World::new().await;
    world.create("one").await.unwrap();
    let web = world.container("web", "one", EndpointSettings::default()).await;
    world.start(&web).await.unwrap();
    let error = world.engine.network_delete(&world.scope(), "one").await.unwrap_err();
    let endpoint = web.record().networking.attachments[0].endpoint.clone().unwrap();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert_eq!(
        error.message(),
        format!(
            "error while removing network: network one has active endpoints (name:\"web\" id:\"{}\")",
            endpoint.id.short()
        )
    );
    world.engine.release_network(&web.record()).await;
    world.engine.network_delete(&world.scope(), "one").await.unwrap();
    assert_eq!(world.network.state().networks.len(), 1);
}

#[tokio::test]
async fn a_run_has_endpoints_names_files_and_ports() {
    let world = World::new().await;
    world.create("one").await.unwrap();
    let settings = EndpointSettings { aliases: Some(vec!["www".to_owned()]), ..EndpointSettings::default() };
    let web = world.container("web", "one", settings).await;
    web.turn().await.unwrap().update(|record| {
        record.config.exposed_ports = Some(IndexMap::from([("80/tcp".to_owned(), serde_json::json!({}))]));
        let binding = PortBinding { host_port: "8080".to_owned(), ..PortBinding::default() };
        record.host_config.port_bindings = Some(IndexMap::from([("80/tcp".to_owned(), Some(vec![binding]))]));
    });
    let run = world.start(&web).await.unwrap();
    assert_eq!(run.published[0].host_port, 8080);
    assert_eq!(run.hostname, "web-host");
    let hosts = std::fs::read_to_string(run.files.hosts.unwrap()).unwrap();
    assert!(hosts.ends_with("172.18.0.2\tweb-host\n"), "{hosts}");
    let resolv_conf = std::fs::read_to_string(run.files.resolv_conf.unwrap()).unwrap();
    assert!(resolv_conf.starts_with("nameserver 127.0.0.11\n"), "{resolv_conf}");

    let id = web.id().short().to_owned();
    assert_eq!(run.attachments[0].dns_names, ["web", "www", &id, "web-host"]);
    let state = world.network.state();
    let names = &state.names[&run.attachments[0].network];
    assert_eq!(names.entries[0].names, run.attachments[0].dns_names);
    assert_eq!(state.sandboxes[web.id()].len(), 1);

    let view = world.engine.network_inspect(&world.scope(), "one").await.unwrap();
    assert_eq!((view.containers[0].name.as_str(), &view.containers[0].container), ("web", web.id()));
    world.engine.release_network(&web.record()).await;
    let state = world.network.state();
    assert!(state.sandboxes.is_empty() && state.published.is_empty());
    assert!(world.engine.network_inspect(&world.scope(), "one").await.unwrap().containers.is_empty());
}

#[tokio::test]
async fn a_run_that_fails_half_way_can_be_released() {
    let world = World::new().await;
    world.create("one").await.unwrap();
    let web = world.container("web", "one", EndpointSettings::default()).await;
    for step in ["create_sandbox", "attach", "publish_names"] {
        world.network.fail(step);
        let error = world.start(&web).await.unwrap_err();
        assert!(error.message().starts_with("failed to set up container networking: "), "{error}");
        world.network.recover();
        // As the tear-down does it, with the record from before the start.
        world.engine.release_network(&web.record()).await;
        assert!(world.network.state().sandboxes.is_empty());
        assert!(world.engine.network_inspect(&world.scope(), "one").await.unwrap().containers.is_empty());
    }
    let run = world.start(&web).await.unwrap();
    assert_eq!(run.attachments[0].endpoint.as_ref().unwrap().ipv4.unwrap().to_string(), "172.18.0.2/24");
}

#[tokio::test]
async fn an_unknown_network_is_missed_at_start() {
    let world = World::new().await;
    let web = world.container("web", "nope", EndpointSettings::default()).await;
    let error = world.start(&web).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().ends_with("network nope not found"));
    world.create("nope").await.unwrap();
    world.start(&web).await.unwrap();
}

#[tokio::test]
async fn the_default_bridge_has_no_names() {
    let world = World::new().await;
    let web = world.container("web", "default", EndpointSettings::default()).await;
    let run = world.start(&web).await.unwrap();
    assert_eq!(run.attachments[0].name, "bridge");
    assert!(run.attachments[0].dns_names.is_empty());
    assert!(world.network.state().names.is_empty());
}

#[tokio::test]
async fn links_follow_a_container_to_another_address() {
    let world = World::new().await;
    let none = EndpointSettings::default;
    let db = world.container("db", "default", none()).await;
    world.start(&db).await.unwrap();
    let web = world.container("web", "default", none()).await;
    web.turn().await.unwrap().update(|record| record.host_config.links = Some(vec!["db:data".to_owned()]));
    let hosts = world.start(&web).await.unwrap().files.hosts.unwrap();
    let line = || {
        let text = std::fs::read_to_string(&hosts).unwrap();
        text.lines().find(|line| line.contains("\tdata ")).unwrap().to_owned()
    };
    assert_eq!(line(), "172.17.0.2\tdata db-host db");
    world.engine.release_network(&db.record()).await;
    let other = world.container("other", "default", none()).await;
    world.start(&other).await.unwrap();
    world.engine.connect_run(&db.record()).await.unwrap();
    assert_eq!(line(), "172.17.0.4\tdata db-host db");
}

#[tokio::test]
async fn static_addresses_are_checked_at_create() {
    let world = World::new().await;
    world.create("auto").await.unwrap();
    world.engine.network_create(&world.scope(), with_subnet("chosen", "10.9.0.0/24")).await.unwrap();
    let resolve = async |network: &str, settings: EndpointSettings| {
        let request = ContainerCreateRequest {
            host_config: HostConfig { network_mode: network.into(), ..HostConfig::default() },
            networking: NetworkingConfig {
                endpoints_config: Some(IndexMap::from([(network.to_owned(), Some(settings))])),
            },
            ..ContainerCreateRequest::default()
        };
        world.engine.resolve_networks(&world.scope(), &request).await
    };
    let text = |result: Result<Vec<_>>| result.unwrap_err().message().to_owned();
    assert_eq!(
        text(resolve("bridge", static_address("172.17.0.9")).await),
        "invalid config for network bridge: invalid endpoint settings:\n\
         * user specified IP address is supported on user defined networks only\n\
         * user specified IP address is supported only when connecting to networks with user configured subnets"
    );
    assert!(text(resolve("auto", static_address("172.18.0.9")).await).ends_with("with user configured subnets"));
    assert!(
        text(resolve("chosen", static_address("10.8.0.9")).await)
            .ends_with("no configured subnet or ip-range contain the IP address 10.8.0.9")
    );
    resolve("chosen", static_address("10.9.0.9")).await.unwrap();
}

#[tokio::test]
async fn a_running_container_is_connected_and_disconnected() {
    let world = World::new().await;
    world.create("one").await.unwrap();
    let web = world.container("web", "default", EndpointSettings::default()).await;
    world.start(&web).await.unwrap();
    let connect = async |settings| world.engine.network_connect(&world.scope(), "one", "web", settings).await;
    // The fake runtime does not know the container, so that the record cannot be stored; all else is done.
    let _ = connect(EndpointSettings { aliases: Some(vec!["w".to_owned()]), ..EndpointSettings::default() }).await;
    let endpoint = web.record().networking.attachments[1].endpoint.clone().unwrap();
    assert_eq!((endpoint.interface.as_str(), endpoint.default_route), ("eth1", false));
    let state = world.network.state();
    assert_eq!(state.sandboxes[web.id()].len(), 2);
    let resolv_conf = world.engine.container_dir(web.id()).join("resolv.conf");
    assert!(std::fs::read_to_string(resolv_conf).unwrap().starts_with("nameserver 127.0.0.11"));
    let hosts = world.engine.container_dir(web.id()).join("hosts");
    assert!(std::fs::read_to_string(&hosts).unwrap().ends_with("172.18.0.2\tweb-host\n"));

    let error = connect(EndpointSettings::default()).await.unwrap_err();
    assert_eq!(error.message(), "endpoint with name web already exists in network one");

    let _ = world.engine.network_disconnect(&world.scope(), "bridge", "web", false).await;
    let record = web.record();
    assert_eq!(record.networking.attachments.len(), 1);
    assert!(record.networking.attachments[0].endpoint.as_ref().unwrap().default_route, "it moved on");
    let _ = world.engine.network_disconnect(&world.scope(), "one", "web", false).await;
    assert!(!std::fs::read_to_string(&hosts).unwrap().contains("172.1"));
    assert!(world.network.state().sandboxes[web.id()].is_empty());
    let error = world.engine.network_disconnect(&world.scope(), "one", "web", false).await.unwrap_err();
    assert_eq!(error.message(), format!("container {} is not connected to network one", web.id()));
}

#[tokio::test]
async fn before_a_start_the_first_connect_holds() {
    let world = World::new().await;
    world.engine.network_create(&world.scope(), with_subnet("one", "10.9.0.0/24")).await.unwrap();
    let web = world.container("web", "default", EndpointSettings::default()).await;
    for address in ["10.9.0.9", "10.9.0.10"] {
        // The fake runtime does not know the container, so that the record cannot be stored; all else is done.
        let _ = world.engine.network_connect(&world.scope(), "one", "web", static_address(address)).await;
    }
    let run = world.start(&web).await.unwrap();
    let addresses: Vec<String> =
        run.attachments.iter().map(|one| one.endpoint.as_ref().unwrap().ipv4.unwrap().to_string()).collect();
    assert_eq!(addresses, ["172.17.0.2/16", "10.9.0.9/24"]);
}

#[tokio::test]
async fn what_does_not_go_together_is_refused() {
    let world = World::new().await;
    world.create("one").await.unwrap();
    for (mode, text) in [
        ("none", "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
        (
            "host",
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
    ] {
        let container = world.container(mode, mode, EndpointSettings::default()).await;
        let (tenant, settings) = (tenant(), EndpointSettings::default());
        let connected = world
            .engine
            .network_connect(&world.engine.scope_for(&tenant), "one", container.id().as_str(), settings)
            .await;
        assert_eq!(connected.unwrap_err().message(), text);
    }
}

#[tokio::test]
async fn joining_a_network_needs_a_running_container() {
    let world = World::new().await;
    let web = world.container("web", "default", EndpointSettings::default()).await;
    let side = world.container("side", "container:web", EndpointSettings::default()).await;
    let error = world.start(&side).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message(), "cannot join network namespace of a non running container: container web is created");
    let run = world.start(&web).await.unwrap();
    web.turn().await.unwrap().update(|record| record.networking.sandbox = run.sandbox_path());
    let joined = world.start(&side).await.unwrap();
    assert_eq!(joined.sandbox_path(), run.sandbox_path());
    assert_eq!((joined.hostname, joined.files.hosts), ("web-host".to_owned(), run.files.hosts));
    let lost = world.container("lost", "container:nope", EndpointSettings::default()).await;
    let error = world.start(&lost).await.unwrap_err();
    assert_eq!(error.message(), "joining network namespace of container: No such container: nope");
}

#[tokio::test]
async fn lists_are_filtered() {
    let world = World::new().await;
    let labels = IndexMap::from([("a".to_owned(), "b".to_owned())]);
    let labelled = NetworkCreateRequest { labels, ..request("one") };
    world.engine.network_create(&world.scope(), labelled).await.unwrap();
    world.create("two").await.unwrap();
    let count = async |filters: &str| {
        let filters = Filters::parse(filters).unwrap();
        world.engine.network_list(&world.scope(), &filters).await.map(|list| list.len())
    };
    assert_eq!(count(r#"{"label":["a=b"]}"#).await.unwrap(), 1);
    assert_eq!(count(r#"{"type":["custom"]}"#).await.unwrap(), 2);
    assert_eq!(count(r#"{"dangling":["true"]}"#).await.unwrap(), 2);
    assert_eq!(count(r#"{"driver":["null"]}"#).await.unwrap(), 1);
    assert_eq!(count(r#"{"name":["w"]}"#).await.unwrap(), 1);
    assert_eq!(count(r#"{"scope":["swarm"]}"#).await.unwrap(), 0);
    assert_eq!(count(r#"{"foo":["x"]}"#).await.unwrap_err().message(), "invalid filter 'foo'");
    assert!(
        count(r#"{"dangling":["x"]}"#).await.unwrap_err().message().starts_with("invalid value for filter 'dangling'")
    );
}

#[tokio::test]
async fn networks_are_made_from_configurations() {
    let world = World::new().await;
    let make = async |request: NetworkCreateRequest| world.engine.network_create(&world.scope(), request).await;
    let labels = IndexMap::from([("a".to_owned(), "b".to_owned())]);
    make(NetworkCreateRequest { config_only: true, labels: labels.clone(), ..with_subnet("plan", "10.9.0.0/24") })
        .await
        .unwrap();
    assert_eq!(world.network.state().networks.len(), 1, "a configuration is nothing in the kernel");
    let from = |name: &str, plan: &str| NetworkCreateRequest {
        config_from: ConfigReference { network: plan.to_owned() },
        ..request(name)
    };
    make(from("one", "plan")).await.unwrap();
    let one = world.engine.network_inspect(&world.scope(), "one").await.unwrap().record;
    assert_eq!((&one.labels, one.ipam.config[0].subnet.as_str()), (&labels, "10.9.0.0/24"));

    let refused = async |request| make(request).await.unwrap_err().message().to_owned();
    assert_eq!(refused(from("two", "nosuch")).await, "configuration network \"nosuch\" does not exist");
    assert_eq!(refused(from("two", "one")).await, "configuration network \"one\" does not exist");
    let own = "user specified configurations are not supported if the network depends on a configuration network";
    assert_eq!(refused(NetworkCreateRequest { labels, ..from("two", "plan") }).await, own);
    let nested = NetworkCreateRequest { config_only: true, ..from("two", "plan") };
    assert_eq!(refused(nested).await, "a configuration network cannot depend on another configuration network");

    let error = world.engine.network_delete(&world.scope(), "plan").await.unwrap_err();
    assert_eq!(error.message(), "error while removing network: configuration network \"plan\" is in use");
    let web = world.container("web", "plan", EndpointSettings::default()).await;
    let error = world.start(&web).await.unwrap_err();
    let text = "failed to set up container networking: cannot create endpoint on configuration-only network";
    assert_eq!((error.kind(), error.message()), (ErrorKind::Forbidden, text));
    assert_eq!(world.engine.network_prune(&world.scope(), Filters::default()).await.unwrap(), ["one"]);
    world.engine.network_delete(&world.scope(), "plan").await.unwrap();
}

#[tokio::test]
async fn small_pools_run_out() {
    let config = EngineConfig {
        address_pools: vec![
            AddressPool { base: "10.8.0.0/24".parse().unwrap(), size: 24 },
            AddressPool { base: "10.9.0.0/30".parse().unwrap(), size: 30 },
        ],
        ..EngineConfig::default()
    };
    let world = World::open_with(TempDir::new().unwrap(), config).await;
    world.create("one").await.unwrap();
    let error = world.create("two").await.unwrap_err();
    let text = "all predefined address pools have been fully subnetted";
    assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidParameter, text));
    world.engine.network_delete(&world.scope(), "one").await.unwrap();
    world.create("two").await.unwrap();
}

#[tokio::test]
async fn events_tell_what_happens() {
    let world = World::new().await;
    let (_, mut events) = world.engine.events.subscribe(world.scope().tenant());
    world.create("one").await.unwrap();
    let web = world.container("web", "one", EndpointSettings::default()).await;
    world.start(&web).await.unwrap();
    world.engine.release_network(&web.record()).await;
    world.engine.network_delete(&world.scope(), "one").await.unwrap();
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        let keys: Vec<String> = event.attributes.keys().cloned().collect();
        seen.push((event.action, keys.join(" ")));
    }
    let expected = [
        ("create", "name type"),
        ("connect", "container name type"),
        ("disconnect", "container name type"),
        ("destroy", "name type"),
    ];
    assert_eq!(seen, expected.map(|(action, keys)| (action.to_owned(), keys.to_owned())));
}

#[tokio::test]
async fn prune_takes_networks_that_nothing_runs_on() {
    let world = World::new().await;
    world.create("idle").await.unwrap();
    world.create("used").await.unwrap();
    let one = world.container("one", "used", EndpointSettings::default()).await;
    world.start(&one).await.unwrap();
    let pruned = world.engine.network_prune(&world.scope(), Filters::default()).await.unwrap();
    assert_eq!(pruned, ["idle"]);
    let names: Vec<_> = world.engine.networks.list(&tenant()).iter().map(|network| network.name.clone()).collect();
    assert!(names.contains(&"used".to_owned()) && names.contains(&"bridge".to_owned()), "{names:?}");
}
