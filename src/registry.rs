//! Level 1: our registry client (OCI distribution spec) on reqwest. Names to hosts, mirrors, tokens, manifests,
//! resumed downloads. It knows nothing of containerd: bytes go into a [`BlobSink`].
//!
//! Not `oci-client`: a download here goes on where it broke off, into a store that counts and checks it, from mirrors in order, from the network
//! of the tenant that asked and with its credentials; and of a failure CI runners want to read dockerd's words.
//!
//! Texts of failures are dockerd's (Go's net/http and distribution's client), since CI runners classify by them:
//! "dial tcp", "no such host", "unauthorized", "manifest unknown", "pull access denied".

mod authenticate;
mod challenge;
mod download;
mod endpoint;
mod failure;
mod fetch;
#[cfg(test)]
mod fuzz;
mod insecure;
mod inspect;
mod login;
mod proof;
mod push;
mod resolve;
mod search;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

pub use download::{BlobSink, Progress};
pub use inspect::Inspected;
pub use login::{Login, registry_of};
pub use proof::Proof;
pub use push::{OpenBlob, Pushed};
pub use resolve::Resolved;
pub use search::{SearchResult, registry_and_term};
pub use session::{FetchedManifest, Session};
pub use transport::Outlet;
pub(crate) use transport::install_crypto;

use crate::{
    model::{Result, mirror},
    registry::{
        endpoint::Endpoint,
        transport::{HttpClient, Transport},
    },
};

/// Where registries are and how far they are trusted.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// URLs that are asked before Docker Hub.
    pub mirrors: Vec<String>,
    /// `host[:port]` or CIDR: certificates are not checked, and plain HTTP is tried. The loopback networks always belong to it.
    pub insecure: Vec<String>,
    /// Folder with one folder per `host[:port]` that holds `*.crt` (authorities) and `*.cert` with `*.key` (client).
    pub certs_dir: PathBuf,
    /// Further authorities of single registries, PEM by `docker.io` or `host[:port]`.
    pub authorities: BTreeMap<String, String>,
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
            authorities: BTreeMap::new(),
            retry_delay: Duration::from_secs(2),
            stall_limit: Duration::from_secs(60),
        }
    }
}

/// The client; one for the daemon and one for each job, since it keeps connections.
pub struct Registry {
    config: Arc<RegistryConfig>,
    /// From the machine.
    transport: Arc<Transport>,
    /// From where else whatever the operator has not named is asked.
    apart: Option<Apart>,
}

struct Apart {
    transport: Transport,
    /// Registries, `host[:port]`, that the operator has named.
    named: BTreeSet<String>,
}

impl Registry {
    /// Checks the settings. Nothing is connected to yet.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        config.mirrors.iter().try_for_each(|mirror| mirror::check(mirror))?;
        insecure::check(&config.insecure)?;
        let transport = Arc::new(Transport::new(&config)?);
        Ok(Self { config: Arc::new(config), transport, apart: None })
    }

    /// The same with other mirrors.
    pub fn with_mirrors(&self, mirrors: Vec<String>) -> Result<Self> {
        mirrors.iter().try_for_each(|mirror| mirror::check(mirror))?;
        let config = Arc::new(RegistryConfig { mirrors, ..(*self.config).clone() });
        Ok(Self { config, transport: self.transport.clone(), apart: None })
    }

    /// The same for somebody who has an outlet of its own. Mirrors, insecure registries that the list names by their host and those that are `named` are
    /// asked from the machine all the same.
    #[must_use]
    pub fn through(&self, outlet: Outlet, named: BTreeSet<String>) -> Self {
        let apart = Some(Apart { transport: self.transport.through(outlet), named });
        Self { config: self.config.clone(), transport: self.transport.clone(), apart }
    }

    fn client(&self, endpoint: &Endpoint) -> Result<HttpClient> {
        self.way_to(endpoint).map_or(&*self.transport, |apart| &apart.transport).client(endpoint)
    }

    fn plain_client(&self) -> Result<HttpClient> {
        self.apart.as_ref().map_or(&*self.transport, |apart| &apart.transport).plain()
    }

    /// A registry that is asked where a job may be listening itself has to prove who it is.
    fn vouches(&self, endpoint: &Endpoint) -> bool {
        self.way_to(endpoint).is_none() || !endpoint.unverified()
    }

    fn way_to(&self, endpoint: &Endpoint) -> Option<&Apart> {
        let apart = self.apart.as_ref()?;
        (!endpoint.is_configured() && !apart.named.contains(&endpoint.registry)).then_some(apart)
    }
}
