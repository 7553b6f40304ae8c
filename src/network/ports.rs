//! Reserving host ports. A port is ours when a socket of ours is bound to it, so that other programs and other
//! daemons meet the same refusal as with dockerd; the proxy then serves what the kernel does not redirect.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::{
    descriptors,
    model::{
        Error, Result,
        network::{Port, PortRequest, Protocol, PublishedPort},
    },
};

const EPHEMERAL: (u16, u16) = (32768, 60999);

/// Sockets that all hosts of this process hold: descriptors are the process's.
static HELD: AtomicU64 = AtomicU64::new(0);

/// The host ports of one daemon.
#[derive(Default)]
pub struct Ports {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By protocol and number, since one container may publish ten thousands.
    taken: HashMap<(Protocol, u16), Vec<IpAddr>>,
    last_ephemeral: Option<u16>,
}

/// A socket that holds a host port.
pub enum Bound {
    /// Listening.
    Tcp(TcpListener),
    /// Bound.
    Udp(UdpSocket),
    /// Bound, and only held: the firewall carries it.
    Sctp(OwnedFd),
}

/// A host port that is ours until this is dropped.
pub struct Reservation {
    /// What inspect shows.
    pub published: PublishedPort,
    /// The socket, until the proxy takes it.
    pub socket: Option<Bound>,
    /// Gives the port back to our own book.
    pub lease: Lease,
}

/// An entry in our book of ports.
pub struct Lease {
    ports: Arc<Ports>,
    key: (Protocol, SocketAddr),
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (protocol, host) = self.key;
        let mut state = self.ports.lock();
        if let Some(addresses) = state.taken.get_mut(&(protocol, host.port())) {
            addresses.retain(|address| *address != host.ip());
            if addresses.is_empty() {
                state.taken.remove(&(protocol, host.port()));
            }
        }
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ports {
    /// Reserves a host port for every request, all or none. `default` is where requests without an address go.
    pub fn reserve(self: &Arc<Self>, requests: &[PortRequest], default: Option<IpAddr>) -> Result<Vec<Reservation>> {
        let sockets = requests.iter().map(|request| host_addresses(request.host_ip.or(default)).count()).sum();
        check_room(requests.len(), sockets, HELD.load(Ordering::Relaxed), descriptors::for_ports())?;
        let mut reservations = Vec::new();
        for request in requests {
            reservations.extend(self.reserve_one(request, default)?);
        }
        Ok(reservations)
    }

    fn reserve_one(self: &Arc<Self>, request: &PortRequest, default: Option<IpAddr>) -> Result<Vec<Reservation>> {
        let addresses = host_addresses(request.host_ip.or(default));
        let (first, last) = request.host_ports.unwrap_or_else(ephemeral_range);
        let start = if request.host_ports.is_some() { first } else { self.next_ephemeral(first, last) };
        let mut refusal = None;
        for number in (start..=last).chain(first..start) {
            match self.take(request.port, &addresses, number) {
                Ok(reservations) => {
                    if request.host_ports.is_none() {
                        self.lock().last_ephemeral = Some(number);
                    }
                    return Ok(reservations);
                }
                Err(refused) if refused.next_may_do => refusal = Some(refused.error),
                Err(refused) => return Err(refused.error),
            }
        }
        match refusal {
            Some(error) if first == last => Err(error),
            _ => Err(Error::system("all ports are allocated")),
        }
    }

    /// One number at all addresses; a missing IPv6 is passed over where nobody asked for it by name.
    fn take(self: &Arc<Self>, port: Port, addresses: &HostAddresses, number: u16) -> Result<Vec<Reservation>, Refused> {
        let mut reservations = vec![self.bind(port, addresses.first, number)?];
        if let Some(second) = addresses.second {
            match self.bind(port, second, number) {
                Ok(reservation) => reservations.push(reservation),
                Err(refused) if refused.next_may_do => return Err(refused),
                Err(_) => {}
            }
        }
        Ok(reservations)
    }

    fn bind(self: &Arc<Self>, port: Port, address: IpAddr, number: u16) -> Result<Reservation, Refused> {
        let host = SocketAddr::new(address, number);
        let key = (port.protocol, host);
        let lease = self.note(key)?;
        let socket = bind(port.protocol, host).map_err(|error| Refused {
            next_may_do: error.kind() == io::ErrorKind::AddrInUse,
            error: cannot_bind(port.protocol, host, &error),
        })?;
        let published = PublishedPort { port, host_ip: address, host_port: number };
        Ok(Reservation { published, socket: Some(socket), lease })
    }

    fn note(self: &Arc<Self>, key: (Protocol, SocketAddr)) -> Result<Lease, Refused> {
        let (protocol, host) = key;
        let mut state = self.lock();
        let addresses = state.taken.entry((protocol, host.port())).or_default();
        if addresses.iter().any(|taken| overlap(*taken, host.ip())) {
            let text = format!("Bind for {}:{} failed: port is already allocated", host.ip(), host.port());
            return Err(Refused { next_may_do: true, error: Error::system(text) });
        }
        addresses.push(host.ip());
        HELD.fetch_add(1, Ordering::Relaxed);
        Ok(Lease { ports: self.clone(), key })
    }

    /// Goes on after the last one, so that a port that was just given back is not at once somebody else's.
    fn next_ephemeral(&self, first: u16, last: u16) -> u16 {
        match self.lock().last_ephemeral {
            Some(number) if (first..last).contains(&number) => number + 1,
            _ => first,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Refused {
    error: Error,
    next_may_do: bool,
}

struct HostAddresses {
    first: IpAddr,
    second: Option<IpAddr>,
}

impl HostAddresses {
    fn count(&self) -> u64 {
        1 + u64::from(self.second.is_some())
    }
}

/// Each port at each address is a socket as long as the container runs. Without descriptors nobody is served any more, and the
/// one that takes them would learn it only at its last port.
fn check_room(ports: usize, sockets: u64, held: u64, room: u64) -> Result<()> {
    match held.saturating_add(sockets) > room {
        true => Err(Error::too_many_published_ports(ports, sockets, held, room)),
        false => Ok(()),
    }
}

/// Without an address a port is published on both families.
fn host_addresses(wanted: Option<IpAddr>) -> HostAddresses {
    match wanted {
        Some(address) => HostAddresses { first: address, second: None },
        None => HostAddresses { first: Ipv4Addr::UNSPECIFIED.into(), second: Some(Ipv6Addr::UNSPECIFIED.into()) },
    }
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

fn ephemeral_range() -> (u16, u16) {
    let parse = |text: String| {
        let mut numbers = text.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok().and_then(parse).unwrap_or(EPHEMERAL)
}

fn bind(protocol: Protocol, host: SocketAddr) -> io::Result<Bound> {
    let (kind, of_kind) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, kind, flags, of_kind)?;
    if host.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match protocol {
        Protocol::Tcp => {}
        Protocol::Udp => {
            rustix::net::bind(&socket, &host)?;
            return Ok(Bound::Udp(socket.into()));
        }
        Protocol::Sctp => {
            rustix::net::bind(&socket, &host)?;
            return Ok(Bound::Sctp(socket));
        }
    }
    // Only lets us take a port whose old connections still linger; a listener elsewhere is refused all the same.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &host)?;
    rustix::net::listen(&socket, 1024)?;
    Ok(Bound::Tcp(socket.into()))
}

/// Why a host port cannot be ours. Of SCTP dockerd learns it only from its proxy: kernels often have none.
fn cannot_bind(protocol: Protocol, host: SocketAddr, error: &io::Error) -> Error {
    let reason = without_code(error);
    match protocol {
        Protocol::Sctp if error.kind() != io::ErrorKind::AddrInUse => {
            Error::system(format!("error starting userland proxy: failed to listen on {host}: {reason}"))
        }
        _ => Error::system(format!("failed to bind host port {host}/{}: {reason}", protocol.as_str())),
    }
}

/// `address already in use`, as Go writes it: lower case, without the number.
fn without_code(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host_ip: &str, host_ports: Option<(u16, u16)>) -> PortRequest {
        let port = Port { number: 80, protocol: Protocol::Tcp };
        PortRequest { port, host_ip: host_ip.parse().ok(), host_ports, machine: None }
    }

    #[test]
    fn a_port_of_ours_is_already_allocated() {
        let ports = Arc::new(Ports::default());
        let held = ports.reserve(&[request("127.0.0.1", None)], None).unwrap();
        let number = held[0].published.host_port;
        let error = ports.reserve(&[request("127.0.0.1", Some((number, number)))], None).err().unwrap();
        assert_eq!(error.message(), format!("Bind for 127.0.0.1:{number} failed: port is already allocated"));
        drop(held);
        assert!(ports.reserve(&[request("127.0.0.1", Some((number, number)))], None).is_ok());
    }

    #[test]
    fn more_ports_than_there_are_descriptors_for_are_refused_before_any_is_bound() {
        assert!(check_room(10, 20, 80, 100).is_ok());
        let error = check_room(10, 20, 81, 100).unwrap_err();
        assert_eq!(
            error.message(),
            "cannot publish 10 ports: they take 20 sockets, and published ports may hold 100, of which 81 are taken \
             (half of the daemon's limit of open files)"
        );
    }

    #[test]
    fn addresses_of_one_number_are_told_apart() {
        let ports = Arc::new(Ports::default());
        let held = ports.reserve(&[request("127.0.0.1", None)], None).unwrap();
        let number = held[0].published.host_port;
        let beside = ports.reserve(&[request("127.0.0.2", Some((number, number)))], None).unwrap();
        assert!(ports.reserve(&[request("0.0.0.0", Some((number, number)))], None).is_err(), "it includes both");
        drop(held);
        assert!(ports.reserve(&[request("127.0.0.2", Some((number, number)))], None).is_err(), "it is still held");
        drop(beside);
        assert!(ports.lock().taken.is_empty());
    }

    #[test]
    fn a_port_of_another_program_is_in_use() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = other.local_addr().unwrap().port();
        let error =
            Arc::new(Ports::default()).reserve(&[request("127.0.0.1", Some((number, number)))], None).err().unwrap();
        assert_eq!(error.message(), format!("failed to bind host port 127.0.0.1:{number}/tcp: address already in use"));
    }

    #[test]
    fn an_sctp_port_that_the_kernel_cannot_open_is_not_published() {
        let port = Port { number: 9, protocol: Protocol::Sctp };
        let wanted =
            PortRequest { port, host_ip: "127.0.0.1".parse().ok(), host_ports: Some((8099, 8099)), machine: None };
        let flags = SocketFlags::CLOEXEC;
        let has_sctp =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::SCTP)).is_ok();
        let reserved = Arc::new(Ports::default()).reserve(&[wanted], None);
        let refusal = reserved.err().map(|error| error.message().to_owned());
        let text = "error starting userland proxy: failed to listen on 127.0.0.1:8099: protocol not supported";
        assert_eq!(refusal.as_deref(), (!has_sctp).then_some(text));
    }

    #[test]
    fn a_range_passes_over_what_is_taken() {
        let ports = Arc::new(Ports::default());
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = other.local_addr().unwrap().port();
        let held = ports.reserve(&[request("127.0.0.1", Some((number, number.saturating_add(20))))], None).unwrap();
        assert!(held[0].published.host_port > number);
    }

    #[test]
    fn ephemeral_ports_are_not_given_out_twice_in_a_row() {
        let ports = Arc::new(Ports::default());
        let number = |reservations: Vec<Reservation>| reservations[0].published.host_port;
        let first = number(ports.reserve(&[request("127.0.0.1", None)], None).unwrap());
        let second = number(ports.reserve(&[request("127.0.0.1", None)], None).unwrap());
        assert_ne!(first, second);
    }
}
