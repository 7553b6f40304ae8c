//! Level 1: our registry client (OCI distribution spec) on reqwest. Names to hosts, mirrors, tokens, manifests,
//! resumed downloads. It knows nothing of containerd: bytes go into a [`BlobSink`].
//!
//! Texts of failures are dockerd's (Go's net/http and distribution's client), since CI runners classify by them:
//! "dial tcp", "no such host", "unauthorized", "manifest unknown", "pull access denied".

mod authenticate;
mod challenge;
mod download;
mod endpoint;
mod failure;
mod fetch;
mod insecure;
mod inspect;
mod login;
mod push;
mod resolve;
mod search;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

use std::{path::PathBuf, time::Duration};

pub use download::{BlobSink, Progress};
pub use inspect::Inspected;
pub use login::{Login, registry_of};
pub use push::{OpenBlob, Pushed};
pub use resolve::Resolved;
pub use search::{SearchResult, registry_and_term};
pub use session::{FetchedManifest, Session};
pub(crate) use transport::install_crypto;

use crate::{model::Result, registry::transport::Transport};

/// Where registries are and how far they are trusted.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// URLs that are asked before Docker Hub.
    pub mirrors: Vec<String>,
    /// `host[:port]` or CIDR: certificates are not checked, and plain HTTP is tried. The loopback networks always belong to it.
    pub insecure: Vec<String>,
    /// Folder with one folder per `host[:port]` that holds `*.crt` (authorities) and `*.cert` with `*.key` (client).
    pub certs_dir: PathBuf,
    /// How long the first retry of a download waits; the n-th waits n times as long.
    pub retry_delay: Duration,
    /// How long an answer may stand still before it counts as broken.
    pub stall_limit: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certs_dir: PathBuf::from("/etc/docker/certs.d"),
            retry_delay: Duration::from_secs(2),
            stall_limit: Duration::from_secs(60),
        }
    }
}

/// The client; one for the daemon, since it keeps connections.
pub struct Registry {
    config: RegistryConfig,
    transport: Transport,
}

impl Registry {
    /// Checks the settings. Nothing is connected to yet.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        for mirror in &config.mirrors {
            endpoint::check_mirror(mirror)?;
        }
        insecure::check(&config.insecure)?;
        let transport = Transport::new(config.certs_dir.clone(), config.stall_limit);
        Ok(Self { config, transport })
    }
}
