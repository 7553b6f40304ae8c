//! The walls hold by IPv6 as well. Each place is reached by somebody first.

use std::net::Ipv6Addr;

use ringer::model::network::PortRequest;

use super::*;

/// The machine's address on the uplink, and somebody's beyond it.
const HOST: &str = "fd00:2::2";
const OUTSIDE: &str = "fd00:2::1";

/// A machine whose jobs have IPv6, since it has a way out by it.
async fn machine() -> Machine {
    let machine = Machine::new().await;
    ip(&format!("-6 route add default via {OUTSIDE}"));
    machine.outside().serve_tcp(80);
    machine
}

/// The network of this number, with IPv6 too: `fd00:<number>00::/64`.
fn network(number: u8) -> BridgeNetwork {
    let subnet = format!("fd00:{number}00::1/64").parse().unwrap();
    BridgeNetwork { ipv6: Some(subnet), ..contract::network(number) }
}

async fn job(machine: &Machine, name: &str) -> Job {
    let job = machine.job_on(name, network(1)).await;
    for place in [job.container(), job.in_host()] {
        let seen = place.reach_tcp(&format!("[{OUTSIDE}]:80")).await;
        assert_eq!(seen, Some(HOST.parse().unwrap()), "it has a way out");
    }
    job
}

/// A job's address on the way out.
fn address(job: &Job) -> Ipv6Addr {
    let shown = inside(&job.namespace(), || ip("-6 -o address show dev eth0 scope global"));
    let net = shown.split_whitespace().skip_while(|word| *word != "inet6").nth(1).expect("an address");
    net.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn nothing_of_the_machine_answers_a_job() {
    in_a_fresh_world(|| async {
        let machine = machine().await;
        let (here, network) = (machine.hosts.machine(), network(9));
        here.create_network(&network).await.unwrap();
        let neighbour = ContainerId::random();
        let sandbox = here.create_sandbox(&neighbour, None).await.unwrap();
        let endpoint = contract::endpoint(&network, 2, "eth0");
        here.attach(&neighbour, &network, &endpoint).await.unwrap();
        let published = PortRequest { host_ip: None, ..contract::tcp(80, Some(18080)) };
        here.publish(&neighbour, &network, &endpoint, &[published]).await.unwrap();
        Place::of(&sandbox).serve_tcp(80);
        machine.here().serve_tcp(8080);
        for port in [8080, 18080] {
            assert!(machine.outside().reach_tcp(&format!("[{HOST}]:{port}")).await.is_some(), "{port} is served");
        }
        let job = job(&machine, "one").await;
        let gateway = Ipv6Addr::from(u128::from(address(&job)) & !1);
        assert!(machine.here().reach_tcp(&format!("[{gateway}]:8080")).await.is_some(), "it is the machine's");
        for place in [job.container(), job.in_host()] {
            for address in [HOST, "fd00:900::1", &gateway.to_string()] {
                for port in [8080, 18080] {
                    assert!(place.fails_to_reach(&format!("[{address}]:{port}")).await, "{address}, {port}");
                }
            }
            assert!(place.fails_to_reach("[fd00:900::2]:80").await, "nor a container of the default tenant");
        }
        let forge = Opening { protocol: Protocol::Tcp, address: format!("[{HOST}]:8080").parse().unwrap() };
        machine.hosts.open_to(BTreeSet::from([forge])).await.unwrap();
        assert!(job.container().reach_tcp(&format!("[{HOST}]:8080")).await.is_some(), "what is opened answers");
        assert!(job.container().fails_to_reach(&format!("[{HOST}]:18080")).await, "and nothing beside it");
    });
}

#[test]
fn jobs_do_not_reach_each_other_and_nobody_reaches_them() {
    in_a_fresh_world(|| async {
        let machine = machine().await;
        let jobs = [job(&machine, "one").await, job(&machine, "two").await];
        jobs[1].in_host().serve_tcp(80);
        let other = address(&jobs[1]);
        let place = format!("[{other}]:80");
        assert!(jobs[1].in_host().reach_tcp(&place).await.is_some(), "it is served");
        for inside in [jobs[0].container(), jobs[0].in_host()] {
            assert!(inside.fails_to_reach(&place).await);
        }
        inside(&machine.outside, || ip(&format!("-6 route add {other} via {HOST}")));
        assert!(machine.outside().fails_to_reach(&place).await, "nor from beyond the uplink");
    });
}

#[test]
fn a_job_speaks_with_no_address_but_its_own() {
    in_a_fresh_world(|| async {
        let machine = machine().await;
        let jobs = [job(&machine, "one").await, job(&machine, "two").await];
        let stolen = [address(&jobs[1]), "fd00:2::77".parse().unwrap(), OUTSIDE.parse().unwrap()];
        let own = address(&jobs[0]);
        inside(&jobs[0].namespace(), || {
            for address in stolen {
                ip(&format!("addr add {address}/128 dev eth0 nodad"));
            }
        });
        // What is sent to the third address stays inside; the outside has another one.
        inside(&machine.outside, || ip("addr add fd00:2::9/64 dev eth0 nodad"));
        let heard = machine.outside().run(|| UdpSocket::bind("[::]:99")).unwrap();
        heard.set_read_timeout(Some(COMES)).unwrap();
        jobs[0].in_host().run(|| {
            for from in stolen {
                let _refused = UdpSocket::bind((from, 0)).unwrap().send_to(b"stolen", "[fd00:2::9]:99");
            }
            UdpSocket::bind((own, 0)).unwrap().send_to(b"own", "[fd00:2::9]:99").unwrap();
        });
        let mut buffer = [0; 16];
        let length = heard.recv(&mut buffer).unwrap();
        heard.set_read_timeout(Some(NOTHING)).unwrap();
        assert_eq!(&buffer[..length], b"own", "what is honest comes through");
        assert!(heard.recv(&mut buffer).is_err(), "and nothing else");
    });
}
