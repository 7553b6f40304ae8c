//! What a buildkitd leaves: containers of steps with their tasks and mounts, if it was killed, for which the next one does not look; and
//! its namespaces, which go with its tenant.

use std::{path::Path, time::Duration};

use containerd_client::{
    services::v1::{
        CreateNamespaceRequest, CreateRequest as CreateLeaseRequest, DeleteContainerRequest, DeleteNamespaceRequest,
        DeleteRequest as DeleteLeaseRequest, DeleteTaskRequest, KillRequest, ListContainersRequest,
        ListRequest as ListLeasesRequest, Namespace, containers_client::ContainersClient, leases_client::LeasesClient,
        namespaces_client::NamespacesClient, tasks_client::TasksClient,
    },
    tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel},
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::facade::namespaces;
use crate::{
    backend::builds::BuildPlace,
    model::{Error, Result},
    processes::mounts,
};

/// How long containerd may take for one answer, and a killed task to end.
const ANSWER: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(30);

/// How long a namespace may take to become empty: the collector removes the files of its layers.
const EMPTY_LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

const KILL: u32 = 9;

/// containerd, as it looks for what is left in the namespaces of a builder.
pub(super) struct Left {
    channel: Channel,
    /// The first one has the containers.
    namespaces: [String; 2],
}

impl Left {
    /// In the namespace of a builder, and that of its history.
    pub(super) async fn of(place: &BuildPlace, namespace: &str) -> Result<Self> {
        let connecting = tokio::time::timeout(ANSWER, containerd_client::connect(&place.address)).await;
        let silent = || Error::unavailable("containerd does not answer");
        let channel = connecting.map_err(|_| silent())?.map_err(|error| silent().with_source(error))?;
        Ok(Self { channel, namespaces: namespaces(namespace) })
    }

    /// Ends its containers and takes them away.
    pub(super) async fn end_containers(&self) -> Result<()> {
        for id in self.list().await.map_err(|status| failure(&status))? {
            match self.end(&id).await {
                Ok(()) => info!("ended the build step {id}, which a killed BuildKit left"),
                Err(status) => warn!("ending the build step {id}, which a killed BuildKit left: {}", status.message()),
            }
        }
        Ok(())
    }

    /// Makes its namespaces, unless they are there.
    pub(super) async fn make_namespaces(&self) -> Result<()> {
        for name in &self.namespaces {
            let namespace = Namespace { name: name.clone(), ..Namespace::default() };
            let request = self.request(name, CreateNamespaceRequest { namespace: Some(namespace) });
            match NamespacesClient::new(self.channel.clone()).create(request).await {
                Err(status) if status.code() != Code::AlreadyExists => return Err(failure(&status)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes its namespaces away with all that is in them: cache, history, blobs. Its containers are gone.
    pub(super) async fn remove_namespaces(&self) -> Result<()> {
        for namespace in &self.namespaces {
            self.remove_namespace(namespace).await.map_err(|status| failure(&status))?;
        }
        Ok(())
    }

    /// Takes the namespace of its history away.
    pub(super) async fn remove_history(&self) -> Result<()> {
        self.remove_namespace(&self.namespaces[1]).await.map_err(|status| failure(&status))
    }

    async fn remove_namespace(&self, namespace: &str) -> Result<(), Status> {
        let deadline = Instant::now() + EMPTY_LIMIT;
        let mut client = NamespacesClient::new(self.channel.clone());
        loop {
            let request = DeleteNamespaceRequest { name: namespace.to_owned() };
            match client.delete(self.request(namespace, request)).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == Code::NotFound => return Ok(()),
                // It is not empty yet.
                Err(status) if status.code() != Code::FailedPrecondition || Instant::now() >= deadline => {
                    return Err(status);
                }
                Err(_) => self.empty(namespace).await?,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends all leases of a namespace, and has the collector come: nothing else holds anything in it.
    async fn empty(&self, namespace: &str) -> Result<(), Status> {
        let mut client = LeasesClient::new(self.channel.clone());
        let found = client.list(self.request(namespace, ListLeasesRequest::default())).await?.into_inner().leases;
        // The collector comes for whoever waits for the end of a lease.
        let last = "ringer-last".to_owned();
        let lease = CreateLeaseRequest { id: last.clone(), ..CreateLeaseRequest::default() };
        match client.create(self.request(namespace, lease)).await {
            Err(status) if status.code() != Code::AlreadyExists => return Err(status),
            _ => {}
        }
        let ids = found.into_iter().map(|lease| lease.id).filter(|id| *id != last).map(|id| (id, false));
        for (id, sync) in ids.chain([(last.clone(), true)]).collect::<Vec<_>>() {
            let mut request = self.request(namespace, DeleteLeaseRequest { id, sync });
            request.set_timeout(EMPTY_LIMIT);
            match client.delete(request).await {
                Err(status) if status.code() != Code::NotFound => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    /// A call about the containers.
    fn of_containers<T>(&self, message: T) -> Request<T> {
        self.request(&self.namespaces[0], message)
    }

    fn request<T>(&self, namespace: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(ANSWER);
        if let Ok(namespace) = namespace.parse::<MetadataValue<_>>() {
            request.metadata_mut().insert("containerd-namespace", namespace);
        }
        request
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    async fn list(&self) -> Result<Vec<String>, Status> {
        let mut client = ContainersClient::new(self.channel.clone());
        let answer = client.list(self.of_containers(ListContainersRequest::default())).await?;
        Ok(answer.into_inner().containers.into_iter().map(|container| container.id).collect())
    }

    async fn end(&self, id: &str) -> Result<(), Status> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            let kill = KillRequest { container_id: id.to_owned(), signal: KILL, all: true, ..KillRequest::default() };
            let _ended_already = self.tasks().kill(self.of_containers(kill)).await;
            match self.tasks().delete(self.of_containers(DeleteTaskRequest { container_id: id.to_owned() })).await {
                Ok(_) => break,
                Err(status) if status.code() == Code::NotFound => break,
                Err(status) if Instant::now() >= deadline => return Err(status),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        let mut client = ContainersClient::new(self.channel.clone());
        match client.delete(self.of_containers(DeleteContainerRequest { id: id.to_owned() })).await {
            Err(status) if status.code() != Code::NotFound => Err(status),
            _ => Ok(()),
        }
    }
}

fn failure(status: &Status) -> Error {
    Error::unavailable(format!("taking away what BuildKit left: {}", status.message()))
}

/// Takes away what is mounted below a folder.
pub(super) async fn unmount_below(folder: &Path) {
    let folder = folder.to_owned();
    let unmounting = tokio::task::spawn_blocking(move || mounts::unmount_below(&folder, "a killed BuildKit"));
    if let Err(error) = unmounting.await {
        warn!(%error, "unmounting what a killed BuildKit left: {error}");
    }
}
