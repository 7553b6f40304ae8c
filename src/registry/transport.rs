//! HTTP clients: one for verified TLS and plain HTTP, one for unverified TLS, one for each host with own certificates.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once, PoisonError},
    time::Duration,
};

use reqwest::{
    Certificate, Client, ClientBuilder, Identity, IntoUrl, Method, RequestBuilder, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    model::{Error, Result, error::Context},
    processes::environment,
    registry::{RegistryConfig, endpoint::Endpoint, failure::Failure},
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where requests go out that do not go out from the machine.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Its sockets belong there.
    pub runtime: Handle,
    /// The machine's, where names are looked up.
    pub machine: Handle,
    /// Names that are known there, with their addresses. All others are the machine's.
    pub hosts: Vec<(String, IpAddr)>,
}

impl Outlet {
    /// What names mean there.
    pub fn names(&self) -> Arc<impl Resolve + use<>> {
        Arc::new(MachinesNames(self.clone()))
    }

    /// Does something there, as long as somebody waits for it. Unavailable once nothing is done there any more.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        run_on(&self.runtime, work).await
    }
}

async fn run_on<T: Send + 'static>(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let done = AbortOnDropHandle::new(runtime.spawn(work)).await;
    done.map_err(|_| Error::unavailable("the job is being removed"))
}

/// A client, and where its requests go out.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client,
    outlet: Option<Handle>,
}

impl HttpClient {
    /// A request, which [`Self::send`] sends.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends, with a failed exchange in dockerd's words.
    pub async fn send(&self, request: RequestBuilder, method: &Method, url: &Url) -> Result<Response, Failure> {
        let answer = match &self.outlet {
            None => request.send().await,
            Some(runtime) => {
                let sent = run_on(runtime, request.send()).await;
                sent.map_err(|gone| Failure::Other(gone.message().to_owned()))?
            }
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(Failure::transport(method, url, &error).await),
        }
    }
}

/// Makes clients and keeps them.
pub struct Transport {
    certs_dir: PathBuf,
    /// By the registry's name: `docker.io`, or `host[:port]`.
    authorities: Arc<BTreeMap<String, Vec<Certificate>>>,
    stall_limit: Duration,
    outlet: Option<Outlet>,
    clients: Mutex<HashMap<(String, bool), Client>>,
}

impl Transport {
    /// With certificates of single hosts. An error if authorities that are configured are none.
    pub fn new(config: &RegistryConfig) -> Result<Self> {
        install_crypto();
        let read = |(host, pem): (&String, &String)| Ok((host.clone(), authorities_of(host, pem)?));
        let authorities = Arc::new(config.authorities.iter().map(read).collect::<Result<_>>()?);
        let certs_dir = config.certs_dir.clone();
        Ok(Self { certs_dir, authorities, stall_limit: config.stall_limit, outlet: None, clients: Mutex::default() })
    }

    /// The same through an outlet. Connections are not shared: they belong to where they were made.
    pub fn through(&self, outlet: Outlet) -> Self {
        Self {
            certs_dir: self.certs_dir.clone(),
            authorities: self.authorities.clone(),
            stall_limit: self.stall_limit,
            outlet: Some(outlet),
            clients: Mutex::default(),
        }
    }

    /// The client for a place. Hosts without certificates of their own share one.
    pub fn client(&self, endpoint: &Endpoint) -> Result<HttpClient> {
        let is_tls = endpoint.is_tls();
        let folder = Some(self.certs_dir.join(&endpoint.host)).filter(|folder| is_tls && folder.is_dir());
        let authorities = self.authorities.get(&endpoint.registry).filter(|_| is_tls);
        let has_own = folder.is_some() || authorities.is_some();
        let key = (if has_own { endpoint.host.clone() } else { String::new() }, endpoint.unverified());
        self.kept(key, || {
            let mut builder = self.base_client().tls_danger_accept_invalid_certs(endpoint.unverified());
            if let Some(folder) = &folder {
                builder = with_certificates(builder, folder)?;
            }
            if let Some(authorities) = authorities {
                builder = builder.tls_certs_merge(authorities.clone());
            }
            Ok(builder)
        })
    }

    /// The client for places that are no registries: certificates are checked.
    pub fn plain(&self) -> Result<HttpClient> {
        self.kept((String::new(), false), || Ok(self.base_client()))
    }

    fn kept(&self, key: (String, bool), make: impl FnOnce() -> Result<ClientBuilder>) -> Result<HttpClient> {
        let outlet = self.outlet.as_ref().map(|outlet| outlet.runtime.clone());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(HttpClient { client: client.clone(), outlet });
        }
        let client = make()?.build().context("preparing TLS")?;
        clients.insert(key, client.clone());
        Ok(HttpClient { client, outlet })
    }

    fn base_client(&self) -> ClientBuilder {
        let builder = Client::builder()
            .user_agent(concat!("ringer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(self.stall_limit);
        match &self.outlet {
            None => builder,
            Some(outlet) => {
                let builder = builder.dns_resolver(outlet.names());
                if environment::has_proxy_at_loopback() { builder.no_proxy() } else { builder }
            }
        }
    }
}

/// Names as the machine knows them, since a job has no say in what a name means; before them what its operator has said.
struct MachinesNames(Outlet);

impl Resolve for MachinesNames {
    fn resolve(&self, name: Name) -> Resolving {
        let said = |(known, _): &&(String, IpAddr)| known.eq_ignore_ascii_case(name.as_str());
        let known: Vec<_> = self.0.hosts.iter().filter(said).map(|(_, address)| SocketAddr::new(*address, 0)).collect();
        if !known.is_empty() {
            return Box::pin(async move { Ok(Box::new(known.into_iter()) as Addrs) });
        }
        let looked_up = self.0.machine.spawn(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok::<_, std::io::Error>(found)
        });
        Box::pin(async move { Ok(Box::new(looked_up.await??.into_iter()) as Addrs) })
    }
}

/// rustls is built without a default provider of cryptography, so that aws-lc need not be compiled.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    });
}

fn authorities_of(host: &str, pem: &str) -> Result<Vec<Certificate>> {
    let read = Certificate::from_pem_bundle(pem.as_bytes()).context(format!("reading the authorities of {host}"))?;
    if read.is_empty() {
        return Err(Error::invalid(format!("no certificate is in the authorities of {host}: expected PEM")));
    }
    Ok(read)
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
