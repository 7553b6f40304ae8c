//! Hosts of jobs with real packets: the way out, and the walls around it.

mod ipv6;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ringer::{
    backend::network::{AskedFrom, NetworkBackend, NetworkHosts, SandboxDns, Upstream, contract},
    model::{
        id::{ContainerId, TenantId},
        network::{BridgeNetwork, Opening, PortRequest, Protocol},
    },
    network::{JobNetworks, LinuxHosts},
};

use super::world::{HOST, OUTSIDE, Place, eventually, in_a_fresh_world, inside, ip, wire_uplink};

/// For a datagram that comes: the first one waits until each link on the way knows its neighbour, who may have to be asked again.
const COMES: Duration = Duration::from_secs(20);

/// For one that does not, after one that came.
const NOTHING: Duration = Duration::from_millis(500);

/// Where clouds tell a machine its secrets.
const METADATA: [&str; 6] = [
    "169.254.169.254/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
];

/// A machine with an uplink and a daemon that has jobs.
struct Machine {
    hosts: LinuxHosts,
    root: tempfile::TempDir,
    outside: PathBuf,
}

/// A job's host, with a container on a network.
struct Job {
    tenant: TenantId,
    host: Arc<dyn NetworkBackend>,
    network: BridgeNetwork,
    container: ContainerId,
    sandbox: PathBuf,
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

async fn open_hosts(root: &tempfile::TempDir) -> LinuxHosts {
    LinuxHosts::open("test", root.path(), &JobNetworks::default()).await.unwrap()
}

impl Machine {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let hosts = open_hosts(&root).await;
        let outside = wire_uplink(&*hosts.machine()).await;
        Self { hosts, root, outside }
    }

    fn here(&self) -> Place {
        Place::here()
    }

    fn outside(&self) -> Place {
        Place::of(&self.outside)
    }

    /// A job with network number 1 and the container 10.200.1.2 on it.
    async fn job(&self, name: &str) -> Job {
        self.job_on(name, contract::network(1)).await
    }

    /// The same with a network of the test's own.
    async fn job_on(&self, name: &str, network: BridgeNetwork) -> Job {
        let host = self.hosts.open(&tenant(name)).await.unwrap();
        host.create_network(&network).await.unwrap();
        let container = ContainerId::random();
        let sandbox = host.create_sandbox(&container, None).await.unwrap();
        host.attach(&container, &network, &contract::endpoint(&network, 2, "eth0")).await.unwrap();
        Job { tenant: tenant(name), host, network, container, sandbox }
    }
}

impl Job {
    fn container(&self) -> Place {
        Place::of(&self.sandbox)
    }

    fn namespace(&self) -> PathBuf {
        self.host.namespace().unwrap()
    }

    /// What runs with `--network host`.
    fn in_host(&self) -> Place {
        Place::of(&self.namespace())
    }

    /// Its address on the way out.
    async fn address(&self) -> IpAddr {
        self.host.uplink().await.unwrap().address.unwrap()
    }

    /// The machine's address on the way out.
    async fn gateway(&self) -> IpAddr {
        let IpAddr::V4(address) = self.address().await else { panic!("IPv4 comes first") };
        IpAddr::V4((u32::from(address) & !1).into())
    }
}

#[test]
fn a_job_reaches_the_outside_with_the_machines_address() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        ip("-6 route add default via fd00:2::1");
        machine.outside().serve_tcp(80);
        machine.outside().serve_udp(81);
        let job = machine.job("one").await;
        let host = Some(HOST.parse().unwrap());
        assert_eq!(job.container().reach_tcp(&format!("{OUTSIDE}:80")).await, host);
        assert_eq!(job.container().reach_udp(&format!("{OUTSIDE}:81")).await, host);
        assert_eq!(job.in_host().reach_tcp(&format!("{OUTSIDE}:80")).await, host);
        assert_eq!(job.in_host().reach_tcp("[fd00:2::1]:80").await, Some("fd00:2::2".parse().unwrap()));
        assert_eq!(job.host.uplink().await.unwrap().mtu, 1400, "the machine's");
        let used = job.host.used_subnets().await.unwrap();
        assert!(used.contains(&"192.0.2.0/24".parse().unwrap()), "what the machine routes is not for networks of jobs");
        machine.hosts.shutdown().await.unwrap();
    });
}

#[test]
fn without_ipv6_on_the_machine_a_job_has_none() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let job = machine.job("one").await;
        let addresses = inside(&job.namespace(), || ip("-6 address show dev eth0"));
        assert_eq!(addresses, "");
    });
}

#[test]
fn two_jobs_publish_the_same_port() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let jobs = [machine.job("one").await, machine.job("two").await];
        for job in &jobs {
            job.container().serve_tcp(80);
            let endpoint = contract::endpoint(&job.network, 2, "eth0");
            job.host.publish(&job.container, &job.network, &endpoint, &[contract::tcp(80, Some(5432))]).await.unwrap();
        }
        for job in &jobs {
            let neighbour = ContainerId::random();
            let sandbox = job.host.create_sandbox(&neighbour, None).await.unwrap();
            let endpoint = contract::endpoint(&job.network, 3, "eth0");
            job.host.attach(&neighbour, &job.network, &endpoint).await.unwrap();
            assert!(Place::of(&sandbox).reach_tcp("10.200.1.1:5432").await.is_some(), "at the gateway");
            assert!(job.in_host().reach_tcp("127.0.0.1:5432").await.is_some(), "at the host's loopback");
            assert!(job.in_host().reach_tcp("10.200.1.1:5432").await.is_some());
        }
        assert!(machine.here().fails_to_reach("127.0.0.1:5432").await, "the machine's ports are the default tenant's");
        assert!(machine.here().fails_to_reach(&format!("{HOST}:5432")).await);
    });
}

#[test]
fn a_port_answers_on_the_machine_where_its_job_may_have_it() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let at = |job: &Job, host: Option<u16>, address: &str| {
            let (host_, container, network) = (job.host.clone(), job.container.clone(), job.network.clone());
            let wanted = PortRequest { machine: address.parse().ok(), ..contract::tcp(80, host) };
            async move {
                let endpoint = contract::endpoint(&network, 2, "eth0");
                host_.publish(&container, &network, &endpoint, &[wanted]).await
            }
        };
        let (one, two) = (machine.job("one").await, machine.job("two").await);
        one.container().serve_tcp(80);
        two.container().serve_tcp(80);
        at(&one, Some(5432), "127.0.0.1").await.unwrap();
        assert!(machine.here().reach_tcp("127.0.0.1:5432").await.is_some());
        assert!(machine.outside().fails_to_reach(&format!("{HOST}:5432")).await, "at that address alone");
        let taken = at(&two, Some(5432), "127.0.0.1").await.unwrap_err();
        assert!(taken.message().contains("127.0.0.1:5432 failed: port is already allocated"), "{}", taken.message());
        let free = at(&two, None, "0.0.0.0").await.unwrap()[0].host_port;
        assert!(
            machine.outside().reach_tcp(&format!("{HOST}:{free}")).await.is_some(),
            "its number is the same in both"
        );
        assert!(two.in_host().reach_tcp(&format!("127.0.0.1:{free}")).await.is_some());
        assert!(one.in_host().fails_to_reach(&format!("{HOST}:{free}")).await, "other jobs are outside its walls");
        machine.hosts.remove(&one.tenant).await.unwrap();
        assert!(machine.here().fails_to_reach("127.0.0.1:5432").await, "it goes with its job");
        at(&two, Some(5432), "127.0.0.1").await.unwrap();
    });
}

#[test]
fn nothing_of_the_machine_answers_a_job() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let here = machine.hosts.machine();
        let network = contract::network(9);
        here.create_network(&network).await.unwrap();
        let neighbour = ContainerId::random();
        let sandbox = here.create_sandbox(&neighbour, None).await.unwrap();
        let endpoint = contract::endpoint(&network, 2, "eth0");
        here.attach(&neighbour, &network, &endpoint).await.unwrap();
        here.publish(&neighbour, &network, &endpoint, &[contract::tcp(80, Some(18080))]).await.unwrap();
        Place::of(&sandbox).serve_tcp(80);
        machine.here().serve_tcp(8080);
        assert!(machine.outside().reach_tcp(&format!("{HOST}:18080")).await.is_some(), "it is published");
        assert!(machine.outside().reach_tcp(&format!("{HOST}:8080")).await.is_some(), "it is served");
        let job = machine.job("one").await;
        let gateway = job.gateway().await;
        for place in [job.container(), job.in_host()] {
            for port in [8080, 18080] {
                for address in [HOST, "10.200.9.1", &gateway.to_string()] {
                    assert!(place.fails_to_reach(&format!("{address}:{port}")).await, "{address}:{port}");
                }
            }
            assert!(place.fails_to_reach("10.200.9.2:80").await, "nor a container of the default tenant");
        }
        let asked = Instant::now();
        assert!(job.in_host().reach_tcp(&format!("{HOST}:8080")).await.is_none());
        assert!(asked.elapsed() < Duration::from_secs(4), "it is told so instead of waiting");
    });
}

#[test]
fn what_is_opened_answers_a_job_and_nothing_beside_it() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        machine.here().serve_tcp(8080);
        machine.here().serve_tcp(8081);
        let job = machine.job("one").await;
        let forge = Opening { protocol: Protocol::Tcp, address: format!("{HOST}:8080").parse().unwrap() };
        machine.hosts.open_to(BTreeSet::from([forge])).await.unwrap();
        assert_eq!(job.container().reach_tcp(&format!("{HOST}:8080")).await, Some(job.address().await));
        assert!(job.container().fails_to_reach(&format!("{HOST}:8081")).await);
        let gateway = job.gateway().await;
        assert!(job.container().fails_to_reach(&format!("{gateway}:8080")).await, "only that address");
        machine.hosts.open_to(BTreeSet::new()).await.unwrap();
        assert!(job.container().fails_to_reach(&format!("{HOST}:8080")).await);
    });
}

#[test]
fn what_is_opened_to_one_job_answers_no_other() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        machine.here().serve_tcp(8080);
        let jobs = [machine.job("one").await, machine.job("two").await];
        let place = format!("{HOST}:8080");
        let forge = Opening { protocol: Protocol::Tcp, address: place.parse().unwrap() };
        machine.hosts.open_job_to(&jobs[0].tenant, BTreeSet::from([forge])).await.unwrap();
        for inside in [jobs[0].container(), jobs[0].in_host()] {
            assert_eq!(inside.reach_tcp(&place).await, Some(jobs[0].address().await));
        }
        for inside in [jobs[1].container(), jobs[1].in_host()] {
            assert!(inside.fails_to_reach(&place).await);
        }
        machine.hosts.remove(&jobs[0].tenant).await.unwrap();
        assert!(machine.hosts.open_job_to(&jobs[0].tenant, BTreeSet::new()).await.is_err(), "no job, no walls");
        let again = machine.job("one").await;
        assert!(again.container().fails_to_reach(&place).await, "openings end with the job");
    });
}

#[test]
fn metadata_of_clouds_answers_the_machine_and_no_job() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        ip("-6 route add default via fd00:2::1");
        for net in METADATA {
            let at_once = if net.contains(':') { "nodad" } else { "" };
            inside(&machine.outside, || ip(&format!("addr add {net} dev eth0 {at_once}")));
        }
        ip(&format!("route add 169.254.169.254 via {OUTSIDE}"));
        machine.outside().serve_tcp(80);
        let job = machine.job("one").await;
        assert!(job.in_host().reach_tcp("[fd00:2::1]:80").await.is_some(), "it has IPv6");
        for net in METADATA {
            let address: SocketAddr = (net.parse::<ipnet::IpNet>().unwrap().addr(), 80).into();
            let address = address.to_string();
            assert!(machine.here().reach_tcp(&address).await.is_some(), "{address}");
            for place in [job.container(), job.in_host()] {
                assert!(place.fails_to_reach(&address).await, "{address}");
            }
        }
    });
}

#[test]
fn jobs_do_not_reach_each_other_and_nobody_reaches_them() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let jobs = [machine.job("one").await, machine.job("two").await];
        jobs[1].in_host().serve_tcp(80);
        let other = jobs[1].address().await;
        assert!(jobs[1].in_host().reach_tcp(&format!("{other}:80")).await.is_some(), "it is served");
        for place in [jobs[0].container(), jobs[0].in_host()] {
            assert!(place.fails_to_reach(&format!("{other}:80")).await);
        }
        inside(&machine.outside, || ip(&format!("route add {other} via {HOST}")));
        assert!(machine.outside().fails_to_reach(&format!("{other}:80")).await, "nor from beyond the uplink");
    });
}

#[test]
fn a_job_speaks_with_no_address_but_its_own() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let jobs = [machine.job("one").await, machine.job("two").await];
        let own = jobs[0].address().await;
        let stolen = [jobs[1].address().await, "192.0.2.77".parse().unwrap(), OUTSIDE.parse().unwrap()];
        inside(&jobs[0].namespace(), || {
            // As a container of the host's network with all capabilities can.
            ip("addr add 192.0.2.77/32 dev eth0");
            ip(&format!("addr add {}/32 dev eth0", stolen[0]));
            ip(&format!("addr add {OUTSIDE}/32 dev eth0"));
            ip(&format!("route add {HOST} dev eth0"));
        });
        let heard = machine.outside().run(|| UdpSocket::bind("0.0.0.0:99")).unwrap();
        heard.set_read_timeout(Some(COMES)).unwrap();
        // What is sent to the third address stays inside; the outside has another one.
        inside(&machine.outside, || ip("addr add 192.0.2.9/24 dev eth0"));
        jobs[0].in_host().run(|| {
            for from in stolen {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                let _ = socket.send_to(b"stolen", "192.0.2.9:99");
            }
            UdpSocket::bind((own, 0)).unwrap().send_to(b"own", "192.0.2.9:99").unwrap();
        });
        let mut buffer = [0; 16];
        let length = heard.recv(&mut buffer).unwrap();
        heard.set_read_timeout(Some(NOTHING)).unwrap();
        assert_eq!(&buffer[..length], b"own", "what is honest comes through");
        assert!(heard.recv(&mut buffer).is_err(), "and nothing else");
    });
}

#[test]
fn what_a_job_says_of_its_neighbours_is_not_heard() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let job = machine.job("one").await;
        let (address, gateway) = (job.address().await, job.gateway().await);
        let neighbours = || ip("neigh show nud permanent");
        let before = neighbours();
        assert!(before.contains(&address.to_string()), "{before}");
        inside(&job.namespace(), || {
            ip("link set eth0 down");
            ip("link set eth0 address 02:00:00:00:00:99");
            ip("link set eth0 up");
            ip("neigh flush dev eth0 nud permanent");
        });
        assert!(job.in_host().fails_to_reach(&format!("{gateway}:80")).await);
        let asked = inside(&job.namespace(), || ip("neigh show dev eth0"));
        assert!(!asked.contains("REACHABLE"), "the machine does not answer questions for addresses: {asked}");
        assert_eq!(neighbours(), before);
        let link = before.split_whitespace().nth(2).unwrap().to_owned();
        for (switch, value) in [("ipv4/conf/@/arp_ignore", "8"), ("ipv6/conf/@/accept_ra", "0")] {
            let path = format!("/proc/sys/net/{}", switch.replace('@', &link));
            // The calling thread's namespace, not the process's.
            assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), value, "{path}");
        }
    });
}

/// A container may put what it likes on its own bridge: there it is heard, and nowhere else, though another job has the same addresses.
#[test]
fn what_a_container_says_on_its_own_bridge_stays_there() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let jobs = [machine.job("one").await, machine.job("two").await];
        let spoofer = ContainerId::random();
        let sandbox = jobs[0].host.create_sandbox(&spoofer, None).await.unwrap();
        let network = &jobs[0].network;
        jobs[0].host.attach(&spoofer, network, &contract::endpoint(network, 3, "eth0")).await.unwrap();
        let seen = |job: &Job, address: &str| inside(&job.namespace(), || ip(&format!("neigh show {address}")));
        // Both hosts know the container 2 of their network.
        for job in &jobs {
            let _nobody_answers = job.container().reach_tcp("10.200.1.1:1").await;
            assert!(seen(job, "10.200.1.2").contains("lladdr"), "{}", seen(job, "10.200.1.2"));
        }
        let (others, machines) = (seen(&jobs[1], "10.200.1.2"), ip("neigh show nud permanent"));
        let known = |text: &str| text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_owned);

        // The spoofer is the container 2 and the gateway, and says so.
        let say = || {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/arp_notify", "1").unwrap();
            ip("link set eth0 down");
            ip("link set eth0 up");
        };
        inside(&sandbox, || {
            ip("addr add 10.200.1.2/24 dev eth0");
            ip("addr add 10.200.1.1/24 dev eth0");
        });
        eventually("its own host believes it", || {
            inside(&sandbox, say);
            let link = inside(&sandbox, || ip("link show eth0"));
            known(&seen(&jobs[0], "10.200.1.2")).is_some_and(|address| link.contains(&address))
        })
        .await;
        assert_eq!(known(&seen(&jobs[1], "10.200.1.2")), known(&others), "the other job's host does not");
        assert_eq!(ip("neigh show nud permanent"), machines, "nor does the machine");
        machine.outside().serve_tcp(80);
        assert!(jobs[1].container().reach_tcp(&format!("{OUTSIDE}:80")).await.is_some(), "the other job goes on");

        // What goes out with the addresses of others is heard, if at all, from the machine's.
        let stolen = [jobs[1].address().await.to_string(), "192.0.2.77".to_owned(), OUTSIDE.to_owned()];
        inside(&machine.outside, || ip("addr add 192.0.2.9/24 dev eth0"));
        let heard = machine.outside().run(|| UdpSocket::bind("0.0.0.0:99")).unwrap();
        heard.set_read_timeout(Some(COMES)).unwrap();
        inside(&sandbox, || {
            ip("addr del 10.200.1.1/24 dev eth0");
            ip("addr del 10.200.1.2/24 dev eth0");
            ip("route replace default via 10.200.1.1");
            for address in &stolen {
                ip(&format!("addr add {address}/32 dev eth0"));
                let _it_may_have_no_way =
                    UdpSocket::bind((address.as_str(), 0)).unwrap().send_to(b"stolen", "192.0.2.9:99");
            }
            UdpSocket::bind("10.200.1.3:0").unwrap().send_to(b"own", "192.0.2.9:99").unwrap();
        });
        let mut buffer = [0; 16];
        let mut came = Vec::new();
        while let Ok((length, from)) = heard.recv_from(&mut buffer) {
            assert_eq!(from.ip().to_string(), HOST, "{:?}", &buffer[..length]);
            if &buffer[..length] == b"own" {
                heard.set_read_timeout(Some(NOTHING)).unwrap();
            }
            came.push(buffer[..length].to_vec());
        }
        assert!(came.contains(&b"own".to_vec()), "what is honest comes through");
        machine.hosts.shutdown().await.unwrap();
    });
}

#[test]
fn name_servers_of_the_machine_are_asked_from_it_and_those_of_the_client_are_not() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        // As systemd-resolved.
        let resolved = tokio::net::UdpSocket::bind("127.0.0.53:53").await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = resolved.recv_from(&mut buffer).await {
                buffer[2] |= 0x80;
                buffer[3] = 3;
                let _ = resolved.send_to(&buffer[..length], client).await;
            }
        });
        let job = machine.job("one").await;
        let address: SocketAddr = "127.0.0.53:53".parse().unwrap();
        for (from, code) in [(AskedFrom::Machine, 3), (AskedFrom::Host, 2)] {
            let container = ContainerId::random();
            let dns = SandboxDns { upstreams: vec![Upstream { address, from }], keep_single_labels: false };
            let sandbox = job.host.create_sandbox(&container, Some(dns)).await.unwrap();
            let answer = Place::of(&sandbox).resolve(super::question("example.org", 1)).await;
            assert_eq!(answer[3] & 0x0f, code, "asked from {from:?}");
        }
        for _ in 0..2 {
            job.host.relay_names(&["127.0.0.53".parse().unwrap()]).await.unwrap();
        }
        let answer = job.in_host().ask("127.0.0.53:53", super::question("example.org", 1)).await;
        assert_eq!(answer[3] & 0x0f, 3, "what runs in the host asks as on the machine");
    });
}

#[test]
fn a_host_goes_with_all_that_is_in_it() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let before = ip("-brief link show");
        let job = machine.job("one").await;
        job.container().serve_tcp(80);
        let endpoint = contract::endpoint(&job.network, 2, "eth0");
        job.host.publish(&job.container, &job.network, &endpoint, &[contract::tcp(80, Some(5432))]).await.unwrap();
        job.host.relay_names(&["127.0.0.53".parse().unwrap()]).await.unwrap();
        assert_ne!(ip("-brief link show"), before);
        let (tenant, address) = (job.tenant.clone(), job.address().await);
        machine.hosts.remove(&tenant).await.unwrap();
        eventually("the links are gone", || ip("-brief link show") == before).await;
        let rules =
            machine.here().run(|| std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap());
        assert!(!String::from_utf8_lossy(&rules.stdout).contains(&address.to_string()));
        assert!(!machine.root.path().join("hosts").join(tenant.as_str()).exists());
        // At once, under the same name.
        let again = machine.job("one").await;
        machine.outside().serve_tcp(80);
        assert!(again.container().reach_tcp(&format!("{OUTSIDE}:80")).await.is_some());
    });
}

#[test]
fn a_later_life_takes_up_the_hosts_that_it_keeps() {
    in_a_fresh_world(|| async {
        let machine = Machine::new().await;
        let (kept, swept) = (machine.job("kept").await, machine.job("swept").await);
        let address = kept.address().await;
        drop((kept, swept));
        let Machine { hosts, root, outside } = machine;
        drop(hosts);
        let machine = Machine { hosts: open_hosts(&root).await, root, outside };
        let host = machine.hosts.open(&tenant("kept")).await.unwrap();
        machine.hosts.sweep(&BTreeSet::from([tenant("kept")])).await.unwrap();
        assert_eq!(host.uplink().await.unwrap().address, Some(address));
        machine.outside().serve_tcp(80);
        machine.here().serve_tcp(8080);
        let place = Place::of(&host.namespace().unwrap());
        assert!(place.reach_tcp(&format!("{OUTSIDE}:80")).await.is_some());
        assert!(place.fails_to_reach(&format!("{HOST}:8080")).await, "the walls are there again");
        let folders = std::fs::read_dir(machine.root.path().join("hosts")).unwrap().count();
        assert_eq!(folders, 1);
        machine.hosts.shutdown().await.unwrap();
        eventually("no way out is left", || !ip("-brief link show type veth").contains("rng")).await;
    });
}

/// What a host costs; printed, and held to what a slow machine still does.
#[test]
fn a_host_is_cheap() {
    in_a_fresh_world(|| async {
        const MANY: u32 = 50;
        let machine = Machine::new().await;
        let begun = Instant::now();
        for number in 0..MANY {
            machine.hosts.open(&tenant(&format!("job-{number}"))).await.unwrap();
        }
        let made = begun.elapsed() / MANY;
        let begun = Instant::now();
        for number in 0..MANY {
            machine.hosts.remove(&tenant(&format!("job-{number}"))).await.unwrap();
        }
        let removed = begun.elapsed() / MANY;
        println!("{MANY} hosts: made in {made:?} each, removed in {removed:?} each");
        assert!(made < Duration::from_secs(1) && removed < Duration::from_secs(1));
        machine.hosts.shutdown().await.unwrap();
    });
}
