//! What a buildkitd leaves that was killed: containers of steps with their tasks, and mounts. The next one does not look for them.

use std::{path::Path, time::Duration};

use containerd_client::{
    services::v1::{
        DeleteContainerRequest, DeleteTaskRequest, KillRequest, ListContainersRequest,
        containers_client::ContainersClient, tasks_client::TasksClient,
    },
    tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel},
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::facade::SLOT;
use crate::{
    backend::builds::BuildPlace,
    model::{Error, Result},
    processes::mounts,
};

/// How long containerd may take for one answer, and a killed task to end.
const ANSWER: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

const KILL: u32 = 9;

/// Ends the containers of a slot and takes them away.
pub(super) async fn end_containers(place: &BuildPlace, slot: &str) -> Result<()> {
    let socket = place.address.clone();
    let connecting = tokio::time::timeout(ANSWER, containerd_client::connect(socket)).await;
    let silent = || Error::unavailable("containerd does not answer");
    let channel = connecting.map_err(|_| silent())?.map_err(|error| silent().with_source(error))?;
    let left = Left { channel, namespace: place.namespace.clone() };
    for id in left.list(slot).await.map_err(|status| failure(&status))? {
        match left.end(&id).await {
            Ok(()) => info!("ended the build step {id}, which a killed BuildKit left"),
            Err(status) => warn!("ending the build step {id}, which a killed BuildKit left: {}", status.message()),
        }
    }
    Ok(())
}

fn failure(status: &Status) -> Error {
    Error::unavailable(format!("looking for what a killed BuildKit left: {}", status.message()))
}

struct Left {
    channel: Channel,
    namespace: String,
}

impl Left {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(ANSWER);
        if let Ok(namespace) = self.namespace.parse::<MetadataValue<_>>() {
            request.metadata_mut().insert("containerd-namespace", namespace);
        }
        request
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    async fn list(&self, slot: &str) -> Result<Vec<String>, Status> {
        let filters = vec![format!("labels.{SLOT:?}=={slot}")];
        let mut client = ContainersClient::new(self.channel.clone());
        let answer = client.list(self.request(ListContainersRequest { filters })).await?;
        Ok(answer.into_inner().containers.into_iter().map(|container| container.id).collect())
    }

    async fn end(&self, id: &str) -> Result<(), Status> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            let kill = KillRequest { container_id: id.to_owned(), signal: KILL, all: true, ..KillRequest::default() };
            let _ended_already = self.tasks().kill(self.request(kill)).await;
            match self.tasks().delete(self.request(DeleteTaskRequest { container_id: id.to_owned() })).await {
                Ok(_) => break,
                Err(status) if status.code() == Code::NotFound => break,
                Err(status) if Instant::now() >= deadline => return Err(status),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        let mut client = ContainersClient::new(self.channel.clone());
        match client.delete(self.request(DeleteContainerRequest { id: id.to_owned() })).await {
            Err(status) if status.code() != Code::NotFound => Err(status),
            _ => Ok(()),
        }
    }
}

/// Takes away what is mounted below a folder.
pub(super) async fn unmount_below(folder: &Path) {
    let folder = folder.to_owned();
    let unmounting = tokio::task::spawn_blocking(move || mounts::unmount_below(&folder, "a killed BuildKit"));
    if let Err(error) = unmounting.await {
        warn!(%error, "unmounting what a killed BuildKit left: {error}");
    }
}
