//! HTTP clients: one for verified TLS and plain HTTP, one for unverified TLS, one for each host with own certificates.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, Once, PoisonError},
    time::Duration,
};

use reqwest::{Certificate, Client, ClientBuilder, Identity};

use crate::{
    model::{Result, error::Context},
    registry::endpoint::Endpoint,
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes clients and keeps them.
pub struct Transport {
    certs_dir: PathBuf,
    stall_limit: Duration,
    clients: Mutex<HashMap<(String, bool), Client>>,
}

impl Transport {
    /// With certificates of single hosts below `certs_dir`; an answer that stands still for `stall_limit` is broken.
    pub fn new(certs_dir: PathBuf, stall_limit: Duration) -> Self {
        install_crypto();
        Self { certs_dir, stall_limit, clients: Mutex::default() }
    }

    /// The client for a place. Hosts without certificates of their own share one.
    pub fn client(&self, endpoint: &Endpoint) -> Result<Client> {
        let own = self.certs_dir.join(&endpoint.host);
        let has_own = endpoint.is_tls() && own.is_dir();
        let key = (if has_own { endpoint.host.clone() } else { String::new() }, endpoint.unverified);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = self.base_client().tls_danger_accept_invalid_certs(endpoint.unverified);
        if has_own {
            builder = with_certificates(builder, &own)?;
        }
        let client = builder.build().context("preparing TLS")?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// The client for places that are no registries: certificates are checked.
    pub fn plain(&self) -> Result<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (String::new(), false);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.base_client().build().context("preparing TLS")?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn base_client(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(concat!("ringer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(self.stall_limit)
    }
}

/// rustls is built without a default provider of cryptography, so that aws-lc need not be compiled.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    });
}

/// As dockerd reads `certs.d`: `*.crt` are authorities besides the system's, `x.cert` with `x.key` is who we are.
fn with_certificates(mut builder: ClientBuilder, folder: &Path) -> Result<ClientBuilder> {
    let listing = || format!("reading {}", folder.display());
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).context(listing())? {
        files.push(entry.context(listing())?.path());
    }
    files.sort();
    for file in files {
        let read = |path: &Path| std::fs::read(path).context(format!("reading {}", path.display()));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let authorities = Certificate::from_pem_bundle(&read(&file)?);
                builder = builder.tls_certs_merge(authorities.context(format!("reading {}", file.display()))?);
            }
            Some("cert") => {
                let mut pem = read(&file)?;
                pem.extend(read(&file.with_extension("key"))?);
                let identity = Identity::from_pem(&pem).context(format!("reading {}", file.display()))?;
                builder = builder.identity(identity);
            }
            _ => {}
        }
    }
    Ok(builder)
}
