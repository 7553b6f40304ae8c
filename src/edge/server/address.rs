//! `--host`, spelled as for dockerd.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::model::{Error, Result};

/// What is listened on when `tcp://` says neither host nor port. dockerd's port does not depend on TLS either; only
/// without any host it listens on 2376.
const TCP_DEFAULT: (&str, u16) = ("localhost", 2375);

/// A `--host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `unix:///run/ringer/docker.sock`.
    Unix(PathBuf),
    /// `fd://` for every socket that systemd hands over, `fd://name` or `fd://3` for one of them.
    Systemd(Option<String>),
    /// `tcp://127.0.0.1:2375`: a name or an address, without brackets, and a port.
    Tcp(String, u16),
}

impl ListenAddress {
    /// The path of a unix socket that we make.
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Systemd(_) | Self::Tcp(..) => None,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("fd", name)) => {
                Ok(Self::Systemd(Some(name).filter(|name| !name.is_empty() && *name != "*").map(Into::into)))
            }
            Some(("tcp", authority)) => tcp(text, authority),
            // dockerd takes everything without a scheme for a tcp address.
            None if !text.is_empty() => tcp(text, text),
            _ => Err(Error::invalid(format!(
                "invalid host {text:?}: expected unix:///PATH, tcp://[HOST][:PORT] or fd://"
            ))),
        }
    }
}

fn tcp(text: &str, authority: &str) -> Result<ListenAddress> {
    let invalid = |why: &str| Error::invalid(format!("invalid bind address ({text}): {why}"));
    if authority.contains('/') {
        return Err(invalid("should not contain a path element"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or_else(|| invalid("missing ']' in host"))?;
            (
                host,
                if rest.is_empty() {
                    None
                } else {
                    Some(rest.strip_prefix(':').ok_or_else(|| invalid("invalid port"))?)
                },
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(invalid(&format!("invalid port: {port}"))),
            Ok(port) => port,
        },
        None => TCP_DEFAULT.1,
    };
    let host = if host.is_empty() { TCP_DEFAULT.0 } else { host };
    Ok(ListenAddress::Tcp(host.to_owned(), port))
}

impl ListenAddress {
    /// `HOST:PORT` of a tcp address.
    pub fn authority(&self) -> Option<String> {
        match self {
            Self::Tcp(host, port) if host.contains(':') => Some(format!("[{host}]:{port}")),
            Self::Tcp(host, port) => Some(format!("{host}:{port}")),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Systemd(name) => write!(f, "fd://{}", name.as_deref().unwrap_or_default()),
            Self::Tcp(..) => write!(f, "tcp://{}", self.authority().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_spelled_as_for_dockerd() {
        let tcp = |host: &str, port| ListenAddress::Tcp(host.into(), port);
        let fitting = [
            ("unix:///a/b", ListenAddress::Unix("/a/b".into())),
            ("fd://", ListenAddress::Systemd(None)),
            ("fd://docker", ListenAddress::Systemd(Some("docker".into()))),
            ("tcp://", tcp("localhost", 2375)),
            ("tcp://:7777", tcp("localhost", 7777)),
            ("tcp://0.0.0.0", tcp("0.0.0.0", 2375)),
            ("0.0.0.0:5555", tcp("0.0.0.0", 5555)),
            ("tcp://[::1]:5555", tcp("::1", 5555)),
            ("tcp://[::1]", tcp("::1", 2375)),
        ];
        for (text, address) in fitting {
            assert_eq!(text.parse::<ListenAddress>().unwrap(), address, "{text}");
        }
        for text in
            ["", "unix://relative", "/run/x.sock", "ftp://x", "tcp://x:0", "tcp://x:http", "tcp://x/path", "tcp://::1"]
        {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        assert_eq!(tcp("::1", 1).to_string(), "tcp://[::1]:1");
    }
}
