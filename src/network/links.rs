//! Links, addresses and routes, by rtnetlink.
//!
//! Not by the crate of that name: each of its connections is a task on the runtime, in one network namespace, and here most calls go into
//! a namespace that is there for that call; and it brings four crates beside the netlink that nf_tables needs anyway (see
//! [`super::netlink`]).

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd},
};

use ipnet::IpNet;

use super::netlink::{ACK, CREATE, DUMP, EXCLUSIVE, Message, REPLACE, Socket, attributes, read_str, read_u32};

const UP: u32 = libc::IFF_UP as u32;
const PEER: u16 = 1; // VETH_INFO_PEER
const PORT_ISOLATED: u16 = 33; // IFLA_BRPORT_ISOLATED
const GROUP: u16 = 27; // IFLA_GROUP
const NODAD: u8 = 0x02; // IFA_F_NODAD
const TABLE_MAIN: u32 = libc::RT_TABLE_MAIN as u32;

/// A link as the kernel lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The note that its maker left, if any.
    pub alias: String,
    /// The group that it is in; 0 for most.
    pub group: u32,
    /// What kind it is (`bridge`, `veth` …); empty for hardware and loopback.
    pub kind: String,
    /// Bytes.
    pub mtu: u32,
    /// Number of the bridge it belongs to; 0 if none.
    pub master: u32,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; `None` is the default route.
    pub to: Option<IpNet>,
    /// Of which family.
    pub is_ipv6: bool,
    /// The link's number.
    pub link: u32,
    /// The lowest wins.
    pub metric: u32,
}

/// A veth pair to be made: one end here, in a bridge perhaps, the other in another namespace.
pub struct VethPair<'a> {
    /// Name of our end.
    pub name: &'a str,
    /// Hardware address of our end; `None` is the kernel's choice.
    pub mac: Option<[u8; 6]>,
    /// Number of the bridge.
    pub bridge: Option<u32>,
    /// Name of the other end.
    pub inner_name: &'a str,
    /// Hardware address of the other end.
    pub inner_mac: [u8; 6],
    /// Bytes.
    pub mtu: u32,
}

/// A route socket of one network namespace.
pub struct Links(Socket);

impl Link {
    /// Whether it is a bridge. Networks are nothing else.
    pub fn is_bridge(&self) -> bool {
        self.kind == "bridge"
    }
}

impl Links {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self(Socket::route()?))
    }

    /// The number of a link, if there is one of that name.
    pub fn index(&self, name: &str) -> io::Result<Option<u32>> {
        match rustix::net::netdevice::name_to_index(&self.0, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The number of a link that must be there.
    pub fn require(&self, name: &str) -> io::Result<u32> {
        self.index(name)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no link {name}")))
    }

    /// A link as it is now, if there is one of that name.
    pub fn get(&mut self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.list()?.into_iter().find(|link| link.name == name))
    }

    /// Makes a bridge that is up and in a group, by which its maker is known until it carries a note. A link that is already there is
    /// an error: nothing of it is touched.
    pub fn create_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32, group: u32) -> io::Result<u32> {
        let make = Message::new(libc::RTM_NEWLINK, ACK | CREATE | EXCLUSIVE)
            .fixed(&link_header(libc::AF_UNSPEC, 0, UP))
            .attr_str(libc::IFLA_IFNAME, name)
            .attr(libc::IFLA_ADDRESS, &mac)
            .attr_u32(libc::IFLA_MTU, mtu)
            .attr_u32(GROUP, group)
            .nest(libc::IFLA_LINKINFO, |info| info.attr_str(libc::IFLA_INFO_KIND, "bridge"));
        self.0.request(make)?;
        self.require(name)
    }

    /// Writes a note on a link, which the kernel ignores in the message that makes one, and takes it out of its group.
    pub fn write_note(&mut self, index: u32, alias: &str) -> io::Result<()> {
        let note = Message::new(libc::RTM_SETLINK, ACK)
            .fixed(&link_header(libc::AF_UNSPEC, index, UP))
            .attr(libc::IFLA_IFALIAS, alias.as_bytes())
            .attr_u32(GROUP, 0);
        self.0.request(note)
    }

    /// Makes a veth pair in one message: our end in its bridge and up, the other end born in `namespace`.
    pub fn create_veth(&mut self, pair: &VethPair<'_>, namespace: impl AsFd) -> io::Result<()> {
        let namespace = namespace.as_fd().as_raw_fd().cast_unsigned();
        let mut ours = Message::new(libc::RTM_NEWLINK, ACK | CREATE | EXCLUSIVE)
            .fixed(&link_header(libc::AF_UNSPEC, 0, UP))
            .attr_str(libc::IFLA_IFNAME, pair.name)
            .attr_u32(libc::IFLA_MTU, pair.mtu);
        if let Some(mac) = pair.mac {
            ours = ours.attr(libc::IFLA_ADDRESS, &mac);
        }
        if let Some(bridge) = pair.bridge {
            ours = ours.attr_u32(libc::IFLA_MASTER, bridge);
        }
        let message = ours.nest(libc::IFLA_LINKINFO, |info| {
            info.attr_str(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                // "Up" must not be asked of the other end here: the kernel answers ENOTCONN.
                data.nest(PEER, |peer| {
                    peer.fixed(&link_header(libc::AF_UNSPEC, 0, 0))
                        .attr_str(libc::IFLA_IFNAME, pair.inner_name)
                        .attr(libc::IFLA_ADDRESS, &pair.inner_mac)
                        .attr_u32(libc::IFLA_MTU, pair.mtu)
                        .attr_u32(libc::IFLA_NET_NS_FD, namespace)
                })
            })
        });
        self.0.request(message)
    }

    /// Keeps a bridge port from talking to the bridge's other isolated ports.
    pub fn isolate_port(&mut self, link: u32) -> io::Result<()> {
        self.0.request(
            Message::new(libc::RTM_SETLINK, ACK)
                .fixed(&link_header(libc::AF_BRIDGE, link, 0))
                .nest(libc::IFLA_PROTINFO, |port| port.attr(PORT_ISOLATED, &[1])),
        )
    }

    /// Tells a bridge behind which port a hardware address is, so that frames do not go to the former holder
    /// of the address while the kernel still tears its link down.
    pub fn pin_mac(&mut self, port: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut header = [0u8; 12];
        header[0] = libc::AF_BRIDGE as u8;
        header[4..8].copy_from_slice(&port.to_ne_bytes());
        header[8..10].copy_from_slice(&libc::NUD_NOARP.to_ne_bytes());
        header[10] = libc::NTF_MASTER;
        self.0.request(
            Message::new(libc::RTM_NEWNEIGH, ACK | CREATE | REPLACE).fixed(&header).attr(libc::NDA_LLADDR, &mac),
        )
    }

    /// Tells who is at an address behind a link, for ever: nobody is asked, and nobody's word changes it.
    pub fn pin_neighbour(&mut self, link: u32, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
        let (family, bytes) = family_and_bytes(address);
        let mut header = [0u8; 12];
        header[0] = family;
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        self.0.request(
            Message::new(libc::RTM_NEWNEIGH, ACK | CREATE | REPLACE)
                .fixed(&header)
                .attr(libc::NDA_DST, &bytes)
                .attr(libc::NDA_LLADDR, &mac),
        )
    }

    /// Brings a link up.
    pub fn set_up(&mut self, link: u32) -> io::Result<()> {
        self.0.request(Message::new(libc::RTM_SETLINK, ACK).fixed(&link_header(libc::AF_UNSPEC, link, UP)))
    }

    /// Takes a link down and gives it another name, so that its own is free at once.
    pub fn retire(&mut self, link: u32, name: &str) -> io::Result<()> {
        let mut down = link_header(libc::AF_UNSPEC, link, 0);
        down[12..16].copy_from_slice(&UP.to_ne_bytes());
        self.0.request(Message::new(libc::RTM_SETLINK, ACK).fixed(&down))?;
        self.0.request(
            Message::new(libc::RTM_SETLINK, ACK)
                .fixed(&link_header(libc::AF_UNSPEC, link, 0))
                .attr_str(libc::IFLA_IFNAME, name),
        )
    }

    /// Deletes a link. Of a veth pair this waits for the kernel some 30 ms. One that is gone already is fine: a retired
    /// bridge is deleted in the background, and a sweep may meet it on its way.
    pub fn delete(&mut self, link: u32) -> io::Result<()> {
        let request = Message::new(libc::RTM_DELLINK, ACK).fixed(&link_header(libc::AF_UNSPEC, link, 0));
        match self.0.request(request) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Takes an address from a link; one that it does not have is fine.
    pub fn remove_address(&mut self, link: u32, address: IpNet) -> io::Result<()> {
        let (family, bytes) = family_and_bytes(address.addr());
        let mut header = [family, address.prefix_len(), 0, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        let message = Message::new(libc::RTM_DELADDR, ACK).fixed(&header).attr(libc::IFA_LOCAL, &bytes);
        match self.0.request(message) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// Gives a link an address; one that it has already is fine.
    pub fn add_address(&mut self, link: u32, address: IpNet) -> io::Result<()> {
        let (family, bytes) = family_and_bytes(address.addr());
        let mut header = [family, address.prefix_len(), 0, 0, 0, 0, 0, 0];
        if address.addr().is_ipv6() {
            header[2] = NODAD;
        }
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        let mut message = Message::new(libc::RTM_NEWADDR, ACK | CREATE | EXCLUSIVE)
            .fixed(&header)
            .attr(libc::IFA_LOCAL, &bytes)
            .attr(libc::IFA_ADDRESS, &bytes);
        // A link between two has none (RFC 3021): its last address is a host's.
        if let IpNet::V4(net) = address
            && net.prefix_len() < 31
        {
            message = message.attr(libc::IFA_BROADCAST, &net.broadcast().octets());
        }
        exists_is_fine(self.0.request(message))
    }

    /// Sets the default route of a family, in place of another one.
    pub fn set_default_route(&mut self, link: u32, gateway: IpAddr) -> io::Result<()> {
        let (family, bytes) = family_and_bytes(gateway);
        let header = [
            family,
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_BOOT,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        self.0.request(
            Message::new(libc::RTM_NEWROUTE, ACK | CREATE | REPLACE)
                .fixed(&header)
                .attr(libc::RTA_GATEWAY, &bytes)
                .attr_u32(libc::RTA_OIF, link),
        )
    }

    /// All links.
    pub fn list(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.0.dump(Message::new(libc::RTM_GETLINK, DUMP).fixed(&link_header(libc::AF_UNSPEC, 0, 0)))?;
        Ok(answers.iter().map(|body| parse_link(body)).collect())
    }

    /// All addresses, each with its link's number.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, IpNet)>> {
        let answers = self.0.dump(Message::new(libc::RTM_GETADDR, DUMP).fixed(&[0; 8]))?;
        Ok(answers.iter().filter_map(|body| parse_address(body)).collect())
    }

    /// The routes of the main table, of both families.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let answers = self.0.dump(Message::new(libc::RTM_GETROUTE, DUMP).fixed(&[0; 12]))?;
        Ok(answers.iter().filter_map(|body| parse_route(body)).collect())
    }
}

fn exists_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// `struct ifinfomsg` with `flags` to be set.
fn link_header(family: i32, index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0u8; 16];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn family_and_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

fn parse_link(body: &[u8]) -> Link {
    let mut link = Link { index: read_u32(body.get(4..).unwrap_or_default()), ..Link::default() };
    for (kind, value) in attributes(body.get(16..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => link.name = read_str(value),
            libc::IFLA_IFALIAS => link.alias = read_str(value),
            GROUP => link.group = read_u32(value),
            libc::IFLA_MTU => link.mtu = read_u32(value),
            libc::IFLA_MASTER => link.master = read_u32(value),
            libc::IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| read_str(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}

fn parse_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let header = body.get(..8)?;
    let (mut peer, mut local) = (None, None);
    for (kind, value) in attributes(&body[8..]) {
        match kind {
            libc::IFA_ADDRESS => peer = parse_ip(value),
            libc::IFA_LOCAL => local = parse_ip(value),
            _ => {}
        }
    }
    Some((read_u32(&header[4..]), IpNet::new(local.or(peer)?, header[1]).ok()?))
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let header = body.get(..12)?;
    let mut table = u32::from(header[4]);
    let (mut to, mut link, mut metric) = (None, 0, 0);
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            libc::RTA_DST => to = parse_ip(value),
            libc::RTA_OIF => link = read_u32(value),
            libc::RTA_PRIORITY => metric = read_u32(value),
            libc::RTA_TABLE => table = read_u32(value),
            _ => {}
        }
    }
    if table != TABLE_MAIN || header[7] != libc::RTN_UNICAST {
        return None;
    }
    let to = match (to, header[1]) {
        (_, 0) => None,
        (Some(address), length) => Some(IpNet::new(address, length).ok()?),
        (None, length) => Some(IpNet::new(Ipv4Addr::UNSPECIFIED.into(), length).ok()?),
    };
    Some(Route { to, is_ipv6: i32::from(header[0]) == libc::AF_INET6, link, metric })
}

fn parse_ip(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}
