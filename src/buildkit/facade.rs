//! Towards containerd: the socket that buildkitd takes for containerd's. It is in a namespace of its tenant's alone, where nothing is
//! found that was not lent by the engine or proven by its bytes ([`content`]); names of images are the tenant's, under their plain names,
//! and its containers are put where containers of the tenant belong.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use containerd_client::services::v1::{
    CreateContainerRequest, CreateImageRequest, CreateImageResponse, DeleteContainerRequest, GetImageRequest,
    GetImageResponse, Image, ListImagesResponse, UpdateImageRequest, UpdateImageResponse,
};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    containers::{self, Network, Walls, Wanted},
    content,
    front::{split, with},
    grpc::{self, Body, Code, Status, boxed, read_message},
    names,
    proxy::{self, Upstream},
    results::Results,
    steps::Steps,
};
use crate::{
    backend::builds::{BuildImages, BuildTenant},
    model::{Result, error::Context},
};

/// Calls of one connection at once: buildkitd has one or two connections for all that it does.
const CALLS: u32 = 10_000;

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long containerd may take for a call that has an end of its own.
const LIMIT: &str = "600S";

pub(super) const NAMESPACE: &str = "containerd-namespace";

/// What buildkitd calls the namespace of its history: its own, and this.
const HISTORY: &str = "_history";

/// The namespaces of a buildkitd.
pub(super) fn namespaces(own: &str) -> [String; 2] {
    [own.to_owned(), format!("{own}{HISTORY}")]
}

/// Calls that go through as they are, by service.
const THROUGH: [(&str, &[&str]); 8] = [
    (
        "containerd.services.content.v1.Content",
        &["Info", "Update", "List", "Delete", "Read", "Status", "ListStatuses", "Abort"],
    ),
    ("containerd.services.containers.v1.Containers", &["Get"]),
    (
        "containerd.services.leases.v1.Leases",
        &["Create", "Delete", "List", "AddResource", "DeleteResource", "ListResources"],
    ),
    (
        "containerd.services.tasks.v1.Tasks",
        &[
            "Create",
            "Start",
            "Delete",
            "DeleteProcess",
            "Get",
            "Kill",
            "Exec",
            "ResizePty",
            "CloseIO",
            "Wait",
            "ListPids",
        ],
    ),
    ("containerd.services.diff.v1.Diff", &["Apply", "Diff"]),
    ("containerd.services.introspection.v1.Introspection", &["Plugins", "Server"]),
    ("containerd.services.namespaces.v1.Namespaces", &["Get"]),
    ("containerd.services.version.v1.Version", &["Version"]),
];
const SNAPSHOTS: &str = "containerd.services.snapshots.v1.Snapshots";

/// What one buildkitd finds behind its socket.
pub(super) struct Facade {
    /// Its namespace.
    pub(super) namespace: String,
    /// Whom it builds for.
    pub(super) tenant: Arc<dyn BuildTenant>,
    /// What it has built.
    pub(super) results: Arc<Results>,
    /// Where its containers belong.
    pub(super) walls: Walls,
    /// Networks of the steps that run.
    pub(super) steps: Arc<Steps>,
}

impl Facade {
    /// Serves at a socket until this is dropped; `containerd` is the real one, and `lost` is told when that goes under a connection.
    pub(super) async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        containerd: impl AsRef<Path>,
        lost: CancellationToken,
    ) {
        let connections = TaskTracker::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let upstream = match Upstream::connect(containerd.as_ref()).await {
                        Ok(upstream) => Arc::new(upstream),
                        // buildkitd connects again.
                        Err(error) => {
                            tracing::warn!(%error, "connecting a builder to containerd: {error}");
                            continue;
                        }
                    };
                    let (facade, lost) = (self.clone(), lost.clone());
                    connections.spawn(async move {
                        facade.converse(stream, upstream.clone()).await;
                        if upstream.is_gone() {
                            lost.cancel();
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection of a builder: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn converse(self: Arc<Self>, stream: UnixStream, upstream: Arc<Upstream>) {
        let to = upstream.clone();
        proxy::serve(stream, &upstream, CALLS, move |call| {
            let (facade, upstream) = (self.clone(), to.clone());
            async move { facade.answer(call, &upstream).await.unwrap_or_else(Into::into) }
        })
        .await;
    }

    async fn answer(
        self: &Arc<Self>,
        mut call: Request<Incoming>,
        upstream: &Upstream,
    ) -> Result<Response<Body>, Status> {
        let path = call.uri().path().to_owned();
        let (service, method) = split(&path);
        self.enter_namespace(&mut call)?;
        limit(&mut call, service, method);
        match (service, method) {
            ("containerd.services.images.v1.Images", method) => self.image(method, call).await,
            ("containerd.services.containers.v1.Containers", "Create") => self.create(call, upstream).await,
            ("containerd.services.containers.v1.Containers", "Delete") => self.delete(call, upstream).await,
            ("containerd.services.content.v1.Content", "Write") => content::write(call, upstream).await,
            _ if is_through(service, method) => Ok(upstream.call(call.map(boxed)).await),
            _ => {
                tracing::warn!("a builder calls {path}, which is not for it");
                Err(Status::new(Code::PermissionDenied, format!("{service}/{method} is not for builders")))
            }
        }
    }

    /// A call is in one of its own namespaces.
    fn enter_namespace(&self, call: &mut Request<Incoming>) -> Result<(), Status> {
        let said =
            call.headers().get(NAMESPACE).and_then(|name| name.to_str().ok()).unwrap_or(&self.namespace).to_owned();
        if !namespaces(&self.namespace).contains(&said) {
            return Err(Status::new(Code::PermissionDenied, format!("the namespace {said} is not for this builder")));
        }
        let said = HeaderValue::from_str(&said).map_err(|_| Status::new(Code::InvalidArgument, "no namespace"))?;
        call.headers_mut().insert(NAMESPACE, said);
        Ok(())
    }

    async fn image(&self, method: &str, call: Request<Incoming>) -> Result<Response<Body>, Status> {
        let images: &dyn BuildImages = self.tenant.as_ref();
        match method {
            "Get" => {
                let GetImageRequest { name } = read(call).await?;
                Ok(reply(&GetImageResponse { image: Some(names::get(images, &name).await?) }))
            }
            // Asked for what images and cache share, which is nothing here.
            "List" => Ok(reply(&ListImagesResponse::default())),
            "Create" => {
                let image = read::<CreateImageRequest>(call).await?.image;
                Ok(reply(&CreateImageResponse { image: Some(self.put(image).await?) }))
            }
            "Update" => {
                let image = read::<UpdateImageRequest>(call).await?.image;
                Ok(reply(&UpdateImageResponse { image: Some(self.put(image).await?) }))
            }
            _ => Err(Status::new(Code::PermissionDenied, format!("Images/{method} is not for builders"))),
        }
    }

    /// Makes the container of a step, behind our walls.
    async fn create(self: &Arc<Self>, call: Request<Incoming>, upstream: &Upstream) -> Result<Response<Body>, Status> {
        let (head, message) = hold(call).await?;
        let mut create: CreateContainerRequest = decode(message)?;
        let container = create.container.as_mut().ok_or_else(|| Status::new(Code::InvalidArgument, "no container"))?;
        let wanted = containers::network(container)?;
        self.results.permit(&containers::wish(container, wanted)?)?;
        let network = match wanted {
            Wanted::None => Network::None,
            Wanted::Host => Network::Host(self.tenant.host().await?),
            Wanted::Tenants => Network::Step(self.steps.connect(&container.id).await?),
        };
        containers::put_behind(&self.walls, container, &network, &self.tenant.around())?;
        let answer = upstream.call(with(head, &create.encode_to_vec())).await;
        if let (Network::Step(step), false) = (network, grpc::has_failed(&answer)) {
            step.keep();
        }
        Ok(answer)
    }

    async fn delete(&self, call: Request<Incoming>, upstream: &Upstream) -> Result<Response<Body>, Status> {
        let (head, message) = hold(call).await?;
        let DeleteContainerRequest { id } = decode(message.clone())?;
        let answer = upstream.call(with(head, &message)).await;
        self.walls.forget(&id);
        self.steps.release(&id).await;
        Ok(answer)
    }

    async fn put(&self, image: Option<Image>) -> Result<Image, Status> {
        let image = image.ok_or_else(|| Status::new(Code::InvalidArgument, "no image"))?;
        self.results.put(image).await.map_err(|error| {
            tracing::warn!("naming what was built: {}", error.chain());
            error.into()
        })
    }
}

fn is_through(service: &str, method: &str) -> bool {
    // Of the whole snapshotter.
    service == SNAPSHOTS && method != "Cleanup"
        || THROUGH.iter().any(|(name, methods)| *name == service && methods.contains(&method))
}

/// Gives a call an end, unless it is a stream or lasts as long as a process or a layer.
fn limit(call: &mut Request<Incoming>, service: &str, method: &str) {
    let is_endless = service.ends_with(".Diff") || matches!(method, "Wait" | "Read" | "Write" | "List");
    if !is_endless {
        call.headers_mut().entry("grpc-timeout").or_insert(HeaderValue::from_static(LIMIT));
    }
}

async fn read<M: Message + Default>(call: Request<Incoming>) -> Result<M, Status> {
    decode(hold(call).await?.1)
}

async fn hold(call: Request<Incoming>) -> Result<(http::request::Parts, Bytes), Status> {
    let (head, body) = call.into_parts();
    Ok((head, read_message(body).await?))
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
}

fn reply(message: &impl Message) -> Response<Body> {
    grpc::answer(&message.encode_to_vec())
}

/// Makes the socket, for root alone.
pub(super) fn listen(socket: &Path) -> Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let making = || format!("making {}", socket.display());
    let listener = UnixListener::bind(socket).context(making())?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).context(making())?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builders_may_call_is_known_by_name() {
        assert!(is_through("containerd.services.tasks.v1.Tasks", "Kill"));
        assert!(is_through(SNAPSHOTS, "Prepare"));
        for (service, method) in [
            ("containerd.services.tasks.v1.Tasks", "List"),
            ("containerd.services.tasks.v1.Tasks", "Checkpoint"),
            // Looked into first.
            ("containerd.services.content.v1.Content", "Write"),
            ("containerd.services.containers.v1.Containers", "List"),
            ("containerd.services.namespaces.v1.Namespaces", "Delete"),
            ("containerd.services.events.v1.Events", "Subscribe"),
            ("containerd.services.transfer.v1.Transfer", "Transfer"),
        ] {
            assert!(!is_through(service, method), "{service}/{method}");
        }
    }
}
