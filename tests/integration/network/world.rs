//! A small world per test: a fresh network and mount namespace that plays the host, and another network
//! namespace beyond its uplink. All of it vanishes with the test's thread.

use std::{
    fs::File,
    future::Future,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use ringer::{
    backend::network::{NetworkBackend, SandboxDns, contract},
    model::{
        id::ContainerId,
        network::{BridgeNetwork, Endpoint},
    },
    network::LinuxNetwork,
};
use rustix::{
    mount::{MountPropagationFlags, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// The host's address on the uplink.
pub const HOST: &str = "192.0.2.2";
/// Somebody beyond the uplink.
pub const OUTSIDE: &str = "192.0.2.1";

const LIMIT: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(300);

/// Runs a test on a thread that sees only its own network and mounts.
pub fn in_a_fresh_world<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: descriptors stay shared; network, mounts and working folder become this thread's own.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.expect("tests of networks need root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs iproute2's `ip` in the calling thread's namespaces.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The host with a daemon's adapter on it.
pub struct World {
    /// The adapter under test.
    pub network: LinuxNetwork,
    /// The daemon's folder.
    pub root: tempfile::TempDir,
    outside: PathBuf,
}

impl World {
    /// A host with an uplink to the outside.
    pub async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let network = LinuxNetwork::open("test", root.path()).await.unwrap();
        let outside = wire_uplink(&network).await;
        Self { network, root, outside }
    }

    /// Makes a network.
    pub async fn network(&self, number: u8) -> BridgeNetwork {
        self.network_with(contract::network(number)).await
    }

    /// Makes a network that the caller has changed.
    pub async fn network_with(&self, network: BridgeNetwork) -> BridgeNetwork {
        self.network.create_network(&network).await.unwrap();
        network
    }

    /// Makes a container's sandbox on a network.
    pub async fn container(&self, network: &BridgeNetwork, host: u8) -> Container {
        self.container_with(network, host, None).await
    }

    /// The same with a name server.
    pub async fn container_with(&self, network: &BridgeNetwork, host: u8, dns: Option<SandboxDns>) -> Container {
        let id = ContainerId::random();
        let path = self.network.create_sandbox(&id, dns).await.unwrap();
        let endpoint = contract::endpoint(network, host, "eth0");
        self.network.attach(&id, network, &endpoint).await.unwrap();
        Container { id, path, endpoint }
    }

    /// Somebody beyond the uplink.
    pub fn outside(&self) -> Place {
        Place(Some(self.outside.clone()))
    }

    /// The host itself.
    pub fn host(&self) -> Place {
        Place::here()
    }
}

/// Gives the host an uplink. The outside is a namespace like a container's, wired by hand; the answer is where it is held.
pub async fn wire_uplink(host: &dyn NetworkBackend) -> PathBuf {
    let outside = host.create_sandbox(&ContainerId::from_stored("outside"), None).await.unwrap();
    ip("link add uplink mtu 1400 type veth peer name eth0");
    let file = File::open(&outside).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    ip(&format!("link set eth0 netns /proc/{}/fd/{fd}", std::process::id()));
    ip("addr add 192.0.2.2/24 dev uplink");
    ip("addr add fd00:2::2/64 dev uplink nodad");
    ip("link set uplink up");
    ip("route add default via 192.0.2.1");
    inside(&outside, || {
        ip("link set eth0 up");
        ip("addr add 192.0.2.1/24 dev eth0");
        ip("addr add fd00:2::1/64 dev eth0 nodad");
        // So that only rules of the host, not a missing route, keep it from containers.
        ip("route add 10.200.0.0/16 via 192.0.2.2");
    });
    outside
}

/// A sandbox with one endpoint.
pub struct Container {
    /// The container's id.
    pub id: ContainerId,
    /// Its network namespace.
    pub path: PathBuf,
    /// Its endpoint.
    pub endpoint: Endpoint,
}

impl Container {
    /// Its IPv4 address.
    pub fn address(&self) -> IpAddr {
        self.endpoint.ipv4.unwrap().addr().into()
    }

    /// Its network namespace.
    pub fn place(&self) -> Place {
        Place(Some(self.path.clone()))
    }
}

/// Runs `work` on a thread inside a network namespace.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(namespace).unwrap();
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where packets come from: a network namespace, or the host's.
#[derive(Clone)]
pub struct Place(Option<PathBuf>);

impl Place {
    /// Where the test is: the host.
    pub fn here() -> Self {
        Self(None)
    }

    /// In a network namespace.
    pub fn of(namespace: &Path) -> Self {
        Self(Some(namespace.to_owned()))
    }

    /// Runs `work` there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.0 {
            Some(path) => inside(path, work),
            None => work(),
        }
    }

    /// Serves TCP: tells each client, in one line, its address as seen from here.
    pub fn serve_tcp(&self, port: u16) {
        let any = if self.run(|| TcpListener::bind(("::", port)).is_ok()) { "::" } else { "0.0.0.0" };
        let listener = self.run(|| TcpListener::bind((any, port))).unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let _ = writeln!(client, "{}", client.peer_addr().unwrap().ip().to_canonical());
            }
        });
    }

    /// Serves UDP in the same way.
    pub fn serve_udp(&self, port: u16) {
        let socket = self.run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(client.ip().to_string().as_bytes(), client);
            }
        });
    }

    /// Connects, and says how the server sees us. Runs off the test's thread, which the proxies need.
    pub async fn reach_tcp(&self, address: &str) -> Option<IpAddr> {
        let (place, address) = (self.clone(), address.parse().unwrap());
        tokio::task::spawn_blocking(move || place.run(|| ask_tcp(address, LIMIT))).await.unwrap()
    }

    /// The same for what should not be reachable: waits only shortly.
    pub async fn fails_to_reach(&self, address: &str) -> bool {
        let (place, address) = (self.clone(), address.parse().unwrap());
        tokio::task::spawn_blocking(move || place.run(|| ask_tcp(address, SOON))).await.unwrap().is_none()
    }

    /// Sends a datagram, and says how the server sees us.
    pub async fn reach_udp(&self, address: &str) -> Option<IpAddr> {
        let (place, address) = (self.clone(), address.parse().unwrap());
        tokio::task::spawn_blocking(move || place.run(|| ask_udp(address, b"who am I")))
            .await
            .unwrap()
            .and_then(|answer| String::from_utf8(answer).ok()?.parse().ok())
    }

    /// Sends a DNS question to the sandbox's own name server.
    pub async fn resolve(&self, question: Vec<u8>) -> Vec<u8> {
        self.ask("127.0.0.11:53", question).await
    }

    /// Sends a question to some server, which must answer.
    pub async fn ask(&self, server: &str, question: Vec<u8>) -> Vec<u8> {
        let (place, server) = (self.clone(), server.parse().unwrap());
        tokio::task::spawn_blocking(move || place.run(|| ask_udp(server, &question))).await.unwrap().unwrap()
    }
}

fn ask_tcp(address: SocketAddr, limit: Duration) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.trim().parse().ok()
}

fn ask_udp(address: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.connect(address).ok()?;
    socket.send(packet).ok()?;
    let mut buffer = vec![0; 2048];
    let length = socket.recv(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

/// Polls until a condition holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what} within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
