//! The gRPC channel over the unix socket, and one client per service.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use containerd_client::{
    services::v1::{
        CreateNamespaceRequest, Namespace, VersionResponse, containers_client::ContainersClient,
        content_client::ContentClient, diff_client::DiffClient, events_client::EventsClient,
        images_client::ImagesClient, introspection_client::IntrospectionClient, leases_client::LeasesClient,
        namespaces_client::NamespacesClient, snapshots::snapshots_client::SnapshotsClient, tasks_client::TasksClient,
        version_client::VersionClient,
    },
    tonic::{
        Code, GrpcMethod, Request, Status,
        metadata::{Ascii, MetadataValue},
        service::{Interceptor, interceptor::InterceptedService},
        transport::{Endpoint, Uri},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::Instant};

use super::{from_status, limits::limit_of, silence::Watched};
use crate::model::{Error, Result};

/// containerd refuses messages above 16 MiB; its answers may be as large, and a list of containers larger.
const MAX_MESSAGE: usize = 64 << 20;

/// How long a call waits for a containerd that restarts. A restart takes 50 to 300 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// A channel whose calls carry our headers.
pub type Intercepted = InterceptedService<Watched, Headers>;

/// Clients of containerd's services for one namespace. Cheap to clone; clones share the connection, which
/// comes back by itself after a restart of containerd.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Watched,
    /// How often it has connected.
    connections: Arc<AtomicU64>,
    headers: Headers,
}

/// The headers that every call carries, the limit of its kind among them.
#[derive(Clone, Debug)]
pub struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        let method = request.extensions().get::<GrpcMethod<'static>>();
        if let Some(limit) = method.and_then(|method| limit_of(method.service(), method.method())) {
            request.set_timeout(limit);
        }
        Ok(request)
    }
}

impl Client {
    /// A client that connects at its first call.
    pub fn new(address: &Path, namespace: &str) -> Result<Self> {
        let headers = Headers { namespace: header(namespace)?, lease: None };
        Ok(Self::with(address, PATIENCE, headers))
    }

    /// A client that fails at once when nobody listens.
    pub(super) fn impatient(address: &Path) -> Self {
        let headers = Headers { namespace: MetadataValue::from_static("default"), lease: None };
        Self::with(address, Duration::ZERO, headers)
    }

    fn with(address: &Path, patience: Duration, headers: Headers) -> Self {
        let connections = Arc::default();
        Self { channel: channel(socket_path(address), patience, &connections), connections, headers }
    }

    /// The same client, whose calls run under a lease.
    pub fn with_lease(&self, lease: &str) -> Result<Self> {
        let headers = Headers { lease: Some(header(lease)?), ..self.headers.clone() };
        Ok(Self { headers, ..self.clone() })
    }

    /// The same connection for another namespace.
    pub fn in_namespace(&self, namespace: &str) -> Result<Self> {
        let headers = Headers { namespace: header(namespace)?, lease: None };
        Ok(Self { headers, ..self.clone() })
    }

    /// The namespace that every call names.
    pub fn namespace(&self) -> &str {
        self.headers.namespace.to_str().expect("made from a str")
    }

    /// Which connection this is: another one may lead to another containerd.
    pub fn connection(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// containerd's version and commit.
    pub async fn server_version(&self) -> Result<VersionResponse> {
        let service = InterceptedService::new(self.channel.clone(), self.headers.clone());
        let answer = VersionClient::new(service).version(()).await.map_err(from_status)?;
        Ok(answer.into_inner())
    }

    /// Makes our namespace if it is not there yet.
    pub async fn ensure_namespace(&self) -> Result<()> {
        let namespace = Namespace { name: self.namespace().to_owned(), ..Namespace::default() };
        let request = CreateNamespaceRequest { namespace: Some(namespace) };
        // containerd publishes an event of it and wants the header for that.
        match self.namespaces().create(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(from_status(status).context("making the containerd namespace")),
        }
    }
}

macro_rules! services {
    ($($(#[$doc:meta])* $method:ident: $client:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub fn $method(&self) -> $client<Intercepted> {
                    let service = InterceptedService::new(self.channel.clone(), self.headers.clone());
                    $client::new(service).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
                }
            )*
        }
    };
}

services! {
    /// Container objects.
    containers: ContainersClient;
    /// Blobs.
    content: ContentClient;
    /// Applying layers and making them.
    diff: DiffClient;
    /// What happens in containerd.
    events: EventsClient;
    /// Names of images.
    images: ImagesClient;
    /// Plugins and their states.
    introspection: IntrospectionClient;
    /// Protection from the garbage collector.
    leases: LeasesClient;
    /// Namespaces of containerd.
    namespaces: NamespacesClient;
    /// Layers of file systems.
    snapshots: SnapshotsClient;
    /// Processes.
    tasks: TasksClient;
}

fn header(value: &str) -> Result<MetadataValue<Ascii>> {
    value.parse().map_err(|_| Error::invalid(format!("not fit for a header: {value:?}")))
}

fn socket_path(address: &Path) -> PathBuf {
    address.strip_prefix("unix:").map_or_else(|_| address.to_owned(), |path| Path::new("/").join(path))
}

/// tonic reconnects by itself; calls made meanwhile wait for the connector, which waits for the socket.
fn channel(path: PathBuf, patience: Duration, connections: &Arc<AtomicU64>) -> Watched {
    let connections = connections.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (path, connections) = (path.clone(), connections.clone());
        async move {
            let stream = connect(&path, patience).await?;
            connections.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    // The address is never used, since the connector knows its path.
    let channel = Endpoint::from_static("http://containerd.invalid")
        .initial_stream_window_size(1 << 20)
        // Not less than all streams together may hold: blobs that their readers leave lying must not stop everybody's answers.
        .initial_connection_window_size((1 << 31) - 1)
        .connect_with_connector_lazy(connector);
    Watched::new(channel)
}

async fn connect(path: &Path, patience: Duration) -> std::io::Result<UnixStream> {
    let deadline = Instant::now() + patience;
    let mut is_told = false;
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => {
                return Err(std::io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(%error, "waiting up to {} s for containerd at {}", patience.as_secs(), path.display());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    #[tokio::test]
    async fn nobody_at_the_socket_is_unavailable_and_names_it() {
        let error = Client::impatient(Path::new("/nonexistent/containerd.sock")).server_version().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("/nonexistent/containerd.sock"), "{}", error.message());
    }

    #[tokio::test]
    async fn connections_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("containerd.sock");
        let listener = tokio::net::UnixListener::bind(&address).unwrap();
        let client = Client::impatient(&address);
        let of_another_namespace = client.in_namespace("another").unwrap();
        assert_eq!(of_another_namespace.connection(), 0);
        for seen in [1, 2] {
            let (answer, accepted) = tokio::join!(client.server_version(), async { drop(listener.accept().await) });
            assert_eq!((answer.is_err(), accepted), (true, ()));
            assert!(of_another_namespace.connection() >= seen);
        }
    }

    #[test]
    fn an_address_may_be_a_url() {
        assert_eq!(socket_path(Path::new("unix:///run/x.sock")), Path::new("/run/x.sock"));
        assert_eq!(socket_path(Path::new("/run/x.sock")), Path::new("/run/x.sock"));
    }
}
