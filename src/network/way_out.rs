//! The way out of a job's host: a veth pair between the machine and the job's network namespace.
//!
//! Its two ends know each other's hardware address, so the machine neither asks for neighbours there nor answers a job
//! that does, and what a job says by ARP, NDP or router advertisements changes nothing on the machine.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{Mutex, PoisonError},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

use super::{
    links::{Links, VethPair},
    netns, sysctl, uplink,
};
use crate::model::id::TenantId;

/// Name of the end in the job's host.
const INNER: &str = "eth0";
/// Names of links that are being deleted begin so.
const RETIRED: &str = "rngdel";
/// Benchmarking networks (RFC 2544), which nobody routes, and what providers have for their own customers (RFC 6598).
const POOLS: [Ipv4Net; 2] =
    [Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15), Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10)];
/// A unique local prefix (RFC 4193); the IPv4 address follows.
const IPV6: [u16; 6] = [0xfd72, 0x696e, 0x6765, 0x7200, 0, 0];

/// A route to more than that is a default route cut in parts, as VPNs have it.
const LEAST_PREFIX: u8 = 8;
/// More than there are ways out on any machine.
const MOST_TRIED: usize = 1 << 16;

/// The two addresses of a way out: the machine's, which is even, and the job's after it. IPv6 has the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair(Ipv4Addr);

impl Pair {
    fn number(number: u32) -> Self {
        Self(Ipv4Addr::from(number & !1))
    }

    fn other(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0) | 1)
    }

    fn subnet(self) -> IpNet {
        IpNet::V4(Ipv4Net::new_assert(self.0, 31))
    }

    /// The machine's addresses.
    fn of_machine(self, ipv6: bool) -> Vec<IpAddr> {
        both(self.0, ipv6)
    }

    /// The job's addresses.
    fn of_job(self, ipv6: bool) -> Vec<IpAddr> {
        both(self.other(), ipv6)
    }
}

fn both(four: Ipv4Addr, ipv6: bool) -> Vec<IpAddr> {
    let [a, b, c, d] = four.octets().map(u16::from);
    let [p0, p1, p2, p3, p4, p5] = IPV6;
    let six = Ipv6Addr::new(p0, p1, p2, p3, p4, p5, a << 8 | b, c << 8 | d);
    [Some(IpAddr::V4(four)), ipv6.then_some(IpAddr::V6(six))].into_iter().flatten().collect()
}

/// With the prefix of a link between two.
fn with_prefix(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new_assert(address, 31)),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::new_assert(address, 127)),
    }
}

fn mac_of(four: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = four.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Which addresses ways out have.
pub struct Addresses {
    pools: Vec<Ipv4Net>,
    state: Mutex<State>,
}

struct State {
    leased: BTreeSet<Pair>,
    /// Where to look next: what was given back rests, and two daemons begin at different places.
    next: u32,
}

impl Addresses {
    /// Cuts them from `pools`, or from ours if there are none.
    pub fn new(pools: &[Ipv4Net], instance: &str) -> Self {
        let pools = if pools.is_empty() { POOLS.to_vec() } else { pools.to_vec() };
        let digest = Sha256::digest(instance);
        let next = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Self { pools, state: Mutex::new(State { leased: BTreeSet::new(), next }) }
    }

    /// A free pair; `used` is what the machine routes already.
    pub fn lease(&self, used: &[IpNet]) -> io::Result<Pair> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in &self.pools {
            let is_in_the_way = |net: &&IpNet| net.prefix_len() >= LEAST_PREFIX && overlap(net, &IpNet::V4(*pool));
            let within: Vec<&IpNet> = used.iter().filter(is_in_the_way).collect();
            let (first, last) = (u32::from(pool.network()), u32::from(pool.broadcast()));
            let size = (last - first) / 2 + 1;
            let start = state.next % size;
            let candidates = (0..size).map(|step| Pair::number(first + (start + step) % size * 2));
            let is_free =
                |pair: &Pair| !state.leased.contains(pair) && !within.iter().any(|net| overlap(net, &pair.subnet()));
            if let Some(pair) = candidates.take(MOST_TRIED).find(is_free) {
                state.leased.insert(pair);
                state.next = (u32::from(pair.0) - first) / 2 + 1;
                return Ok(pair);
            }
        }
        Err(io::Error::other("no addresses are free for the way out of a job: configure another pool"))
    }

    /// Notes one that is in use.
    pub fn note(&self, pair: Pair) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).leased.insert(pair);
    }

    /// Takes one back.
    pub fn release(&self, pair: Pair) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).leased.remove(&pair);
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// One job's way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayOut {
    /// Name of the machine's end.
    pub link: String,
    /// What stands on it.
    pub note: String,
    /// Its addresses.
    pub pair: Pair,
    /// Whether it carries IPv6.
    pub ipv6: bool,
}

impl WayOut {
    /// With which addresses what comes from the job must come.
    pub fn sources(&self) -> Vec<IpAddr> {
        self.pair.of_job(self.ipv6)
    }
}

/// What the machine's end is called: made from the daemon and the tenant, so that a later life knows it too.
pub fn link_of(instance: &str, tenant: &TenantId) -> String {
    let digest = Sha256::digest(format!("{instance} {tenant}"));
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("rng{hex}")
}

/// Makes the pair. Runs on a thread of its own, which ends up in the job's namespace.
pub fn make(way: &WayOut, mtu: u32, namespace: &File) -> io::Result<()> {
    let mut machine = Links::open()?;
    let (ours, theirs) = (mac_of(way.pair.0), mac_of(way.pair.other()));
    let pair = VethPair { name: &way.link, mac: Some(ours), bridge: None, inner_name: INNER, inner_mac: theirs, mtu };
    machine.create_veth(&pair, namespace)?;
    let index = machine.require(&way.link)?;
    let made = configure_machine(&mut machine, index, way, theirs)
        .and_then(|()| netns::enter(namespace))
        .and_then(|()| configure_job(way, ours));
    if made.is_err() {
        let _ = machine.delete(index);
    }
    made
}

/// The other end is not up yet, so nothing has come in when the switches are set.
fn configure_machine(links: &mut Links, index: u32, way: &WayOut, theirs: [u8; 6]) -> io::Result<()> {
    links.write_note(index, &way.note)?;
    sysctl::write_if_there(&format!("net/ipv4/conf/{}/arp_ignore", way.link), "8")?;
    silence_ipv6(&way.link, way.ipv6)?;
    for address in way.pair.of_machine(way.ipv6) {
        links.add_address(index, with_prefix(address))?;
    }
    for address in way.sources() {
        links.pin_neighbour(index, address, theirs)?;
    }
    sysctl::enable_forwarding(way.ipv6)
}

fn configure_job(way: &WayOut, ours: [u8; 6]) -> io::Result<()> {
    let mut links = Links::open()?;
    let index = links.require(INNER)?;
    silence_ipv6(INNER, way.ipv6)?;
    links.set_up(index)?;
    for address in way.sources() {
        links.add_address(index, with_prefix(address))?;
    }
    for address in way.pair.of_machine(way.ipv6) {
        links.pin_neighbour(index, address, ours)?;
        links.set_default_route(index, address)?;
    }
    Ok(())
}

/// No IPv6 but what we give the link: neither an address of the kernel's own choice nor routes that somebody announces.
fn silence_ipv6(link: &str, ipv6: bool) -> io::Result<()> {
    let switch = |name: &str, value: &str| sysctl::write_if_there(&format!("net/ipv6/conf/{link}/{name}"), value);
    switch("accept_ra", "0")?;
    switch("addr_gen_mode", "1")?;
    sysctl::trust_addresses(link)?;
    switch("disable_ipv6", if ipv6 { "0" } else { "1" })
}

/// The way out that an earlier life made, if both its ends are still there. Runs on a thread of its own, which ends up in
/// the job's namespace.
pub fn find(link: &str, note: &str, namespace: &Path) -> io::Result<Option<WayOut>> {
    let mut machine = Links::open()?;
    let Some(found) = machine.get(link)?.filter(|found| found.alias == note) else { return Ok(None) };
    let addresses: Vec<IpNet> =
        machine.addresses()?.into_iter().filter(|(index, _)| *index == found.index).map(|(_, net)| net).collect();
    let four = addresses.iter().find_map(|net| match net {
        IpNet::V4(net) => Some(net.addr()),
        IpNet::V6(_) => None,
    });
    let ipv6 = addresses.iter().any(|net| net.addr().is_ipv6());
    netns::enter(File::open(namespace)?)?;
    let has_inner = Links::open()?.index(INNER)?.is_some();
    let pair = four.map(|address| Pair::number(address.into())).filter(|_| has_inner);
    Ok(pair.map(|pair| WayOut { link: link.to_owned(), note: note.to_owned(), pair, ipv6 }))
}

/// Takes the machine's end down, after which nothing passes, and frees its name; the answer is what is left to delete.
pub fn retire(link: &str) -> io::Result<Option<u32>> {
    let mut links = Links::open()?;
    let Some(index) = links.index(link)? else { return Ok(None) };
    links.retire(index, &format!("{RETIRED}{index}"))?;
    Ok(Some(index))
}

/// What stands behind `mark` on the machine's ends of ways out: whose they are.
pub fn noted(mark: &str) -> io::Result<Vec<String>> {
    let links = Links::open()?.list()?;
    let of_ways = links.iter().filter(|link| link.kind == "veth" && !link.name.starts_with(RETIRED));
    Ok(of_ways.filter_map(|link| link.alias.strip_prefix(mark)).map(str::to_owned).collect())
}

/// What the machine routes already, MTU of its uplink, and whether it has a way out by IPv6.
pub fn look_around() -> io::Result<(Vec<IpNet>, u32, bool)> {
    let mut links = Links::open()?;
    let routes = links.routes()?;
    let used = uplink::subnets(&mut links, &routes, &BTreeSet::new())?;
    let (mtu, ipv6) = (uplink::of(&mut links, &routes)?.mtu, uplink::has_ipv6(&routes));
    Ok((used, mtu, ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(pool: &str) -> Addresses {
        Addresses::new(&[pool.parse().unwrap()], "test")
    }

    #[test]
    fn pairs_are_apart_and_rest_when_they_are_given_back() {
        let addresses = addresses("198.18.0.0/29");
        let pairs: Vec<Pair> = (0..4).map(|_| addresses.lease(&[]).unwrap()).collect();
        assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), 4);
        assert!(addresses.lease(&[]).is_err(), "four pairs are in eight addresses");
        addresses.release(pairs[2]);
        assert_eq!(addresses.lease(&[]).unwrap(), pairs[2]);
    }

    #[test]
    fn what_the_machine_routes_is_avoided() {
        let used = ["198.18.0.0/30".parse().unwrap(), "198.18.0.6/32".parse().unwrap()];
        assert_eq!(addresses("198.18.0.0/29").lease(&used).unwrap().0, Ipv4Addr::new(198, 18, 0, 4));
        let all = ["0.0.0.0/1", "198.0.0.0/8", "100.0.0.0/8"].map(|net| net.parse().unwrap());
        assert!(Addresses::new(&[], "test").lease(&all).is_err());
    }

    #[test]
    fn ipv6_has_the_same_numbers() {
        let pair = Pair::number(Ipv4Addr::new(198, 18, 0, 5).into());
        assert_eq!(
            pair.of_job(true),
            ["198.18.0.5", "fd72:696e:6765:7200::c612:5"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(pair.of_machine(false), ["198.18.0.4".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn the_name_fits_and_differs() {
        let name = |instance| link_of(instance, &"job-1".parse().unwrap());
        assert_eq!(name("ringer").len(), 15);
        assert_ne!(name("ringer"), name("other"));
    }
}
