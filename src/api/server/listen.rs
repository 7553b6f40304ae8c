//! Where we listen: `unix:///path` that we make, and `fd://` sockets that systemd hands over.

use std::{
    fmt, fs, io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{fs::PermissionsExt, net},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::model::{Error, Result, error::Context};

/// Mode of a socket that we make: for root and the group.
const SOCKET_MODE: u32 = 0o660;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A `--host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `unix:///run/ringer/docker.sock`.
    Unix(PathBuf),
    /// `fd://` for every socket that systemd hands over, `fd://name` or `fd://3` for one of them.
    Systemd(Option<String>),
}

impl FromStr for ListenAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("fd", name)) => {
                Ok(Self::Systemd(Some(name).filter(|name| !name.is_empty() && *name != "*").map(Into::into)))
            }
            Some(("tcp", _)) => Err(Error::invalid(format!("host {text}: tcp is not implemented by ringer yet"))),
            _ => Err(Error::invalid(format!("invalid host {text:?}: expected unix:///PATH or fd://"))),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Systemd(name) => write!(f, "fd://{}", name.as_deref().unwrap_or_default()),
        }
    }
}

/// An open socket. One that we made is removed when this is dropped.
pub struct Listener {
    socket: UnixListener,
    address: ListenAddress,
    made: Option<PathBuf>,
}

impl Listener {
    /// Opens an address: one listener, or with `fd://` as many as systemd gave.
    pub fn open(address: &ListenAddress, group: &str) -> Result<Vec<Self>> {
        match address {
            ListenAddress::Unix(path) => Ok(vec![Self::unix(path, group)?]),
            ListenAddress::Systemd(name) => Self::systemd(name.as_deref()),
        }
    }

    /// Makes a socket; a dead one in its place is replaced, a live one is not.
    fn unix(path: &Path, group: &str) -> Result<Self> {
        let context = || format!("listening on unix://{}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context(context())?;
        }
        remove_dead(path)?;
        let socket = bind(path).context(context())?;
        let listener =
            Self::from_std(socket, ListenAddress::Unix(path.to_owned()), Some(path.to_owned())).context(context())?;
        hand_to_group(path, group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).context(context())?;
        Ok(listener)
    }

    fn systemd(name: Option<&str>) -> Result<Vec<Self>> {
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
        wanted.into_iter().map(|(fd, _)| Self::inherited(fd).context(format!("fd://{fd}"))).collect()
    }

    fn inherited(fd: RawFd) -> io::Result<Self> {
        // SAFETY: systemd hands this descriptor to us alone; each is taken once, when listeners are opened.
        let socket = unsafe { net::UnixListener::from_raw_fd(fd) };
        Self::from_std(socket, ListenAddress::Systemd(Some(fd.to_string())), None)
    }

    fn from_std(socket: net::UnixListener, address: ListenAddress, made: Option<PathBuf>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixListener::from_std(socket)?, address, made })
    }

    /// The socket to accept on.
    pub fn socket(&self) -> &UnixListener {
        &self.socket
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

    #[test]
    fn hosts_are_spelled_as_for_dockerd() {
        assert_eq!("unix:///a/b".parse::<ListenAddress>().unwrap(), ListenAddress::Unix("/a/b".into()));
        assert_eq!("fd://".parse::<ListenAddress>().unwrap(), ListenAddress::Systemd(None));
        assert_eq!("fd://docker".parse::<ListenAddress>().unwrap(), ListenAddress::Systemd(Some("docker".into())));
        assert!("unix://relative".parse::<ListenAddress>().is_err());
        assert!("/run/x.sock".parse::<ListenAddress>().is_err());
    }

    #[tokio::test]
    async fn socket_is_for_root_and_group_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/docker.sock");
        let address = ListenAddress::Unix(path.clone());
        let listeners = Listener::open(&address, "0").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert!(Listener::open(&address, "0").is_err(), "a live socket is not taken over");
        drop(listeners);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        drop(net::UnixListener::bind(&path).unwrap());
        let listeners = Listener::open(&ListenAddress::Unix(path.clone()), "").unwrap();
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
