//! Open sockets: unix sockets that we make, those that systemd hands over, tcp.

use std::{
    fs, io,
    net::{self as tcp, SocketAddr, ToSocketAddrs},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{fs::PermissionsExt, net},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::either::Either;

use super::{address::ListenAddress, hangup::Socket, tls::Tls};
use crate::model::{Error, Result, error::Context};

/// Who may connect to a unix socket that we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// Root and a group, by name or number.
    Group(&'a str),
    /// Root alone.
    Root,
    /// Everybody who reaches it: its folder says who that is.
    Everybody,
}

impl Access<'_> {
    fn mode(self) -> u32 {
        match self {
            Self::Group(_) => 0o660,
            Self::Root => 0o600,
            Self::Everybody => 0o666,
        }
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Silence after which a tcp client is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// An open socket. One that we made is removed when this is dropped.
pub struct Listener {
    socket: Bound,
    address: ListenAddress,
    made: Option<PathBuf>,
    tls: Option<Tls>,
}

enum Bound {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Opens an address: one listener, or with `fd://` as many as systemd gave. `group` is for unix sockets, `tls` for
    /// tcp.
    pub fn open(address: &ListenAddress, group: &str, tls: Option<&Tls>) -> Result<Vec<Self>> {
        match address {
            ListenAddress::Unix(path) => Ok(vec![Self::unix(path, Access::Group(group))?]),
            ListenAddress::Systemd(name) => Self::systemd(name.as_deref(), tls),
            ListenAddress::Tcp(host, port) => {
                let context = || format!("listening on {address}");
                let socket = bind_tcp(host, *port).context(context())?;
                Ok(vec![Self::from_tcp(socket, address.clone(), tls).context(context())?])
            }
        }
    }

    /// Makes a socket; a dead one in its place is replaced, a live one is not.
    pub fn unix(path: &Path, access: Access<'_>) -> Result<Self> {
        let context = || format!("listening on unix://{}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context(context())?;
        }
        remove_dead(path)?;
        let socket = bind(path).context(context())?;
        let listener =
            Self::from_unix(socket, ListenAddress::Unix(path.to_owned()), Some(path.to_owned())).context(context())?;
        if let Access::Group(group) = access {
            hand_to_group(path, group)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode())).context(context())?;
        Ok(listener)
    }

    fn systemd(name: Option<&str>, tls: Option<&Tls>) -> Result<Vec<Self>> {
        let sockets: Vec<(RawFd, String)> =
            sd_notify::listen_fds_with_names().context("sockets from systemd")?.collect();
        let wanted: Vec<_> = sockets
            .into_iter()
            .filter(|(fd, fd_name)| name.is_none_or(|name| *fd_name == name || fd.to_string() == name))
            .collect();
        if wanted.is_empty() {
            return Err(Error::invalid(format!(
                "fd://{}: systemd handed no such socket over",
                name.unwrap_or_default()
            )));
        }
        wanted.into_iter().map(|(fd, _)| Self::inherited(fd, tls).context(format!("fd://{fd}"))).collect()
    }

    fn inherited(fd: RawFd, tls: Option<&Tls>) -> io::Result<Self> {
        // SAFETY: systemd hands this descriptor to us alone; each is taken once, when listeners are opened.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = ListenAddress::Systemd(Some(fd.to_string()));
        match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => Self::from_unix(socket.into(), address, None),
            _ => Self::from_tcp(socket.into(), address, tls),
        }
    }

    fn from_unix(socket: net::UnixListener, address: ListenAddress, made: Option<PathBuf>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Bound::Unix(UnixListener::from_std(socket)?), address, made, tls: None })
    }

    fn from_tcp(socket: tcp::TcpListener, address: ListenAddress, tls: Option<&Tls>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Bound::Tcp(TcpListener::from_std(socket)?), address, made: None, tls: tls.cloned() })
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match &self.socket {
            Bound::Unix(socket) => Ok(Either::Left(socket.accept().await?.0)),
            Bound::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                prepare(&stream)?;
                Ok(Either::Right(stream))
            }
        }
    }

    /// How clients shake hands, if they do.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// For logs.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            let _gone_already = fs::remove_file(path);
        }
    }
}

/// A bound socket that nobody but root can connect to yet: its file takes the mode that the socket has before bind.
fn bind(path: &Path) -> io::Result<net::UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The first address of `host` that can be bound, IPv4 before IPv6 as Go does for a name.
fn bind_tcp(host: &str, port: u16) -> io::Result<tcp::TcpListener> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    tcp::TcpListener::bind(addresses.as_slice())
}

/// As Go's listeners: small writes go out at once, and a client whose machine is gone is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    Ok(())
}

fn remove_dead(path: &Path) -> Result<()> {
    match net::UnixStream::connect(path) {
        Ok(_) => Err(Error::conflict(format!("unix://{} is in use by another daemon", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context(format!("removing the dead socket {}", path.display()))
        }
        Err(error) => Err(Error::system(format!("looking at {}: {error}", path.display())).with_source(error)),
    }
}

/// Gives the socket to a group by name or number. The default group `docker` need not exist, as with dockerd.
fn hand_to_group(path: &Path, group: &str) -> Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let Some(gid) = group_id(group) else {
        if group == DEFAULT_GROUP {
            tracing::debug!("there is no group {group}; only root can use {}", path.display());
            return Ok(());
        }
        return Err(Error::invalid(format!("group {group} not found")));
    };
    std::os::unix::fs::chown(path, None, Some(gid)).context(format!("giving {} to group {group}", path.display()))
}

/// The group that owns the socket unless another is named.
pub const DEFAULT_GROUP: &str = "docker";

fn group_id(group: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let gid_of = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    groups.lines().find_map(gid_of).or_else(|| group.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_is_for_root_and_group_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/docker.sock");
        let address = ListenAddress::Unix(path.clone());
        let listeners = Listener::open(&address, "0", None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(Listener::open(&address, "0", None).is_err(), "a live socket is not taken over");
        drop(listeners);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        drop(net::UnixListener::bind(&path).unwrap());
        let listeners = Listener::open(&ListenAddress::Unix(path.clone()), "", None).unwrap();
        drop(listeners);
        assert!(!path.exists());
    }

    #[test]
    fn groups_are_found_by_name_and_number() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("4711"), Some(4711));
        assert_eq!(group_id("no-such-group"), None);
    }
}
