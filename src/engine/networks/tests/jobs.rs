//! Networks of jobs, each in a host of its own.

use super::*;
use crate::{
    backend::network::{AskedFrom, fake::FakeHosts},
    engine::tenants::{Host, Tenant},
    model::job::Surroundings,
    model::network::{Opening, Protocol},
    oci::NetworkNamespace,
};

struct Jobs {
    world: World,
    hosts: FakeHosts,
}

impl Jobs {
    async fn new() -> Self {
        Self::with(EngineConfig::default()).await
    }

    async fn with(config: EngineConfig) -> Self {
        let Fakes { engine, network, hosts, folder, .. } =
            Fakes::open_with(HostFacts::detect(), TempDir::new().unwrap(), config).await;
        Self { world: World { engine, network, folder }, hosts }
    }

    fn engine(&self) -> &Engine {
        &self.world.engine
    }

    async fn open(&self, name: &str) -> (Arc<Tenant>, Scope) {
        let id = name.parse().unwrap();
        let host = self.engine().backends.network.open(&id).await.unwrap();
        let tenant = self.engine().tenants.add(&id, host);
        self.engine().open_networks_of(&tenant).await.unwrap();
        let scope = self.engine().scope_of(&id).unwrap();
        (tenant, scope)
    }

    fn network(&self, tenant: &Tenant) -> Arc<FakeNetwork> {
        self.hosts.of_job(tenant.id()).unwrap()
    }
}

/// A record of a job's container in host mode or on `network`.
async fn record_of(jobs: &Jobs, scope: &Scope, name: &str, host_config: HostConfig) -> ContainerRecord {
    let request = ContainerCreateRequest { host_config, ..ContainerCreateRequest::default() };
    let attachments = jobs.engine().resolve_networks(scope, &request).await.unwrap();
    let networking = Networking { attachments, ..Networking::default() };
    ContainerRecord { tenant: scope.tenant().clone(), ..record(name, request.host_config, networking) }
}

#[tokio::test]
async fn two_jobs_have_the_same_names_subnets_and_links() {
    let jobs = Jobs::new().await;
    for name in ["one", "two"] {
        let (tenant, scope) = jobs.open(name).await;
        let mut request = with_subnet("ci", "172.28.0.0/16");
        request.options.insert("com.docker.network.bridge.name".to_owned(), "br-ci".to_owned());
        jobs.engine().network_create(&scope, request).await.unwrap();
        let links: Vec<String> = jobs.network(&tenant).state().networks.into_keys().collect();
        assert_eq!(links, ["br-ci", "docker0"]);
    }
    let of_machine: Vec<String> = jobs.world.network.state().networks.into_keys().collect();
    assert_eq!(of_machine, ["rng-test"], "the default tenant's bridge alone is the machine's");
}

#[tokio::test]
async fn a_run_of_a_job_is_wired_and_named_in_its_host() {
    let jobs = Jobs::new().await;
    let (tenant, scope) = jobs.open("one").await;
    jobs.engine().network_create(&scope, request("ci")).await.unwrap();
    let mode = HostConfig { network_mode: "ci".into(), ..HostConfig::default() };
    let web = record_of(&jobs, &scope, "web", mode).await;
    jobs.engine().connect_run(&web).await.unwrap();
    let there = jobs.network(&tenant).state();
    assert!(there.sandboxes.contains_key(&web.id) && there.names.len() == 1, "{there:?}");
    let machine = jobs.world.network.state();
    assert!(machine.sandboxes.is_empty() && machine.names.is_empty(), "{machine:?}");
    jobs.engine().release_network(&web).await;
    assert!(jobs.network(&tenant).state().sandboxes.is_empty());
}

#[tokio::test]
async fn the_host_of_a_jobs_container_is_the_jobs() {
    let jobs = Jobs::new().await;
    let (tenant, scope) = jobs.open("one").await;
    let mode = || HostConfig { network_mode: "host".into(), ..HostConfig::default() };
    let runner = record_of(&jobs, &scope, "runner", mode()).await;
    let run = jobs.engine().connect_run(&runner).await.unwrap();
    let path = tenant.network().namespace().unwrap();
    assert_eq!(run.namespace.as_oci(), NetworkNamespace::Host(path.to_str()));
    assert_eq!(run.sandbox_path(), None, "it has none of its own");
    let default = record_of(&jobs, &jobs.world.scope(), "default", mode()).await;
    let run = jobs.engine().connect_run(&default).await.unwrap();
    assert_eq!(run.namespace.as_oci(), NetworkNamespace::Host(None));
}

#[tokio::test]
async fn a_server_of_the_clients_choice_is_asked_from_the_host() {
    let jobs = Jobs::new().await;
    let (_, scope) = jobs.open("one").await;
    for (dns, from) in [(None, AskedFrom::Machine), (Some(vec!["9.9.9.9".to_owned()]), AskedFrom::Host)] {
        let record = record_of(&jobs, &scope, "web", HostConfig { dns, ..HostConfig::default() }).await;
        let dns = jobs.engine().sandbox_dns(&record, true).unwrap();
        assert!(dns.upstreams.iter().all(|upstream| upstream.from == from), "{dns:?}");
    }
}

#[tokio::test]
async fn the_walls_are_open_to_what_is_configured_and_to_name_servers() {
    let forge = Opening { protocol: Protocol::Tcp, address: "192.0.2.2:3000".parse().unwrap() };
    let config = EngineConfig {
        job_openings: vec![forge],
        dns: vec!["192.0.2.53".parse().unwrap(), "127.0.0.53".parse().unwrap()],
        ..EngineConfig::default()
    };
    let jobs = Jobs::with(config).await;
    jobs.open("one").await;
    let openings = jobs.world.network.state().openings;
    let names = |protocol| Opening { protocol, address: "192.0.2.53:53".parse().unwrap() };
    for opening in [forge, names(Protocol::Udp), names(Protocol::Tcp)] {
        assert!(openings.contains(&opening), "{openings:?}");
    }
    assert!(!openings.iter().any(|opening| opening.address.ip().is_loopback()));
}

#[tokio::test]
async fn name_servers_of_the_machines_loopback_are_relayed_to_a_job() {
    let config = EngineConfig { dns: vec!["127.0.0.53".parse().unwrap()], ..EngineConfig::default() };
    let jobs = Jobs::with(config).await;
    let (tenant, scope) = jobs.open("one").await;
    let in_host = HostConfig { network_mode: "host".into(), ..HostConfig::default() };
    let runner = record_of(&jobs, &scope, "runner", in_host).await;
    jobs.engine().connect_run(&runner).await.unwrap();
    assert_eq!(jobs.network(&tenant).state().relayed, ["127.0.0.53".parse().unwrap()].into());
    let text = |run: RunNetwork| std::fs::read_to_string(run.files.resolv_conf.unwrap()).unwrap();
    let plain = record_of(&jobs, &scope, "plain", HostConfig::default()).await;
    let run = jobs.engine().connect_run(&plain).await.unwrap();
    assert!(text(run).starts_with("nameserver 127.0.0.11\n"), "on the default bridge too");
    let of_machine = record_of(&jobs, &jobs.world.scope(), "default", HostConfig::default()).await;
    let run = jobs.engine().connect_run(&of_machine).await.unwrap();
    assert!(!text(run).contains("127.0.0.11"), "as dockerd does it");
}

#[tokio::test]
async fn a_job_leaves_no_network_behind() {
    let jobs = Jobs::new().await;
    let (tenant, scope) = jobs.open("one").await;
    jobs.engine().network_create(&scope, request("ci")).await.unwrap();
    jobs.world.network.fail("remove_host");
    assert!(jobs.engine().remove_networks_of(&tenant).await.is_err());
    assert_eq!(jobs.engine().networks.list(tenant.id()).len(), 4, "it is tried again");
    jobs.world.network.recover();
    for _ in 0..2 {
        jobs.engine().remove_networks_of(&tenant).await.unwrap();
    }
    assert!(jobs.hosts.of_job(tenant.id()).is_none());
    assert!(jobs.engine().networks.list(tenant.id()).is_empty());
    let stored = std::fs::read_dir(jobs.world.folder.path().join("data/networks")).unwrap().count();
    assert_eq!(stored, 3, "those of the default tenant");
}

/// `--network-from`: a job in the host of another one.
#[tokio::test]
async fn tenants_of_one_host_do_not_meet_in_it() {
    let jobs = Jobs::new().await;
    let (first, scope) = jobs.open("one").await;
    let host = Host { of: first.id().clone(), network: first.network().clone() };
    let second = jobs.engine().tenants.add_within(&"two".parse().unwrap(), host, &Surroundings::default());
    jobs.engine().open_networks_of(&second).await.unwrap();
    let guest = jobs.engine().scope_of(second.id()).unwrap();
    for scope in [&scope, &guest] {
        jobs.engine().network_create(scope, request("ci")).await.unwrap();
    }
    let mut subnets: Vec<_> = jobs.network(&first).state().networks.into_values().map(|net| net.ipv4).collect();
    subnets.sort();
    subnets.dedup();
    assert_eq!(subnets.len(), 4, "four bridges, no two alike");
    jobs.engine().remove_networks_of(&second).await.unwrap();
    assert_eq!(jobs.network(&first).state().networks.len(), 2, "the other one's stay");
    jobs.engine().remove_networks_of(&first).await.unwrap();
    assert!(jobs.hosts.of_job(first.id()).is_none(), "the last one takes it away");
}
